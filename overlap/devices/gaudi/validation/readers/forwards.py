"""What readers of whole models share: terms of a generation, and the case around them."""

from __future__ import annotations

from overlap.devices.gaudi.validation.calls import Forward, Term
from overlap.devices.gaudi.validation.cases import Case, Measure
from overlap.devices.gaudi.validation.models import Model, find_model, mentioned
from overlap.devices.gaudi.validation.predictor import Stack
from overlap.devices.gaudi.validation.rows import Inexpressible, Row
from overlap.workload import Bucket

# A cache that grows step by step is followed at this many lengths, evenly apart.
LENGTHS = 4
WHOLE_PRECISION = ("bf16", "bf16 (assumed)", "bf16 (not stated)", "not recorded", "")


def model_of(row: Row) -> Model:
    """The model that a row names among its parameters, else in the description of its workload."""
    name = row.params.get("model") or mentioned(row.op)
    if not isinstance(name, str):
        raise Inexpressible("the model is not recorded")
    return find_model(name)


def check_dtype(row: Row) -> tuple[str, ...]:
    """What has to be assumed of the dtype.

    Raises:
        Inexpressible: it is none that whole models are predicted in.
    """
    if row.dtype not in WHOLE_PRECISION:
        raise Inexpressible(f"a whole model in {row.dtype}")
    return () if row.dtype == "bf16" else ("bf16",)


def prefill(model: Model, batch: int, query: int, degree: int, stack: Stack, context: int = 0) -> Term:
    """One forward over prompts."""
    return Term(Forward(model, Bucket("prefill", batch, query, context), degree, stack))


def steps(model: Model, batch: int, read: int, degree: int, stack: Stack, count: float = 1.0) -> Term:
    """`count` decode steps that read a cache of `read` tokens, their own among them."""
    return Term(Forward(model, Bucket("decode", batch, 1, max(1, read - 1)), degree, stack), count)


def growing(
    model: Model, batch: int, first: int, last: int, degree: int, stack: Stack, bucket: int = 1
) -> tuple[Term, ...]:
    """Decode steps whose cache grows from `first` to `last` tokens, rounded up to multiples of `bucket`."""
    count = last - first + 1
    if count <= 0:
        return ()
    parts = min(LENGTHS, count)
    middles = [first + count * (2 * part + 1) / (2 * parts) - 0.5 for part in range(parts)]
    reads = [-(-round(middle) // bucket) * bucket for middle in middles]
    return tuple(steps(model, batch, read, degree, stack, count / parts) for read in reads)


def whole_model(
    row: Row,
    kind: str,
    model: Model,
    terms: tuple[Term, ...],
    how: Measure,
    batch: int,
    degree: int,
    detail: str,
    assumed: tuple[str, ...] = (),
) -> Case:
    """The case of a row about a whole model."""
    cards = f" on {degree} cards" if degree > 1 else ""
    return Case(
        row=row,
        kind=kind,
        terms=terms,
        measure=how,
        workload=f"{model.shape.name} {detail}, batch {batch}{cards}",
        batch=batch,
        parameters=model.parameters,
        assumed=assumed,
    )

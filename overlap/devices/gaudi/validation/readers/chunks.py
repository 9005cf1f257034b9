"""Row-parallel linear layers in chunks, as vllm-gaudi's documents publish them: speed-up over the unchunked layer.

They name the model, not which of its two row-parallel layers; it is taken to be the larger one, behind the MLP.
"""

from __future__ import annotations

from overlap.devices.gaudi.validation.calls import RowParallel, Term
from overlap.devices.gaudi.validation.cases import Case, Measure
from overlap.devices.gaudi.validation.readers.forwards import model_of
from overlap.devices.gaudi.validation.readers.units import checked
from overlap.devices.gaudi.validation.rows import Inexpressible, Row


def read_chunks(row: Row) -> Case:
    """The time in chunks over the time in one piece."""
    if row.unit != "x" or "speedup" not in row.metric:
        raise Inexpressible(f"{row.metric} in {row.unit or 'no unit'} of a chunked layer")
    shape = model_of(row).shape
    tokens, degree, chunks = row.need("tokens"), row.need("TP"), row.need("chunks")
    k, n = row.count("K") or shape.ffn, row.count("N") or shape.hidden
    assumed = () if row.count("K") else ("the layer behind the MLP",)

    def term(pieces: int) -> tuple[Term, ...]:
        return (Term(RowParallel(tokens, k, n, degree, pieces)),)

    return Case(
        row=row,
        kind="row_parallel",
        terms=term(chunks),
        over=term(1),
        measure=checked(row, Measure(1.0, rate=True)),
        workload=f"{tokens} x {k} x {n} on {degree} cards, {chunks} chunks",
        assumed=assumed,
    )

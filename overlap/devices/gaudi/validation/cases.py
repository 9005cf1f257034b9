"""Rows as cases: what to ask of a predictor, and how its answer compares with what was published.

Terms
    case: a row whose number a predictor can be asked for: a weighted sum of questions, or a quotient of two sums.
    measure: how a published value and a time follow from each other. All errors are errors of time, so that a positive
        one always means: predicted slower than published.
    nominal: a case whose conditions are partly assumed; it says which way a switch turns, never how far.

Contract: every row ends in exactly one of a case or a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from overlap.devices.gaudi.validation.calls import Term
from overlap.devices.gaudi.validation.rows import Inexpressible, Row

# What sources call a chip → the chip; None means that they do not say which of the two.
CHIPS = {"Gaudi2": "gaudi2", "Gaudi3": "gaudi3", "Gaudi2/3 (not stated)": None, "not stated": None}
TIMES_NS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}


@dataclass(frozen=True)
class Measure:
    """`time = factor * value`, or `time = factor / value` for rates; times in ns, or quotients of times."""

    factor: float
    rate: bool = False

    def time_of(self, value: float) -> float:
        """The time that a published value stands for."""
        return self.factor / value if self.rate else self.factor * value

    def value_of(self, time: float) -> float:
        """What would be published of a time."""
        return self.factor / time if self.rate else time / self.factor


@dataclass(frozen=True)
class Case:
    """A row that can be predicted.

    Args:
        row: as published.
        kind: gemm, gemm_thin, forward_unfused, forward_fused, forward_direct, decode, generation, layer, all_reduce,
            row_parallel, or nominal.
        terms: their sum is the predicted time.
        measure: from published value to time.
        over: if any, the prediction is the sum of `terms` over the sum of these.
        workload: in a few words, for tables.
        batch: sequences, where that means something.
        parameters: weights of the model, 0 without one.
        assumed: what the source does not say.
    """

    row: Row
    kind: str
    terms: tuple[Term, ...]
    measure: Measure
    workload: str
    over: tuple[Term, ...] = ()
    batch: int = 0
    parameters: int = 0
    assumed: tuple[str, ...] = ()

    @property
    def published(self) -> float:
        """The published time in ns, or quotient of times."""
        return self.measure.time_of(self.row.value)


@dataclass(frozen=True)
class Cases:
    """All rows of a file for one chip, each in `found` or, by reason, in `refused`."""

    chip: str
    found: tuple[Case, ...]
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def make_cases(rows: Iterable[Row], chip: str) -> Cases:
    """Put every row as questions about `chip`, or say why that cannot be done.

    Raises:
        ConfigError: a value of a row that could be predicted is not positive.
    """
    from overlap.devices.gaudi.validation.readers.dispatch import read

    rows = list(rows)
    timed = {_conditions(row) for row in rows if row.metric == "latency"}
    found: list[Case] = []
    refused: dict[str, list[str]] = {}
    for row in rows:
        try:
            _check_use_and_chip(row, chip)
            if "FLOPS" in row.unit and _conditions(row) in timed:
                raise Inexpressible("the rate of a time that is a row of its own")
            case = read(row)
            unsaid = ("chip",) if CHIPS[row.chip] is None else ()
            found.append(replace(case, assumed=(*case.assumed, *unsaid)))
        except Inexpressible as reason:
            refused.setdefault(str(reason), []).append(row.id)
    return Cases(chip, tuple(found), {reason: tuple(ids) for reason, ids in sorted(refused.items())})


def _check_use_and_chip(row: Row, chip: str) -> None:
    if not row.use.startswith(("cal:", "val:")):
        raise Inexpressible("context: neither for calibration nor for validation")
    if row.chip not in CHIPS:
        raise Inexpressible(f"measured on {row.chip}, of which there is no model")
    of_row = CHIPS[row.chip]
    if of_row not in (None, chip):
        raise Inexpressible(f"measured on {row.chip}: device={of_row} has it")


def _conditions(row: Row) -> tuple[object, ...]:
    """What two rows share that tell one measurement in two units."""
    params = tuple(sorted((name, str(value)) for name, value in row.params.items()))
    return row.source, row.url, row.section, row.chip, row.op, row.dtype, params

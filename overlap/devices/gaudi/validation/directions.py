"""Comparisons: whether a switch that was published to help helps in the prediction too, and one that hurt hurts.

Terms
    pair: two rows that differ in one switch of `SWITCHES` only: same source, same other words, same parameters.
    ratio: time without the switch over time with it; above 1 it helps. A row that is a quotient of times (`Case.over`)
        is a comparison by itself.
    even: published within `EVEN` of 1: then the prediction agrees if it stays within `NEARLY`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from overlap.devices.gaudi.validation.cases import Case

EVEN, NEARLY = 0.01, 0.03


class Switch(NamedTuple):
    """What the description of a row says without and with a switch."""

    name: str
    without: str
    with_it: str


SWITCHES = (
    Switch("fast softmax", r"standard softmax", r"fast softmax( \(prefill only\))?"),
    Switch("fused attention", r"with default attention|unfused softmax attention", r"with FusedSDPA"),
    Switch("cache buckets", r"before KV buckets|without KV bucketing", r"after KV buckets|with KV bucketing"),
    Switch("device loop", r"without device loop", r"with device loop"),
)
# Words that differ between the descriptions of one workload and say nothing of it.
_FILLER = re.compile(r"\bsame prompt\b|single \w+-token prompt, bs\d+,?|: device time|,", re.I)


@dataclass(frozen=True)
class Direction:
    """One comparison; both ratios are time without over time with the switch."""

    switch: str
    ids: tuple[str, ...]
    workload: str
    published: float
    predicted: float
    calibration: bool
    assumed: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the prediction is on the published side of 1."""
        if abs(self.published - 1) <= EVEN:
            return abs(self.predicted - 1) <= NEARLY
        return (self.predicted - 1) * (self.published - 1) > 0


def directions(cases: Sequence[Case], predicted: Mapping[str, float]) -> list[Direction]:
    """All comparisons among the cases that `predicted` has a time (or quotient) for, by id."""
    known = [case for case in cases if case.row.id in predicted]
    return [*_quotients(known, predicted), *_pairs(known, predicted)]


def _quotients(cases: Sequence[Case], predicted: Mapping[str, float]) -> Iterator[Direction]:
    """Rows that compare by themselves: with a switch over without it."""
    for case in cases:
        if case.over:
            row = case.row
            name = "chunks" if case.kind == "row_parallel" else "HPU graphs"
            ratios = 1 / case.published, 1 / predicted[row.id]
            yield Direction(name, (row.id,), case.workload, *ratios, row.calibration, case.assumed)


def _pairs(cases: Sequence[Case], predicted: Mapping[str, float]) -> Iterator[Direction]:
    for switch in SWITCHES:
        sides: dict[tuple[object, ...], dict[bool, Case]] = {}
        for case in cases:
            side = _side(switch, case)
            if side is not None:
                sides.setdefault(_rest(switch, case), {}).setdefault(side, case)
        for found in sides.values():
            if len(found) == 2:
                off, on = found[False], found[True]
                yield Direction(
                    switch.name,
                    (off.row.id, on.row.id),
                    on.workload,
                    off.published / on.published,
                    predicted[off.row.id] / predicted[on.row.id],
                    off.row.calibration or on.row.calibration,
                    tuple(dict.fromkeys((*off.assumed, *on.assumed))),
                )


def _side(switch: Switch, case: Case) -> bool | None:
    if re.search(switch.without, case.row.op, re.I):
        return False
    return True if re.search(switch.with_it, case.row.op, re.I) else None


def _rest(switch: Switch, case: Case) -> tuple[object, ...]:
    """What both rows of a pair share."""
    row = case.row
    words = re.sub(f"{switch.without}|{switch.with_it}", "", row.op, flags=re.I)
    words = " ".join(_FILLER.sub(" ", words).split())
    params = tuple(sorted((name, str(value)) for name, value in row.params.items()))
    return row.source, row.url, row.section, row.chip, words, params, row.dtype

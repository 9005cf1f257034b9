"""A candidate: a split, the order its ops enter the queues in, and whether the queues may run side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

from overlap.search.config import SpaceConfig
from overlap.split import Split, canonical, violations
from overlap.workload import Workload


@dataclass(frozen=True, order=True)
class Candidate:
    """What is timed. `serial` runs one queue at a time and is only used to explain a gain."""

    split: Split
    order: str = "program"
    serial: bool = False

    @property
    def key(self) -> str:
        """Readable identity, unique within a sweep: `chunks=4 lag=1 | list`."""
        return f"{self.split} | {self.order}{' | serial' if self.serial else ''}"


BASELINE = Candidate(Split())


@dataclass(frozen=True)
class Rejected:
    """A point of the space that cannot run, and the rule that says so."""

    split: Split
    reason: str


def enumerate_space(space: SpaceConfig, workload: Workload) -> tuple[list[Split], list[Rejected]]:
    """Every split of the grid that can run, canonical and once, and the ones that cannot; the baseline is left out."""
    found: dict[Split, None] = {}
    rejected: dict[Split, str] = {}
    for split in _grid(space):
        broken = violations(split, workload)
        if broken:
            rejected.setdefault(split, broken[0])
        else:
            found.setdefault(canonical(split, workload))
    found.pop(Split(), None)
    return list(found), [Rejected(split, reason) for split, reason in rejected.items()]


def with_fused(splits: Sequence[Split], workload: Workload) -> list[Split]:
    """`splits`, and what each is with the device's own fused attention in place of tiles and softmax.

    On a device whose stack is fused, a search without it would compare with something it never tried.
    """
    found = dict.fromkeys(splits)
    for split in (BASELINE.split, *splits):
        plain = replace(split, query_tile=0, kv_tile=0, normalise="before", softmax="exact")
        fused = canonical(replace(plain, fused_sdpa=True, masked_blocks="skip"), workload)
        if not violations(fused, workload):
            found.setdefault(fused)
    return list(found)


def _grid(space: SpaceConfig) -> Iterator[Split]:
    names = [field.name for field in fields(Split)]
    values: list[Sequence[object]] = [getattr(space, name) for name in names]
    for point in itertools.product(*values):
        yield Split(**dict(zip(names, point, strict=True)))  # type: ignore[arg-type]

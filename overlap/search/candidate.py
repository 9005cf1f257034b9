"""A candidate: a split, the order its ops enter the queues in, and whether the queues may run side by side."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from math import ceil
from typing import Any

from overlap.errors import SplitError
from overlap.search.config import SpaceConfig
from overlap.split import Split, canonical, chunk_shape, violations
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

    @property
    def rule(self) -> str:
        """The reason without its numbers, so that points that broke the same rule can be counted."""
        return re.sub(r"\d+", "N", self.reason)


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


def few_enough(splits: Sequence[Split], workload: Workload, most_ops: int) -> tuple[list[Split], list[Rejected]]:
    """Splits whose programs are small enough to be looked at, and the others."""
    found, rejected = [], []
    for split in splits:
        ops = about_ops(split, workload)
        if ops <= most_ops:
            found.append(split)
        else:
            axis = "query_tile" if split.query_tile else "kv_tile" if split.kv_tile else "chunks"
            value = getattr(split, axis)
            rejected.append(Rejected(split, f"{axis}={value} makes some {ops} ops, above search.most_ops={most_ops}"))
    return found, rejected


def about_ops(split: Split, workload: Workload) -> int:
    """How many ops the program of a split has, roughly."""
    _, query = chunk_shape(split, workload)
    tiles = ceil(query / split.query_tile) if split.query_tile else 1
    blocks = ceil(workload.bucket.key_tokens / split.kv_tile) if split.kv_tile else 1
    # A layer has some 12 ops beside its attention, and a block of scores 3.
    return workload.window_layers * split.chunks * (12 + split.head_groups * tiles * (1 + 3 * blocks))


def require_some(splits: Sequence[Split], rejected: Sequence[Rejected], workload: Workload) -> None:
    """Refuse a space in which nothing is left.

    Raises:
        SplitError: saying how many points which rule took, the hungriest rule first, each by its first example.
    """
    if splits or not rejected:
        return
    counts = Counter(one.rule for one in rejected)
    examples = {one.rule: one.reason for one in reversed(rejected)}
    # A reason begins with the axis whose rule it is.
    told = "; ".join(
        f"{rule.partition('=')[0]}: {count} of {len(rejected)}, as in {examples[rule]}"
        for rule, count in counts.most_common()
    )
    raise SplitError(f"no split of the space can run; rules took {told}", f"workload: {workload}")


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
    """All points, without those that differ only in axes whose condition does not hold."""
    neutral = {field.name: field.default for field in fields(Split)}
    names, rules = list(neutral), space.conditions()
    seen: set[tuple[object, ...]] = set()
    for values in itertools.product(*(getattr(space, name) for name in names)):
        point: dict[str, Any] = dict(zip(names, values, strict=True))
        for axis, conditions in rules:
            if not all(point[name] in allowed for name, allowed in conditions.items()):
                point[axis] = neutral[axis]
        key = tuple(point.values())
        if key not in seen:
            seen.add(key)
            yield Split(**point)

"""The plan of a table: in which order its buckets are swept, and which of them lend what they kept to which.

Terms
    snake: buckets of a phase in an order in which each is next to the one before it, like ploughing a field: along the
        queries of the first context, back along those of the second.
    strip: a few buckets that follow each other on the snake. They are swept one after the other, different strips side
        by side.
    lenders: the buckets before it in its strip whose kept splits a bucket tries beside those of the space.

Contract: a plan depends on the list of buckets alone, not on how many are swept at once, nor on which is done first.
So a table has the same seeds on any machine, and a table that was cut off is gone on with the seeds it had.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import TypeVar

from overlap.split import Split, canonical, violations
from overlap.workload import Bucket, Workload

T = TypeVar("T")

# Long enough for seeds to travel, short enough that a table of 64 keeps 16 cores busy.
STRIP = 4
LENDERS = 2
# From the outermost to the innermost: neighbours on the snake differ in the last of them that varies.
AXES = ("batch", "context", "query")


@dataclass(frozen=True)
class Step:
    """A bucket, and the ones that lend it their splits, the nearest first."""

    bucket: Bucket
    lenders: tuple[Bucket, ...]


def plan(buckets: Iterable[Bucket]) -> list[list[Step]]:
    """Strips of all buckets, those of the largest buckets first, so that no core is left with them at the end."""
    by_phase: dict[str, list[Bucket]] = {}
    for bucket in buckets:
        by_phase.setdefault(bucket.phase, []).append(bucket)
    strips = [strip for phase in sorted(by_phase) for strip in _cut(_snake(by_phase[phase], AXES))]
    return sorted(map(_steps, strips), key=lambda steps: -max(_size(step.bucket) for step in steps))


def _snake(buckets: Sequence[Bucket], axes: Sequence[str]) -> list[Bucket]:
    if not axes:
        return list(buckets)
    found: list[Bucket] = []
    for number, value in enumerate(sorted({getattr(one, axes[0]) for one in buckets})):
        row = _snake([one for one in buckets if getattr(one, axes[0]) == value], axes[1:])
        found += reversed(row) if number % 2 else row
    return found


def _cut(buckets: Sequence[Bucket]) -> list[Sequence[Bucket]]:
    """As few strips as there can be, of equal lengths."""
    count = math.ceil(len(buckets) / STRIP)
    ends = [len(buckets) * (number + 1) // count for number in range(count)]
    return [buckets[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _steps(strip: Sequence[Bucket]) -> list[Step]:
    return [Step(one, tuple(reversed(strip[max(0, at - LENDERS) : at]))) for at, one in enumerate(strip)]


def _size(bucket: Bucket) -> int:
    """Scores of its attention: what a sweep has to compute grows with it."""
    return bucket.batch * bucket.query * bucket.key_tokens


def seeds_of(step: Step, kept: Mapping[Bucket, Split], workload: Workload) -> list[Split]:
    """Splits that were kept for the lenders of `step` and can run on `workload`; the neutral one is no seed."""
    found = (kept[one] for one in step.lenders if one in kept)
    able = (canonical(split, workload) for split in found if not violations(split, workload))
    return [split for split in dict.fromkeys(able) if split != Split()]


def drive(
    strips: Iterable[Sequence[Step]],
    jobs: int,
    known: Mapping[Bucket, T],
    submit: Callable[[Step, Mapping[Bucket, T]], Future[T]],
    done: Callable[[Bucket, T], None],
) -> dict[Bucket, T]:
    """Do every step, `jobs` of them at once; what came out, by bucket.

    Args:
        strips: from `plan`; of one strip only one step runs at a time.
        jobs: how many steps `submit` may have begun.
        known: results of steps that are not done again.
        submit: begins a step, given the results so far, those of its lenders among them.
        done: told every new result as it comes in.

    Raises:
        Exception: the first that a step raised; others may still be running.
    """
    found = dict(known)
    waiting = [list(strip) for strip in strips]
    running: dict[Future[T], tuple[Step, list[Step]]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            strip = waiting.pop(0)
            while strip and strip[0].bucket in found:
                strip.pop(0)
            if strip:
                step = strip.pop(0)
                running[submit(step, found)] = (step, strip)
        for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
            step, strip = running.pop(future)
            found[step.bucket] = future.result()
            done(step.bucket, found[step.bucket])
            # A strip that was begun goes on first: its next bucket has its seeds now.
            waiting.insert(0, strip)
    return found

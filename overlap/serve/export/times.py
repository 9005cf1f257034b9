"""Times of one bucket that are known: what a tuned config says of the kept split, its alternatives and the stack.

Terms
    known: a split with a measured or simulated time, in µs.
    order: the program order it was timed in. A stack runs programs in the order of its compiler, so a split that was
        timed in another order only is known with what that order was worth added, as far as the config tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from overlap.serve.export.server import ServerSettings
from overlap.serve.tuned import Entry, Tuned
from overlap.split import Split, canonical
from overlap.workload import Workload

PROGRAM = "program"


@dataclass(frozen=True)
class Known:
    """A split and its time without an order; `is_kept` is the one that the config keeps, `note` says what to know."""

    split: Split
    time_us: float
    note: str = ""
    is_kept: bool = False


def stack_us(entry: Entry) -> float | None:
    """The time of the stack: the paired ratio times the kept time; none where no stack was timed."""
    if entry.speedup_vs_stack is None:
        return None
    return entry.latency_us.median * entry.speedup_vs_stack.median


def times(tuned: Tuned, entry: Entry) -> Mapping[Split, Known]:
    """Every split of `entry` that has a time; of several times the one in program order counts, then the first."""
    found: dict[Split, Known] = {}
    for known in _all(entry, tuned.workload(entry)):
        before = found.get(known.split)
        if before is None or (before.note and not known.note):
            found[known.split] = known
    return found


def _all(entry: Entry, workload: Workload) -> Iterator[Known]:
    usual = ServerSettings().runs(workload)
    stack = stack_us(entry)
    if usual is not None and stack is not None:
        yield Known(usual, stack)
    kept = canonical(entry.split, workload)
    yield Known(kept, entry.latency_us.median * _order_worth(entry), _order_note(entry), is_kept=True)
    yield Known(canonical(Split(), workload), entry.baseline_latency_us.median)
    for other in entry.alternatives:
        note = "" if other.order == PROGRAM else f"timed in order {other.order}, which no stack can be told"
        yield Known(canonical(other.split, workload), other.latency_us.median, note)


def _order_worth(entry: Entry) -> float:
    """By how much the kept split is slower without its order, as far as that is known."""
    if entry.order == PROGRAM or entry.attribution is None:
        return 1.0
    return max(1.0, entry.attribution.order)


def _order_note(entry: Entry) -> str:
    """What the order of the kept split was worth, in words."""
    if entry.order == PROGRAM:
        return ""
    start = f"timed in order {entry.order}, which no stack can be told"
    if entry.attribution is None:
        return f"{start}; nobody timed what it is worth"
    worth = f"{start}; by itself it was worth {entry.attribution.order:.3f}x, which the time here does without"
    part = "" if entry.attribution.overlap is None else ", and a part of what both engines at once were worth"
    return worth + part

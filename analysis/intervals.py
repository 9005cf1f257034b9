"""Unions of intervals in exact int64 ns: what the tables of lanes, gaps, pairs and tails are made of.

Terms
    group: rows that are merged with each other, such as those of one lane; groups are numbered from 0.
    island: a longest stretch during which at least one row of a group runs; islands of a group never touch.

Contract: intervals are half open, rows of length zero are never active, touching rows become one island. Input may be
in any order; rows in order of start, which is how readers give them, are faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from overlap.traces.codes import Ints
from overlap.traces.sweep import Window

Mask = npt.NDArray[np.bool_]

# Sums and shifts of times stay below this; int64 overflows at twice as much.
SAFE = 1 << 62


@dataclass(frozen=True)
class Islands:
    """Islands in order of group, then start."""

    group: Ints
    start_ns: Ints
    end_ns: Ints

    @property
    def length_ns(self) -> Ints:
        """Length of each island."""
        return self.end_ns - self.start_ns

    @property
    def total_ns(self) -> int:
        """Length of all islands; a union only where there is one group."""
        return int(self.length_ns.sum())

    def of(self, group: int) -> Islands:
        """The islands of one group."""
        low, high = np.searchsorted(self.group, [group, group + 1])
        return Islands(self.group[low:high], self.start_ns[low:high], self.end_ns[low:high])


def column(frame: pl.DataFrame, name: str) -> Ints:
    """An integer column as int64, without a copy where that is possible."""
    found: Ints = frame[name].to_numpy().astype(np.int64, copy=False)
    return found


def clipped(events: pl.DataFrame, window: Window, end: str = "end_ns") -> tuple[Ints, Ints, Mask]:
    """Starts and ends of all rows inside the window, and which of them last at all."""
    low, high = window
    starts, ends = (np.clip(column(events, name), low, high) for name in ("start_ns", end))
    return starts, ends, ends > starts


def islands(starts: Ints, ends: Ints, groups: Ints | None = None, *, touching: bool = True) -> Islands:
    """Islands of intervals, each of which has to last.

    Args:
        starts: of the intervals.
        ends: of the intervals.
        groups: number of each interval's group; one group where it is None.
        touching: whether intervals that only touch become one island. If not, islands of a group may touch, and there
            are as many as there are intervals that start when no earlier one of their group is open.
    """
    if not len(starts):
        return Islands(starts, starts, ends)
    if (starts[1:] < starts[:-1]).any():
        order = pl.Series(starts).arg_sort().to_numpy()
        starts, ends = starts[order], ends[order]
        groups = None if groups is None else groups[order]
    if groups is not None:
        order = _stable_order(groups)
        starts, ends, groups = starts[order], ends[order], groups[order]
    shift = np.zeros(1, dtype=np.int64)
    if groups is not None:
        # Each group is shifted behind the one before it; then one running maximum does for all of them.
        low = int(starts.min())
        span = int(ends.max()) - low + 1
        if int(groups[-1] + 1) * span >= SAFE:
            return _group_by_group(starts, ends, groups, touching)
        shift = groups * span - low
    reach = np.maximum.accumulate(ends + shift)
    # Ends are exclusive, so what starts at the reach only touches it.
    fresh = np.flatnonzero(np.concatenate([[True], (starts + shift)[1:] >= reach[:-1] + touching]))
    last = np.concatenate([fresh[1:] - 1, [len(starts) - 1]])
    found = np.zeros(len(fresh), dtype=np.int64) if groups is None else groups[fresh]
    return Islands(found, starts[fresh], (reach - shift)[last])


def _group_by_group(starts: Ints, ends: Ints, groups: Ints, touching: bool) -> Islands:
    """The same for spans so long that shifts would overflow; rows are in order of group and start."""
    edges = np.flatnonzero(np.diff(groups, prepend=-1, append=-1))
    parts = [islands(starts[low:high], ends[low:high], touching=touching) for low, high in pairwise(edges)]
    sizes = [len(part.start_ns) for part in parts]
    found = np.repeat(groups[edges[:-1]], sizes)
    return Islands(
        found, np.concatenate([part.start_ns for part in parts]), np.concatenate([part.end_ns for part in parts])
    )


def _stable_order(groups: Ints) -> Ints:
    """Order by group that keeps the order within each; numpy sorts 16 bits at a time by counting, which is fastest."""
    order = np.argsort((groups & 0xFFFF).astype(np.uint16), kind="stable")
    rest = groups >> 16
    while rest.any():
        order = order[np.argsort((rest & 0xFFFF).astype(np.uint16)[order], kind="stable")]
        rest = rest >> 16
    return order


def union(starts: Ints, ends: Ints) -> Islands:
    """Islands of intervals in no special order, of which some may have length zero."""
    lasting = ends > starts
    if not lasting.all():
        starts, ends = starts[lasting], ends[lasting]
    return islands(starts, ends)


def joined(*parts: Islands) -> Islands:
    """Union of several unions."""
    return union(np.concatenate([one.start_ns for one in parts]), np.concatenate([one.end_ns for one in parts]))


def shared_ns(one: Islands, other: Islands) -> int:
    """Time during which both of two unions run."""
    return one.total_ns + other.total_ns - joined(one, other).total_ns


def busy_before(found: Islands, times: Ints) -> Ints:
    """How long a union has run up to each of `times`."""
    if not len(found.start_ns):
        return np.zeros(len(times), dtype=np.int64)
    spent = np.cumsum(found.length_ns)
    place = np.searchsorted(found.start_ns, times, side="right") - 1
    late = np.clip(found.end_ns[place] - times, 0, None)
    return np.where(place < 0, 0, spent[place] - late)


def sums(places: Ints, values: Ints, count: int) -> Ints:
    """Sum of the values of each place."""
    total = np.zeros(count, dtype=np.int64)
    np.add.at(total, places, values)
    return total

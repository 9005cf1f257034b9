"""Which kinds of ops ran beside which: how long an op of one kind on one engine had one of another kind beside it.

Terms
    pair: (engine A, kind A, engine B, kind B) with different engines; the pairs of engines are `SIDES`.
    overlap of a pair: the time during which at least one op of kind A and at least one of kind B ran. A moment in which
        several kinds of one engine run counts for each of them, so overlaps may sum to more than the engines shared;
        they sum to it exactly where every engine runs one kind at a time.

How: rows of a kind become islands. Of two intervals that share time exactly one starts inside the other (or both start
at once), so the matches of an interval are those that start in it: two binary searches each, and work that grows with
the number of matches, not with the product of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import polars as pl

from overlap.analysis.intervals import Islands, Mask, clipped, islands, sums
from overlap.traces.codes import Ints, coded
from overlap.traces.sweep import Window

SIDES = (
    ("MME", "TPC"),
    ("MME", "FUSED"),
    ("FUSED", "TPC"),
    *((mover, compute) for mover in ("DMA", "NIC") for compute in ("MME", "TPC", "FUSED")),
)
COLUMNS = pl.Schema(
    {
        "engine_a": pl.String,
        "kind_a": pl.String,
        "engine_b": pl.String,
        "kind_b": pl.String,
        "overlap_ns": pl.Int64,
        "share_a": pl.Float64,
        "share_b": pl.Float64,
    }
)
# Matches that are looked at together, so that a dense trace does not fill the memory.
BATCH = 1 << 21
# Up to so many pairs of kinds are counted in a table of all of them.
TABLE = 1 << 22


def pair_table(events: pl.DataFrame, window: Window, top: int | None = None, by: str = "kind") -> pl.DataFrame:
    """All pairs that share time, most first.

    Args:
        events: an event table of one device (`overlap.traces.schema`), or any frame with `engine, start_ns, end_ns` and
            the column `by`.
        window: (start_ns, end_ns); rows are clipped to it.
        top: how many pairs; all where it is None.
        by: the column that tells ops apart: `kind`, `name`, or any other with texts.

    Returns:
        `engine_a, kind_a, engine_b, kind_b, overlap_ns, share_a, share_b`; `share_a` is of the time during which any op
        of kind A ran, so it says how much of kind A had kind B beside it.
    """
    kinds, keys = coded(events, ("engine", by))
    starts, ends, lasting = clipped(events, window)
    found = islands(starts[lasting], ends[lasting], kinds[lasting])
    busy = sums(found.group, found.length_ns, keys.height)
    engines = keys["engine"].to_numpy()
    parts = []
    for side_a, side_b in SIDES:
        one, other = (_by_start(found, (engines == side)[found.group]) for side in (side_a, side_b))
        if len(one.group) and len(other.group):
            parts.append(_overlaps(one, other, keys.height))
    if not parts:
        return COLUMNS.to_frame()
    a, b, shared = (np.concatenate(column) for column in zip(*parts, strict=True))
    frame = pl.DataFrame(
        {
            "engine_a": keys["engine"].gather(a),
            "kind_a": keys[by].gather(a),
            "engine_b": keys["engine"].gather(b),
            "kind_b": keys[by].gather(b),
            "overlap_ns": shared,
            "share_a": shared / busy[a],
            "share_b": shared / busy[b],
        },
        schema=COLUMNS,
    )
    texts = ["engine_a", "kind_a", "engine_b", "kind_b"]
    ranked = frame.sort("overlap_ns", *texts, descending=[True, *(False for _ in texts)])
    return ranked if top is None else ranked.head(top)


def _by_start(found: Islands, chosen: Mask) -> Islands:
    """Some islands, of any group, in order of start."""
    group, start, end = found.group[chosen], found.start_ns[chosen], found.end_ns[chosen]
    # Islands are sorted within each group; a stable sort makes use of such runs.
    order = np.argsort(start, kind="stable")
    return Islands(group[order], start[order], end[order])


def _overlaps(one: Islands, other: Islands, kinds: int) -> tuple[Ints, Ints, Ints]:
    """(kind A, kind B, ns) of all pairs that share time."""
    keys, times = [], []
    for a, b in _matches(one, other):
        shared = np.minimum(one.end_ns[a], other.end_ns[b]) - np.maximum(one.start_ns[a], other.start_ns[b])
        key, ns = _summed(one.group[a] * kinds + other.group[b], shared, kinds * kinds)
        keys.append(key)
        times.append(ns)
    key, ns = _summed(np.concatenate(keys), np.concatenate(times), kinds * kinds)
    return key // kinds, key % kinds, ns


def _summed(keys: Ints, values: Ints, count: int) -> tuple[Ints, Ints]:
    """Sum per key that occurs; matches always share time, so a sum of zero means that there was none."""
    if count <= TABLE:
        total = sums(keys, values, count)
        used = np.flatnonzero(total)
        return used, total[used]
    used, place = np.unique(keys, return_inverse=True)
    return used, sums(place, values, len(used))


def _matches(one: Islands, other: Islands) -> Iterator[tuple[Ints, Ints]]:
    """Rows of both sides that share time, every pair of rows once, in batches."""
    yield from _started_in(one, other.start_ns, "left")
    # Starts at the same time were matched above.
    yield from ((b, a) for a, b in _started_in(other, one.start_ns, "right"))


def _started_in(outer: Islands, starts: Ints, side: Literal["left", "right"]) -> Iterator[tuple[Ints, Ints]]:
    """(row of `outer`, row of `starts`) for every start inside an interval; `right` leaves out its very start."""
    low = np.searchsorted(starts, outer.start_ns, side=side)
    count = np.maximum(np.searchsorted(starts, outer.end_ns, side="left") - low, 0)
    ends = np.cumsum(count)
    first = 0
    while first < len(count):
        done = int(ends[first - 1]) if first else 0
        # At least one row, however many matches it has.
        last = max(first + 1, int(np.searchsorted(ends, done + BATCH, side="right")))
        outers = np.repeat(np.arange(first, last), count[first:last])
        offset = low[first:last] - (ends[first:last] - count[first:last] - done)
        yield outers, np.arange(len(outers)) + np.repeat(offset, count[first:last])
        first = last

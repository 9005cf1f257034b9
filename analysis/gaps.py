"""Stretches of time in which nothing ran, and what ran around them.

Terms
    gap: a longest stretch of the window without a busy engine. micro: shorter than `macro_ns`, as between two ops of
        one graph; macro: at least as long, as when the device waits for the host.
    engine gap: the same for one engine; others may be busy meanwhile.

Contract: the gaps of a window sum to the `idle` of its partition, engine gaps to the window less the busy time of the
engine, exactly. A window without rows is one gap.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from overlap.analysis.intervals import Islands, Mask, clipped, islands
from overlap.traces.codes import Ints
from overlap.traces.sweep import Window

MACRO_NS = 10_000
SIZES = ("micro", "macro")


def gaps(events: pl.DataFrame, window: Window, macro_ns: int = MACRO_NS) -> pl.DataFrame:
    """Every gap, in order of time.

    Args:
        events: an event table of one device (`overlap.traces.schema`).
        window: (start_ns, end_ns).
        macro_ns: from which length on a gap is macro.

    Returns:
        `start_ns, end_ns, length_ns, before, after, size`: `before` is the name of the op that ended as the gap began,
        `after` of the one that started as it ended; of several the first one in the table, "" at the window's edges.
    """
    starts, ends, lasting = clipped(events, window)
    names = events["name"]
    if not lasting.all():
        starts, ends, names = starts[lasting], ends[lasting], names.filter(pl.Series(lasting))
    busy = islands(starts, ends)
    # Gap i lies between the islands i - 1 and i; the first and the last one touch the window's edges.
    low = np.concatenate([[window[0]], busy.end_ns])
    high = np.concatenate([busy.start_ns, [window[1]]])
    place = np.searchsorted(busy.start_ns, starts, side="right") - 1
    count = len(busy.start_ns)
    before = np.concatenate([[-1], _first(place, ends == busy.end_ns[place], count)])
    after = np.concatenate([_first(place, starts == busy.start_ns[place], count), [-1]])
    real = high > low
    found = pl.DataFrame({"start_ns": low[real], "end_ns": high[real], "length_ns": (high - low)[real]})
    size = pl.when(pl.col("length_ns") < macro_ns).then(pl.lit(SIZES[0])).otherwise(pl.lit(SIZES[1]))
    return found.with_columns(
        _named(names, before[real]).alias("before"), _named(names, after[real]).alias("after"), size.alias("size")
    )


def gap_summary(found: pl.DataFrame) -> pl.DataFrame:
    """Sums of `gaps` per size: `size, count, total_ns, longest_ns`, a row for each size even where it has no gaps."""
    length = pl.col("length_ns")
    sizes = pl.DataFrame({"size": SIZES})
    sums = found.group_by("size").agg(
        pl.len().cast(pl.Int64).alias("count"), length.sum().alias("total_ns"), length.max().alias("longest_ns")
    )
    filled = pl.col("count", "total_ns", "longest_ns").fill_null(0)
    return sizes.join(sums, on="size", how="left", maintain_order="left").with_columns(filled)


def _busy(events: pl.DataFrame, window: Window) -> Islands:
    starts, ends, lasting = clipped(events, window)
    return islands(starts[lasting], ends[lasting])


def _first(places: Ints, chosen: Mask, count: int) -> Ints:
    """The first chosen row of each place."""
    rows = np.flatnonzero(chosen)[::-1]
    found = np.full(count, -1, dtype=np.int64)
    # Of equal places the last assignment stays.
    found[places[rows]] = rows
    return found


def _named(names: pl.Series, rows: Ints) -> pl.Series:
    """Name of each row, "" for row -1."""
    if names.is_empty():
        return pl.Series([""] * len(rows), dtype=pl.String)
    known = pl.Series(rows >= 0)
    found: pl.Series = names.gather(np.maximum(rows, 0)).zip_with(known, pl.Series([""], dtype=pl.String))
    return found

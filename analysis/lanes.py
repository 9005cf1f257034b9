"""How evenly the lanes of each engine are used.

Terms
    busy of a lane: the union of its rows inside the window. overlapped: the sum of its rows less that union, the time
        that counts more than once because several rows were open (MME lanes take up work ahead of time).
    idle lane: one that has rows in the trace, none of them inside the window. Lanes without any row cannot be known.
    occupancy: lanes busy on average while the engine is busy, which is the sum of its lanes' busy times / its union.
    skew: busy of the busiest lane / mean over all lanes of the engine; 1 is even.

Contract: per engine, the times of `occupancy` sum to the window, and weighted by their lanes to the sum of the lanes'
busy times, exactly.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from overlap.analysis.intervals import Ints, Islands, clipped, islands, sums
from overlap.traces.codes import coded
from overlap.traces.sweep import ENGINES, Window

KEYS = ("engine", "lane")


def lane_table(events: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Use of every lane.

    Args:
        events: an event table of one device (`overlap.traces.schema`).
        window: (start_ns, end_ns); rows are clipped to it.

    Returns:
        `engine, lane, rows, busy_ns, share, first_start_ns, last_end_ns, overlapped_ns`; `rows` counts those that last
        inside the window, `share` is of the window, first and last are null for an idle lane.
    """
    lanes, keys = coded(events, KEYS)
    starts, ends, lasting = clipped(events, window)
    starts, ends, lanes = starts[lasting], ends[lasting], lanes[lasting]
    found, count = islands(starts, ends, lanes), keys.height
    busy = sums(found.group, found.length_ns, count)
    length = window[1] - window[0]
    first, last = _spans(found, count, window)
    frame = keys.with_columns(
        rows=pl.Series(np.bincount(lanes, minlength=count), dtype=pl.Int64),
        busy_ns=pl.Series(busy, dtype=pl.Int64),
        share=pl.Series(busy / length if length else np.zeros(count), dtype=pl.Float64),
        first_start_ns=pl.Series(first, dtype=pl.Int64),
        last_end_ns=pl.Series(last, dtype=pl.Int64),
        overlapped_ns=pl.Series(sums(lanes, ends - starts, count) - busy, dtype=pl.Int64),
    )
    some = pl.when(pl.col("rows") > 0).then(pl.col("first_start_ns", "last_end_ns"))
    return frame.with_columns(some).sort(_rank(), "lane")


def occupancy(events: pl.DataFrame, window: Window) -> pl.DataFrame:
    """How long how many lanes of each engine were busy at once.

    Returns:
        `engine, lanes, time_ns, share`, a row for 0 to the most lanes that were ever busy at once.
    """
    lanes, keys = coded(events, KEYS)
    starts, ends, lasting = clipped(events, window)
    found = islands(starts[lasting], ends[lasting], lanes[lasting])
    engines = [engine for engine in ENGINES if engine in set(keys["engine"])]
    length = window[1] - window[0]
    frames = []
    for engine in engines:
        mine = np.array([one == engine for one in keys["engine"]])[found.group]
        times = _levels(found.start_ns[mine], found.end_ns[mine], window)
        frames.append(pl.DataFrame({"engine": [engine] * len(times), "lanes": range(len(times)), "time_ns": times}))
    empty = pl.DataFrame(schema={"engine": pl.String, "lanes": pl.Int64, "time_ns": pl.Int64})
    share = pl.col("time_ns") / length if length else pl.lit(0.0)
    return pl.concat([empty, *frames]).with_columns(share.alias("share"))


def balance(lanes: pl.DataFrame, histogram: pl.DataFrame) -> pl.DataFrame:
    """One row per engine.

    Args:
        lanes: a `lane_table`.
        histogram: the `occupancy` of the same events and window.

    Returns:
        `engine, lanes, idle_lanes, busy_ns, lane_mean_ns, lane_max_ns, lane_min_ns, skew, occupancy, overlapped_ns`;
        `busy_ns` is the engine's union; skew and occupancy are null for an engine that was never busy.
    """
    busy = pl.col("busy_ns")
    per_engine = lanes.group_by("engine").agg(
        pl.len().cast(pl.Int64).alias("lanes"),
        (busy == 0).sum().cast(pl.Int64).alias("idle_lanes"),
        busy.mean().alias("lane_mean_ns"),
        busy.max().alias("lane_max_ns"),
        busy.min().alias("lane_min_ns"),
        busy.sum().alias("lane_ns"),
        pl.col("overlapped_ns").sum(),
    )
    unions = histogram.filter(pl.col("lanes") > 0).group_by("engine").agg(pl.col("time_ns").sum().alias("busy_ns"))
    worked = pl.col("lane_ns") > 0
    return (
        per_engine.join(unions, on="engine", how="left")
        .with_columns(
            pl.col("busy_ns").fill_null(0),
            pl.when(worked).then(pl.col("lane_max_ns") / pl.col("lane_mean_ns")).alias("skew"),
            pl.when(worked).then(pl.col("lane_ns") / pl.col("busy_ns")).alias("occupancy"),
        )
        .sort(_rank())
        .select("engine", "lanes", "idle_lanes", "busy_ns", "lane_mean_ns", "lane_max_ns", "lane_min_ns", "skew",
                "occupancy", "overlapped_ns")
    )  # fmt: skip


def _rank() -> pl.Expr:
    """Place of the engine in the fixed order."""
    return pl.col("engine").replace_strict(ENGINES, list(range(len(ENGINES))), default=len(ENGINES))


def _spans(found: Islands, count: int, window: Window) -> tuple[Ints, Ints]:
    """First start and last end of each group."""
    first = np.full(count, window[1], dtype=np.int64)
    last = np.full(count, window[0], dtype=np.int64)
    np.minimum.at(first, found.group, found.start_ns)
    np.maximum.at(last, found.group, found.end_ns)
    return first, last


def _levels(starts: Ints, ends: Ints, window: Window) -> Ints:
    """Time with 0, 1, 2, … of these intervals open."""
    low, high = window
    # Sorted on their own, both halves are runs, which a stable sort only has to merge.
    times = np.concatenate([np.sort(starts, kind="stable"), np.sort(ends, kind="stable")])
    order = np.argsort(times, kind="stable")
    # A start sorts before an end of the same time, so a level may touch one more, for a time of zero.
    level = np.cumsum(np.where(order < len(starts), 1, -1))
    bounds = np.concatenate([[low], times[order], [high]])
    found = sums(np.concatenate([[0], level]), np.diff(bounds), int(level.max(initial=0)) + 1)
    most = int(np.flatnonzero(found).max(initial=0))
    return found[: most + 1]

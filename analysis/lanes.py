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

from dataclasses import dataclass

import numpy as np
import polars as pl

from overlap.analysis.intervals import Islands, clipped, islands, sums
from overlap.traces.codes import Ints, coded
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
    return _table(_lanes(events, window))


def occupancy(events: pl.DataFrame, window: Window) -> pl.DataFrame:
    """How long how many lanes of each engine were busy at once.

    Returns:
        `engine, lanes, time_ns, share`, a row for 0 to the most lanes that were ever busy at once.
    """
    return _histogram(_lanes(events, window))


def lanes_and_occupancy(events: pl.DataFrame, window: Window) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`lane_table` and `occupancy`, for half of the work that both have in common."""
    lanes = _lanes(events, window)
    return _table(lanes), _histogram(lanes)


@dataclass(frozen=True)
class _Lanes:
    """Lanes by number: names, islands, rows and the sum of their durations."""

    keys: pl.DataFrame
    islands: Islands
    rows: Ints
    open_ns: Ints
    window: Window

    @property
    def window_ns(self) -> int:
        return self.window[1] - self.window[0]


def _lanes(events: pl.DataFrame, window: Window) -> _Lanes:
    codes, keys = coded(events, KEYS)
    starts, ends, lasting = clipped(events, window)
    starts, ends, codes = starts[lasting], ends[lasting], codes[lasting]
    rows, open_ns = np.bincount(codes, minlength=keys.height), sums(codes, ends - starts, keys.height)
    return _Lanes(keys, islands(starts, ends, codes), rows, open_ns, window)


def _table(lanes: _Lanes) -> pl.DataFrame:
    found, count = lanes.islands, lanes.keys.height
    busy = sums(found.group, found.length_ns, count)
    first, last = _spans(found, count, lanes.window)
    frame = lanes.keys.with_columns(
        rows=pl.Series(lanes.rows, dtype=pl.Int64),
        busy_ns=pl.Series(busy, dtype=pl.Int64),
        share=pl.Series(busy / max(lanes.window_ns, 1), dtype=pl.Float64),
        first_start_ns=pl.Series(first, dtype=pl.Int64),
        last_end_ns=pl.Series(last, dtype=pl.Int64),
        overlapped_ns=pl.Series(lanes.open_ns - busy, dtype=pl.Int64),
    )
    some = pl.when(pl.col("rows") > 0).then(pl.col("first_start_ns", "last_end_ns"))
    return frame.with_columns(some).sort(_rank(), "lane")


def _histogram(lanes: _Lanes) -> pl.DataFrame:
    found, engines = lanes.islands, lanes.keys["engine"]
    frames = [pl.DataFrame(schema={"engine": pl.String, "lanes": pl.Int64, "time_ns": pl.Int64})]
    for engine in (engine for engine in ENGINES if engine in set(engines)):
        mine = (engines == engine).to_numpy()[found.group]
        times = _levels(found.start_ns[mine], found.end_ns[mine], lanes.window)
        frames.append(pl.DataFrame({"engine": [engine] * len(times), "lanes": range(len(times)), "time_ns": times}))
    return pl.concat(frames).with_columns((pl.col("time_ns") / max(lanes.window_ns, 1)).alias("share"))


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

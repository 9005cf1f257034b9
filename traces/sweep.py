"""The step function under every overlap number: how many rows of each engine run at any time, in exact int64 ns.

Terms
    window: [start_ns, end_ns), the stretch of time that is looked at; rows are clipped to it.
    step: from `time_ns` to the next row's `time_ns` the number of active rows of each engine is constant.

Contract: intervals are half open, so touching rows leave no gap and no overlap, and rows of length zero are never
active. The first step starts at the window's start and the last row, at the window's end, has nothing active.
"""

from __future__ import annotations

import polars as pl

# FUSED and OTHER: see `overlap.traces.schema`.
ENGINES = ("MME", "TPC", "FUSED", "DMA", "NIC", "OTHER")

Window = tuple[int, int]


def window_of(events: pl.DataFrame) -> Window:
    """(start_ns, end_ns) from the first start to the last end; (0, 0) for an empty table."""
    if events.is_empty():
        return 0, 0
    start, end = events.select(pl.col("start_ns").min(), pl.col("end_ns").max()).row(0)
    return int(start), int(end)


def engines_of(events: pl.DataFrame) -> list[str]:
    """Engines that have rows, in the order of `ENGINES`.

    Raises:
        ValueError: for an engine that is not one of `ENGINES`.
    """
    used = set(events["engine"].unique().to_list())
    unknown = sorted(used.difference(ENGINES))
    if unknown:
        raise ValueError(f"engine {unknown[0]!r} in an event table; an engine is one of {', '.join(ENGINES)}")
    return [engine for engine in ENGINES if engine in used]


def active_steps(events: pl.DataFrame, window: Window | None = None) -> pl.DataFrame:
    """Active rows per engine over time.

    Args:
        events: an event table (`overlap.traces.schema`).
        window: (start_ns, end_ns); from the first start to the last end where it is None.

    Returns:
        `time_ns` (int64, strictly increasing) and one int64 column per engine of `events`, named like the engine.
        A window of length zero gives a single row.
    """
    start, end = window_of(events) if window is None else window
    engines = engines_of(events)
    rows = events.select(
        "engine", pl.col("start_ns").clip(start, end).alias("up"), pl.col("end_ns").clip(start, end).alias("down")
    ).filter(pl.col("down") > pl.col("up"))
    edges = [_edges(rows, "up", 1), _edges(rows, "down", -1), _bounds(start, end)]
    change = [pl.col("delta").filter(pl.col("engine") == engine).sum().alias(engine) for engine in engines]
    return (
        pl.concat(edges)
        .group_by("time_ns")
        .agg(change)
        .sort("time_ns")
        .with_columns(pl.col(engine).cum_sum() for engine in engines)
    )


def _edges(rows: pl.DataFrame, column: str, delta: int) -> pl.DataFrame:
    return rows.select("engine", pl.col(column).alias("time_ns"), pl.lit(delta, dtype=pl.Int64).alias("delta"))


def _bounds(start: int, end: int) -> pl.DataFrame:
    """Edges that change nothing, so that the steps reach from one end of the window to the other."""
    return pl.DataFrame(
        {"engine": ["", ""], "time_ns": [start, end], "delta": [0, 0]},
        schema={"engine": pl.String, "time_ns": pl.Int64, "delta": pl.Int64},
    )

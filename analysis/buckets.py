"""Time and lengths cut into buckets, for figures: exact integrals, not samples.

Terms
    bucket: [start_ns, end_ns), one of up to `most` equal pieces of a window; lengths differ by at most 1 ns.

Contract: the busy times of the buckets of an engine sum to its busy time in the window, and likewise `both_ns` and
`idle_ns`, to the ns.
"""

from __future__ import annotations

import polars as pl

from overlap.traces.sweep import Window, active_steps, engines_of, window_of

COMPUTE = ("MME", "TPC")


def busy_over_time(events: pl.DataFrame, window: Window | None = None, most: int = 400) -> pl.DataFrame:
    """How long each engine was busy in each bucket.

    Args:
        events: an event table (`overlap.traces.schema`).
        window: (start_ns, end_ns); from the first start to the last end where it is None.
        most: number of buckets; fewer in a window of fewer ns.

    Returns:
        `start_ns, end_ns`, one column `<engine>_ns` per engine that has rows, `both_ns` (MME and TPC at once) and
        `idle_ns` (no engine). No rows for a window of length zero.

    Raises:
        ValueError: for an unknown engine, a window that ends before it starts, or fewer than one bucket.
    """
    start, end = window_of(events) if window is None else window
    if end < start or most < 1:
        raise ValueError(f"cannot cut {start}..{end} ns into {most} buckets")
    count = min(most, end - start)
    engines = engines_of(events)
    edges = [start + (end - start) * i // count for i in range(count + 1)] if count else []
    reached = _busy_until(_busy_so_far(events, (start, end), engines), edges)
    times = [column for column in reached.columns if column != "time_ns"]
    return reached.select(
        pl.col("time_ns").alias("start_ns"),
        pl.col("time_ns").shift(-1).alias("end_ns"),
        *((pl.col(name).shift(-1) - pl.col(name)).alias(f"{name}_ns") for name in times),
    ).head(count)


def _busy_so_far(events: pl.DataFrame, window: Window, engines: list[str]) -> pl.DataFrame:
    """`time_ns` of each step; per series whether it is on from there, and its time so far as `<series> so far`."""
    on = {engine: pl.col(engine) > 0 for engine in engines}
    on["both"] = pl.all_horizontal(on.get(engine, pl.lit(False)) for engine in COMPUTE)
    on["idle"] = ~pl.any_horizontal(pl.lit(False), *(on[engine] for engine in engines))
    length = (pl.col("time_ns") - pl.col("time_ns").shift(1)).fill_null(0)
    steps = active_steps(events, window).select("time_ns", *(active.alias(name) for name, active in on.items()))
    return steps.with_columns(
        (length * pl.col(name).shift(1, fill_value=False)).cum_sum().alias(f"{name} so far") for name in on
    )


def _busy_until(steps: pl.DataFrame, edges: list[int]) -> pl.DataFrame:
    """Time so far of every series at each edge."""
    names = [column.removesuffix(" so far") for column in steps.columns if column.endswith(" so far")]
    at = pl.DataFrame({"edge_ns": edges}, schema={"edge_ns": pl.Int64}).sort("edge_ns")
    joined = at.join_asof(steps, left_on="edge_ns", right_on="time_ns", coalesce=False)
    since = pl.col("edge_ns") - pl.col("time_ns")
    return joined.select(
        pl.col("edge_ns").alias("time_ns"),
        *((pl.col(f"{name} so far") + since * pl.col(name)).alias(name) for name in names),
    )


def length_bins(lengths: pl.Series, per_decade: int = 3) -> pl.DataFrame:
    """Lengths in ns counted into bins whose edges grow by a constant factor, whole ns each.

    Returns:
        `from_ns, to_ns, count, total_ns` of every bin from the shortest to the longest that holds something, empty
        ones between them too; a bin holds from_ns <= length < to_ns. Lengths below 1 ns are left out.
    """
    known = lengths.filter(lengths > 0).cast(pl.Int64)
    if known.is_empty():
        return pl.DataFrame(schema=dict.fromkeys(("from_ns", "to_ns", "count", "total_ns"), pl.Int64))
    edges = sorted({round(10 ** (i / per_decade)) for i in range(19 * per_decade - 1)})
    frame = pl.DataFrame({"length_ns": known}).sort("length_ns")
    starts = pl.DataFrame({"from_ns": edges[:-1], "to_ns": edges[1:]}, schema={"from_ns": pl.Int64, "to_ns": pl.Int64})
    found = (
        frame.join_asof(starts, left_on="length_ns", right_on="from_ns")
        .group_by("from_ns")
        .agg(pl.len().cast(pl.Int64).alias("count"), pl.col("length_ns").sum().alias("total_ns"))
    )
    low, high = found.select(pl.col("from_ns").min(), pl.col("from_ns").max().alias("high")).row(0)
    inside = starts.filter(pl.col("from_ns").is_between(low, high))
    return inside.join(found, on="from_ns", how="left").with_columns(pl.col("count", "total_ns").fill_null(0))

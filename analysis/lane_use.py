"""How many lanes of its engine an op keeps busy, on average over its duration.

Terms
    lanes: the most lanes that any single op of the engine ran on; what the engine can do for one op. (Lanes that only
        other ops use, such as streams of a GPU, say nothing about what one op could use.)
    lane time: the sum of an op's rows, in lane ns. Mean lanes = lane time / duration.
    spare: how much shorter an op would be with its lane time spread evenly over all lanes.

Contract: 0 <= spare_ns <= duration_ns. Rows without an op_id are left out: which of them belong together is unknown.
"""

from __future__ import annotations

import polars as pl


def lane_use(events: pl.DataFrame, ops: pl.DataFrame) -> pl.DataFrame:
    """Lane use per engine and kind, most spare time first.

    Args:
        events: an event table of one device (`overlap.traces.schema`).
        ops: its `op_table`.

    Returns:
        `engine, kind, ops, lanes, mean_lanes, duration_ns, exposed_ns, lane_ns, spare_ns`; only engines with an op on
        more than one lane, and without ops of duration zero.
    """
    if ops.height == events.height:
        # One row per op, so no op is on more than one lane.
        events, ops = events.clear(), ops.clear()
    rows = (
        events.filter(pl.col("op_id") >= 0)
        .group_by("op_id")
        .agg((pl.col("end_ns") - pl.col("start_ns")).sum().alias("lane_ns"), pl.col("lane").n_unique().alias("used"))
    )
    joined = ops.filter(pl.col("duration_ns") > 0).join(rows, on="op_id")
    lanes = pl.col("used").max().over("engine").cast(pl.Int64)
    # Rounded up, so that the saving is never overstated; rows of one lane that overlap could make it negative.
    even = -(-pl.col("lane_ns") // pl.col("lanes"))
    spare = (pl.col("duration_ns") - even).clip(lower_bound=0)
    return (
        joined.with_columns(lanes.alias("lanes"))
        .filter(pl.col("lanes") > 1)
        .with_columns(spare.alias("spare_ns"))
        .group_by("engine", "kind")
        .agg(
            pl.len().cast(pl.Int64).alias("ops"),
            pl.col("lanes").first(),
            (pl.col("lane_ns").sum() / pl.col("duration_ns").sum()).alias("mean_lanes"),
            pl.col("duration_ns", "exposed_ns", "lane_ns", "spare_ns").sum(),
        )
        .sort("spare_ns", "engine", "kind", descending=[True, False, False])
    )

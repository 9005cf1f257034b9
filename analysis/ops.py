"""What every op cost and how much of it was hidden behind the other compute engine.

Terms
    duration of an op: the union of its rows, so an op that runs on 24 TPC lanes at once is not counted 24 times. Rows
        with op_id -1 are ops of their own.
    hidden: the part of an op's duration during which the other compute engine was busy (MME for a TPC op, TPC for an
        MME op, either of them for DMA and NIC). exposed: the rest.

Contract: hidden_ns + exposed_ns = duration_ns for every op. Unlike the partition, durations of ops of one engine may
overlap in time, so they need not sum to its busy time.
"""

from __future__ import annotations

import polars as pl

from overlap.traces.sweep import active_steps, engines_of, window_of

COMPUTE = ("MME", "TPC")
_TRAITS = ("name", "engine", "kind", "path", "layer", "chunk", "phase")
_SUMS = ("duration_ns", "exposed_ns", "hidden_ns", "flops", "bytes")


def op_table(events: pl.DataFrame) -> pl.DataFrame:
    """One row per op, in order of start.

    Args:
        events: an event table (`overlap.traces.schema`).

    Returns:
        `op_id, name, engine, kind, path, layer, chunk, phase, start_ns, end_ns, duration_ns, exposed_ns, hidden_ns, flops,
        bytes`; flops and bytes are those of the op (-1 where unknown), not summed over its lanes.

    Raises:
        ValueError: for an unknown engine.
    """
    pieces = _merged(events)
    hidden = pl.concat([_nothing(), *(_hidden(pieces, events, engine) for engine in engines_of(events))])
    times = hidden.group_by("key").agg(pl.col("duration_ns", "hidden_ns").sum())
    span = (pl.col("start_ns").min(), pl.col("end_ns").max())
    return (
        _keyed(events)
        .group_by("key")
        .agg(pl.col("op_id", *_TRAITS).first(), *span, pl.col("flops", "bytes").max())
        .join(times, on="key", how="left")
        .with_columns((pl.col("duration_ns") - pl.col("hidden_ns")).alias("exposed_ns"))
        .sort("start_ns", "key")
        .select("op_id", *_TRAITS, "start_ns", "end_ns", *_SUMS)
    )


def by_kind(ops: pl.DataFrame) -> pl.DataFrame:
    """Sums of an `op_table` per (engine, kind), largest duration first.

    Returns:
        `engine, kind, ops, duration_ns, exposed_ns, hidden_ns, flops, bytes`; unknown flops and bytes count as 0.
    """
    return _sums(ops, ["engine", "kind"])


def by_phase(ops: pl.DataFrame) -> pl.DataFrame:
    """Sums of an `op_table` per (phase, engine), largest duration first; columns as in `by_kind`."""
    return _sums(ops, ["phase", "engine"])


def _sums(ops: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    return (
        ops.group_by(keys)
        .agg(pl.len().cast(pl.Int64).alias("ops"), pl.col(*_SUMS).clip(lower_bound=0).sum())
        .sort(["duration_ns", *keys], descending=[True, *(False for _ in keys)])
    )


def _keyed(events: pl.DataFrame) -> pl.DataFrame:
    """Events with a `key` per op: its op_id, or a negative number of its own where that is unknown."""
    own = -1 - pl.int_range(pl.len(), dtype=pl.Int64)
    return events.with_columns(pl.when(pl.col("op_id") >= 0).then("op_id").otherwise(own).alias("key"))


def _merged(events: pl.DataFrame) -> pl.DataFrame:
    """`engine, key, start_ns, end_ns`: the rows of each op as disjoint intervals."""
    rows = _keyed(events).select("engine", "key", "start_ns", "end_ns").sort("key", "start_ns")
    fresh = pl.col("key").is_first_distinct()
    if rows["key"].is_unique().all():
        return rows
    # A running maximum within each op would need a slow window over groups; a shift that puts every op after all the
    # ones before it makes one running maximum over the whole column do.
    start, end = window_of(events)
    offset = fresh.cum_sum().cast(pl.Int64) * (end - start + 1)
    reach = (pl.col("end_ns") + offset).cum_max().shift(1)
    island = (fresh | (pl.col("start_ns") + offset > reach)).cum_sum()
    return (
        rows.with_columns(island.alias("island"))
        .group_by("island")
        .agg(pl.col("engine", "key", "start_ns").first(), pl.col("end_ns").max())
        .drop("island")
    )


def _hidden(pieces: pl.DataFrame, events: pl.DataFrame, engine: str) -> pl.DataFrame:
    """`key, duration_ns, hidden_ns` of the pieces of one engine."""
    mine = pieces.filter(pl.col("engine") == engine)
    others = [other for other in COMPUTE if other != engine]
    busy = _busy_before(events.filter(pl.col("engine").is_in(others)))
    for column in ("start_ns", "end_ns"):
        mine = mine.sort(column).join_asof(busy, left_on=column, right_on="time_ns", suffix="_" + column)
        mine = mine.with_columns(_busy_at(column).alias("busy_" + column)).drop(busy.columns, strict=False)
    spent = pl.col("end_ns") - pl.col("start_ns")
    return mine.select(
        "key", spent.alias("duration_ns"), (pl.col("busy_end_ns") - pl.col("busy_start_ns")).alias("hidden_ns")
    )


def _busy_before(events: pl.DataFrame) -> pl.DataFrame:
    """`time_ns, active, before_ns`: whether any engine is busy from then on, and how long one was before."""
    steps = active_steps(events)
    engines = engines_of(events)
    active = pl.any_horizontal(pl.lit(False), *(pl.col(engine) > 0 for engine in engines))
    length = (pl.col("time_ns") - pl.col("time_ns").shift(1)).fill_null(0)
    return steps.select("time_ns", active.alias("active")).with_columns(
        (length * pl.col("active").shift(1, fill_value=False)).cum_sum().alias("before_ns")
    )


def _busy_at(column: str) -> pl.Expr:
    """Busy time up to `column`, from the last step before it; 0 before the first step."""
    since = (pl.col(column) - pl.col("time_ns")) * pl.col("active")
    return (pl.col("before_ns") + since).fill_null(0)


def _nothing() -> pl.DataFrame:
    return pl.DataFrame(schema={"key": pl.Int64, "duration_ns": pl.Int64, "hidden_ns": pl.Int64})

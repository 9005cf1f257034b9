"""What changed between two traces: op by op under normal names, and as a whole.

Terms
    a, b: the trace before and the trace after; a delta is b - a, so a negative one is time saved.
    per step: times divided by the number of iterations that a trace holds, so that traces of different length compare.
    status: `appeared` and `vanished` for names of one trace only; `same` while the duration moved by no more than a
        band, `faster` or `slower` beyond it.

Contract: the deltas of `diff` sum to the total of b minus the total of a, to the ns. Division by steps keeps that: a
trace's total per step is rounded to the nearest ns once, and the rounding of its rows is carried from one to the next
(each is off by less than 1 ns). With one step nothing is rounded. Durations are those of `op_table`: they count what
runs side by side on one engine twice, and need not sum to its busy time.
"""

from __future__ import annotations

import polars as pl

from overlap.analysis.names import normal_name
from overlap.analysis.partition import COMPUTE, Partition
from overlap.traces.sweep import ENGINES

SAME = 0.01
_KEYS = ["engine", "name"]
_TIMES = ("duration_ns", "exposed_ns", "median_ns")


def by_name(ops: pl.DataFrame, steps: int = 1) -> pl.DataFrame:
    """Sums of an `op_table` per engine and normal name, largest exposed time first.

    Args:
        ops: columns `name, engine, duration_ns, exposed_ns`.
        steps: iterations in the trace; times are per step (see the contract above).

    Returns:
        `engine, name, count` (launches in the whole trace), `duration_ns, exposed_ns, hidden_ns`, `median_ns` (of one
        launch, to the nearest ns).

    Raises:
        ValueError: for less than one step.
    """
    if steps < 1:
        raise ValueError(f"{steps} steps in a trace; it takes at least one")
    return (
        ops.select("engine", normal_name(pl.col("name")).alias("name"), "duration_ns", "exposed_ns")
        .group_by(_KEYS)
        .agg(
            pl.len().cast(pl.Int64).alias("count"),
            pl.col("duration_ns").median().round().cast(pl.Int64).alias("median_ns"),
            pl.col("duration_ns", "exposed_ns").sum(),
        )
        .sort(_KEYS)
        .with_columns(_per_step("duration_ns", steps), _per_step("exposed_ns", steps))
        .with_columns((pl.col("duration_ns") - pl.col("exposed_ns")).alias("hidden_ns"))
        .sort("exposed_ns", "duration_ns", *_KEYS, descending=[True, True, False, False])
        .select(*_KEYS, "count", "duration_ns", "exposed_ns", "hidden_ns", "median_ns")
    )


def _per_step(column: str, steps: int) -> pl.Expr:
    """Shares of a rounded total whose own rounding is carried from row to row, in whole numbers throughout."""
    reached = (2 * pl.col(column).cum_sum() + steps) // (2 * steps)
    return (reached - reached.shift(1, fill_value=0)).alias(column)


def diff(
    ops_a: pl.DataFrame, ops_b: pl.DataFrame, *, steps_a: int = 1, steps_b: int = 1, same: float = SAME
) -> pl.DataFrame:
    """Compare two op tables by engine and normal name.

    Args:
        ops_a: `op_table` of the trace before.
        ops_b: of the one after.
        steps_a: iterations in the trace before.
        steps_b: in the one after.
        same: half width of the band in which a duration counts as unchanged, as a fraction of the one before.

    Returns:
        `name, engine, status, count_a, count_b, duration_a_ns, duration_b_ns, delta_ns, median_a_ns, median_b_ns`
        (per launch; null where there is none), `exposed_a_ns, exposed_b_ns, exposed_delta_ns`; what moved the exposed
        time most comes first, then what moved the duration most. Counts are of whole traces, times per step.

    Raises:
        ValueError: for less than one step.
    """
    sides = [
        by_name(ops, steps)
        .drop("hidden_ns")
        .rename({"count": f"count_{side}", **{t: t.replace("_ns", f"_{side}_ns") for t in _TIMES}})
        for side, ops, steps in (("a", ops_a, steps_a), ("b", ops_b, steps_b))
    ]
    counted = [f"{what}_{side}" for what in ("count", "duration", "exposed") for side in "ab"]
    sums = [name if name.startswith("count") else f"{name}_ns" for name in counted]
    joined = sides[0].join(sides[1], on=_KEYS, how="full", coalesce=True).with_columns(pl.col(sums).fill_null(0))
    deltas = joined.with_columns(
        (pl.col("duration_b_ns") - pl.col("duration_a_ns")).alias("delta_ns"),
        (pl.col("exposed_b_ns") - pl.col("exposed_a_ns")).alias("exposed_delta_ns"),
    ).with_columns(_status(same).alias("status"))
    order = [pl.col("exposed_delta_ns").abs(), pl.col("delta_ns").abs(), *map(pl.col, _KEYS)]
    return deltas.sort(order, descending=[True, True, False, False]).select(
        *("name", "engine", "status", "count_a", "count_b", "duration_a_ns", "duration_b_ns", "delta_ns"),
        *("median_a_ns", "median_b_ns", "exposed_a_ns", "exposed_b_ns", "exposed_delta_ns"),
    )


def _status(same: float) -> pl.Expr:
    delta = pl.col("delta_ns")
    return (
        pl.when(pl.col("count_a") == 0)
        .then(pl.lit("appeared"))
        .when(pl.col("count_b") == 0)
        .then(pl.lit("vanished"))
        .when(delta.abs() <= same * pl.col("duration_a_ns"))
        .then(pl.lit("same"))
        .when(delta < 0)
        .then(pl.lit("faster"))
        .otherwise(pl.lit("slower"))
    )


def summary(a: Partition, b: Partition, *, steps_a: int = 1, steps_b: int = 1) -> pl.DataFrame:
    """The windows of two traces side by side.

    Returns:
        `name` (window, busy of each engine, both, exposed MME, exposed TPC, idle), `a_ns, b_ns, delta_ns` (per step,
        each rounded to the nearest ns), `a_share, b_share` (of the trace's own window).
    """
    engines = [engine for engine in ENGINES if engine in COMPUTE or a.busy_ns(engine) or b.busy_ns(engine)]
    found_a, found_b = _figures(a, engines), _figures(b, engines)
    rows = []
    for name, time_a in found_a.items():
        time_b = found_b[name]
        a_ns, b_ns = (2 * time_a + steps_a) // (2 * steps_a), (2 * time_b + steps_b) // (2 * steps_b)
        rows.append((name, a_ns, b_ns, b_ns - a_ns, a.fraction(time_a), b.fraction(time_b)))
    times, shares = dict.fromkeys(("a_ns", "b_ns", "delta_ns"), pl.Int64), ("a_share", "b_share")
    schema = {"name": pl.String, **times, **dict.fromkeys(shares, pl.Float64)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _figures(one: Partition, engines: list[str]) -> dict[str, int]:
    """Named times of a partition."""
    return {
        "window": one.window_ns,
        **{f"busy {engine}": one.busy_ns(engine) for engine in engines},
        "both": one.both_ns,
        "exposed MME": one.exposed_mme_ns,
        "exposed TPC": one.exposed_tpc_ns,
        "idle": one.idle_ns,
    }

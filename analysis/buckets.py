"""Time and lengths cut into buckets, for figures: exact integrals, not samples.

Terms
    bucket: [start_ns, end_ns), one of up to `most` equal pieces of a window; lengths differ by at most 1 ns.

Contract: the busy times of the buckets of an engine sum to its busy time in the window, and likewise `both_ns` and
`idle_ns`, to the ns.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from overlap.analysis.intervals import busy_before
from overlap.analysis.unions import Unions, engine_unions, union_of
from overlap.traces.sweep import Window, window_of

_ANY: dict[str, tuple[str, ...]] = {"compute": ("MME", "TPC"), "all": ()}


def busy_over_time(
    events: pl.DataFrame, window: Window | None = None, most: int = 400, unions: Unions | None = None
) -> pl.DataFrame:
    """How long each engine was busy in each bucket.

    Args:
        events: an event table (`overlap.traces.schema`).
        window: (start_ns, end_ns); from the first start to the last end where it is None.
        most: number of buckets; fewer in a window of fewer ns.
        unions: `engine_unions` of both, where they are known already.

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
    unions = engine_unions(events, (start, end)) if unions is None else unions
    edges = np.array([start + (end - start) * i // count for i in range(count + 1)] if count else [start], np.int64)
    spent = {engine: np.diff(busy_before(one, edges)) for engine, one in unions.items()}
    any_of = {name: np.diff(busy_before(union_of(unions, *names), edges)) for name, names in _ANY.items()}
    none = np.zeros(count, np.int64)
    both = spent.get("MME", none) + spent.get("TPC", none) - any_of["compute"]
    series = {**spent, "both": both, "idle": np.diff(edges) - any_of["all"]}
    times = {f"{name}_ns": values for name, values in series.items()}
    return pl.DataFrame({"start_ns": edges[:-1], "end_ns": edges[1:], **times})


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

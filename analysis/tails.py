"""How busy the TPC is by two definitions of when its work ends.

Terms
    until halt: a row ends at `end_ns`, when its program has ended. This is what Gaudi's own tools count.
    until last write: it ends at `tail_ns`, when its last write has landed; short kernels last many times longer then. A
        row without a known tail ends at its halt.

Contract: both rows are of one window, so they can be compared; a definition that no row supports is absent rather than
equal to the other. busy_ns = both_ns + the TPC's time beside no MME.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from overlap.analysis.intervals import Islands, column, joined, shared_ns, union
from overlap.traces.sweep import Window

HALT, LAST_WRITE = "until halt", "until last write"


def tpc_definitions(events: pl.DataFrame, window: Window) -> pl.DataFrame:
    """One row per definition.

    Args:
        events: an event table of one device (`overlap.traces.schema`).
        window: (start_ns, end_ns); rows are clipped to it, tails too.

    Returns:
        `definition, rows, rows_with_tail, busy_ns, both_ns, exposed_tpc_ns, exposed_mme_ns, idle_ns`; `rows` are all
        TPC rows. No row without TPC rows, and only `until halt` where no tail is known.
    """
    names = ("start_ns", "end_ns", "tail_ns")
    tpc = events.filter(pl.col("engine") == "TPC").select(names)
    starts, ends, tails = (column(tpc, name) for name in names)
    mme = _inside(events.filter(pl.col("engine") == "MME"), window)
    others = joined(mme, _inside(events.filter(~pl.col("engine").is_in(["MME", "TPC"])), window))
    known = int((tails >= 0).sum())
    rows = []
    for name, until in ((HALT, ends), (LAST_WRITE, np.maximum(ends, tails))):
        if tpc.height and (name == HALT or known):
            busy = union(np.clip(starts, *window), np.clip(until, *window))
            rows.append((name, tpc.height, known, *_times(busy, mme, others, window)))
    counts = ["rows", "rows_with_tail", "busy_ns", "both_ns", "exposed_tpc_ns", "exposed_mme_ns", "idle_ns"]
    return pl.DataFrame(rows, schema={"definition": pl.String, **dict.fromkeys(counts, pl.Int64)}, orient="row")


def _inside(events: pl.DataFrame, window: Window) -> Islands:
    return union(np.clip(column(events, "start_ns"), *window), np.clip(column(events, "end_ns"), *window))


def _times(tpc: Islands, mme: Islands, others: Islands, window: Window) -> tuple[int, int, int, int, int]:
    """busy, both, exposed TPC, exposed MME, idle."""
    busy, both = tpc.total_ns, shared_ns(tpc, mme)
    idle = window[1] - window[0] - joined(tpc, others).total_ns
    return busy, both, busy - both, mme.total_ns - both, idle

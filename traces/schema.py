"""The event table: one row per op on a lane, one polars schema for every source.

Terms
    engine: MME, TPC, DMA, NIC. lane: one hardware instance of an engine, such as `TPC 5`.
    Times are int64 ns since an origin of the trace's own; end is exclusive, so a row lasts `end_ns - start_ns`.
Unknown values: -1 for integers, an empty string for text.
"""

from __future__ import annotations

import polars as pl

SCHEMA_VERSION = 1

EVENTS = pl.Schema(
    {
        "engine": pl.String,
        "lane": pl.String,
        "name": pl.String,
        "kind": pl.String,
        "op_id": pl.Int64,
        "layer": pl.Int32,
        "chunk": pl.Int32,
        "phase": pl.String,
        "start_ns": pl.Int64,
        "end_ns": pl.Int64,
        "correlation": pl.Int64,
        "flops": pl.Int64,
        "bytes": pl.Int64,
    }
)


def empty() -> pl.DataFrame:
    """An event table without rows."""
    return pl.DataFrame(schema=EVENTS)

"""The tables that every source is read into, one polars schema each.

Terms
    engine: MME, TPC, DMA, NIC; FUSED for kernels that use the matrix and the vector units in one (a fused attention
        kernel: its time cannot be told apart), OTHER for what no rule knows.
    lane: one hardware instance of an engine, such as `[HD0] TPC 5` or `stream 7`.
    op: one launch of a kernel; a TPC op on 24 lanes has 24 rows that share their `op_id`.
    Times are int64 ns since an origin of the trace's own; end is exclusive, so a row lasts `end_ns - start_ns`.
Unknown values: -1 for integers, an empty string for text. `SCHEMA_VERSION` grows with every change here.
"""

from __future__ import annotations

import polars as pl

SCHEMA_VERSION = 2

# What ran on engines. `name` is the op or graph node as the source calls it (a kernel's name where nothing better is
# known), `kind` what it shares with others of its sort (guid, kernel name), `path` where in the model's code it comes
# from, `tail_ns` when its last write ended (>= end_ns), `device` the index of the device within the trace.
EVENTS = pl.Schema(
    {
        "device": pl.Int32,
        "engine": pl.String,
        "lane": pl.String,
        "name": pl.String,
        "kind": pl.String,
        "path": pl.String,
        "op_id": pl.Int64,
        "layer": pl.Int32,
        "chunk": pl.Int32,
        "phase": pl.String,
        "start_ns": pl.Int64,
        "end_ns": pl.Int64,
        "tail_ns": pl.Int64,
        "correlation": pl.Int64,
        "flops": pl.Int64,
        "bytes": pl.Int64,
    }
)

# What the host did. `kind` is the source's category in lower case (`cpu_op`, `user_annotation`), `external` Kineto's
# `External id`, which links an operator to the launches and kernels that it caused.
HOST = pl.Schema(
    {
        "name": pl.String,
        "kind": pl.String,
        "thread": pl.String,
        "start_ns": pl.Int64,
        "end_ns": pl.Int64,
        "correlation": pl.Int64,
        "external": pl.Int64,
    }
)

# How the profiler of PyTorch marks calls of modules among the rows of the host.
MODULE = "nn.Module: "

# Sampled counters: `value` belongs to the time since the lane's sample before.
COUNTERS = pl.Schema({"device": pl.Int32, "lane": pl.String, "name": pl.String, "time_ns": pl.Int64, "value": pl.Int64})


def empty(schema: pl.Schema = EVENTS) -> pl.DataFrame:
    """A table without rows."""
    return pl.DataFrame(schema=schema)


def filled(frame: pl.DataFrame, schema: pl.Schema = EVENTS) -> pl.DataFrame:
    """`frame` with all columns of `schema`, in its order and types; what is missing or null becomes unknown.

    `device` is 0 where it is missing, for a trace of one device.
    """
    columns = []
    for name, dtype in schema.items():
        unknown = pl.lit("" if dtype == pl.String else 0 if name == "device" else -1, dtype=dtype)
        column = pl.col(name).cast(dtype).fill_null(unknown) if name in frame.columns else unknown
        columns.append(column.alias(name))
    return frame.select(columns) if frame.width else empty(schema)

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

import numpy as np
import polars as pl

from overlap.analysis.intervals import Islands, busy_before, column, islands, sums
from overlap.analysis.unions import Unions, engine_unions, union_of
from overlap.traces.codes import Ints
from overlap.traces.sweep import window_of

COMPUTE = ("MME", "TPC")
_TRAITS = ("name", "engine", "kind", "path", "layer", "chunk", "phase")
_SUMS = ("duration_ns", "exposed_ns", "hidden_ns", "flops", "bytes")


def op_table(events: pl.DataFrame, unions: Unions | None = None) -> pl.DataFrame:
    """One row per op, in order of start.

    Args:
        events: an event table (`overlap.traces.schema`).
        unions: `engine_unions` of it, where they are known already.

    Returns:
        `op_id, name, engine, kind, path, layer, chunk, phase, start_ns, end_ns, duration_ns, exposed_ns, hidden_ns,
        flops, bytes`; flops and bytes are those of the op (-1 where unknown), not summed over its lanes.

    Raises:
        ValueError: for an unknown engine.
    """
    unions = engine_unions(events, window_of(events)) if unions is None else unions
    ops, pieces = _merged(events)
    hidden = _hidden(ops["engine"], pieces, unions)
    count = ops.height
    times = {"duration_ns": sums(pieces.group, pieces.length_ns, count), "hidden_ns": sums(pieces.group, hidden, count)}
    return (
        ops.with_columns(pl.Series(name, values) for name, values in times.items())
        .with_columns((pl.col("duration_ns") - pl.col("hidden_ns")).alias("exposed_ns"))
        .sort("start_ns", "key")
        .select("op_id", *_TRAITS, "start_ns", "end_ns", *_SUMS)
    )


def _merged(events: pl.DataFrame) -> tuple[pl.DataFrame, Islands]:
    """The ops (`key`, traits, `start_ns`, `end_ns`, `flops`, `bytes`), and disjoint pieces of each by its row."""
    # Rows without an op_id are ops of their own.
    own = -1 - pl.int_range(pl.len(), dtype=pl.Int64)
    keyed = events.with_columns(pl.when(pl.col("op_id") >= 0).then("op_id").otherwise(own).alias("key"))
    rows = ("key", "op_id", *_TRAITS, "start_ns", "end_ns", "flops", "bytes")
    if keyed["key"].is_unique().all():
        starts, ends = column(events, "start_ns"), column(events, "end_ns")
        return keyed.select(rows), Islands(np.arange(events.height), starts, ends)
    first = [pl.col("op_id", *_TRAITS).first(), pl.col("start_ns").min()]
    ops = keyed.group_by("key", maintain_order=True).agg(*first, pl.col("end_ns", "flops", "bytes").max()).select(rows)
    places = ops.select("key").with_row_index("place")
    group = (
        keyed.select("key")
        .join(places, on="key", how="left", maintain_order="left")["place"]
        .to_numpy()
        .astype(np.int64)
    )
    starts, ends = column(keyed, "start_ns"), column(keyed, "end_ns")
    lasting = ends > starts
    return ops, islands(starts[lasting], ends[lasting], group[lasting])


def _hidden(engines: pl.Series, pieces: Islands, unions: Unions) -> Ints:
    """For each piece, how long another compute engine was busy during it."""
    hidden = np.zeros(len(pieces.group), np.int64)
    for engine in unions:
        mine = (engines == engine).to_numpy()[pieces.group]
        others = union_of(unions, *(other for other in COMPUTE if other != engine))
        spent = busy_before(others, pieces.end_ns[mine]) - busy_before(others, pieces.start_ns[mine])
        hidden[mine] = spent
    return hidden

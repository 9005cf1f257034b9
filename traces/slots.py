"""Threads for rows: viewers want the rows of one thread to nest, but rows of a lane may overlap.

Terms
    slot: rows of one lane that nest (one inside the other or one after the other) share a slot. Every slot becomes a
        thread of its own.
"""

from __future__ import annotations

import numpy as np
import polars as pl

LaneKey = tuple[int, str, int]  # device, engine, thread within the two (from 1)
_LANE = ["device", "engine", "lane"]


def place(events: pl.DataFrame) -> tuple[pl.DataFrame, dict[LaneKey, str]]:
    """Give every row a thread.

    Args:
        events: an event table (`overlap.traces.schema`).

    Returns:
        The rows in order of start, longest first where several start at once, with a column `tid`; and the name of
        every (device, engine, tid): the lane, with ` #2` and so on behind its further slots.
    """
    order = events.sort("start_ns", "end_ns", descending=[False, True], maintain_order=True)
    if order.is_empty():
        return order.with_columns(tid=pl.lit(None, pl.Int64)), {}
    placed = order.with_columns(slot=_slots(order))
    used = sorted(placed.select(*_LANE, "slot").unique().rows(), key=lambda row: (row[3] > 0, *_natural(row), row[3]))
    counts: dict[tuple[int, str], int] = {}
    names: dict[LaneKey, str] = {}
    rows = []
    for device, engine, lane, slot in used:
        tid = counts[device, engine] = counts.get((device, engine), 0) + 1
        names[device, engine, tid] = f"{lane} #{slot + 1}" if slot else lane
        rows.append((device, engine, lane, slot, tid))
    tids = pl.DataFrame(rows, schema=[*_LANE, "slot", "tid"], orient="row")
    tids = tids.cast({name: placed.schema[name] for name in (*_LANE, "slot")})
    return placed.join(tids, on=[*_LANE, "slot"], how="left", maintain_order="left").drop("slot"), names


def _slots(order: pl.DataFrame) -> pl.Series:
    """Slot of each row; only lanes in which something overlaps are gone through row by row."""
    rows = order.select(*_LANE, "start_ns", "end_ns").with_row_index("row")
    busy = pl.col("start_ns") < pl.col("end_ns").shift(1).cum_max().over(_LANE)
    crowded = rows.filter(busy.fill_null(False).any().over(_LANE))
    slots = np.zeros(order.height, np.int64)
    for lane in crowded.partition_by(_LANE):
        open_ends: list[list[int]] = []
        found = [_slot(open_ends, start, end) for start, end in lane.select("start_ns", "end_ns").iter_rows()]
        slots[lane["row"].to_numpy()] = found
    return pl.Series("slot", slots)


def _slot(slots: list[list[int]], start: int, end: int) -> int:
    """First slot in which [start, end) nests; a slot is the stack of ends of the rows that are open in it."""
    for number, open_ends in enumerate(slots):
        while open_ends and open_ends[-1] <= start:
            open_ends.pop()
        if not open_ends or open_ends[-1] >= end:
            open_ends.append(end)
            return number
    slots.append([end])
    return len(slots) - 1


def _natural(row: tuple[int, str, str, int]) -> tuple[int, str, list[tuple[int, str]]]:
    """Sort key under which `TPC 10` comes after `TPC 9`."""
    device, engine, lane, _ = row
    words = lane.replace("[", " ").replace("]", " ").split()
    return device, engine, [(int(word), "") if word.isdecimal() else (-1, word) for word in words]

"""Rows of the Chrome trace format, shared by the writers for Perfetto and for the TensorBoard plug-in.

Terms
    slot: rows of one lane that nest (one inside the other or one after the other) share a slot. Viewers want rows of
        one thread to nest, so every slot becomes a thread of its own.

Times are written as µs with three decimals, made from integers, so no ns is lost at any magnitude.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import polars as pl

from overlap.traces.sweep import active_steps

Row = dict[str, Any]


class Placed(NamedTuple):
    """An event (columns of the event table by name), and the thread that it was given within its engine (from 1)."""

    event: Mapping[str, Any]
    tid: int


def micros(time_ns: int) -> msgspec.Raw:
    """Ns as a JSON number of µs with three decimals: 1234567 → 1234.567."""
    whole, rest = divmod(abs(time_ns), 1000)
    return msgspec.Raw(f"{'-' if time_ns < 0 else ''}{whole}.{rest:03d}".encode())


def place(events: pl.DataFrame) -> tuple[list[Placed], dict[tuple[str, int], str]]:
    """Give every row a thread.

    Returns:
        The rows in order of start, longest first where several start at once, and the name of every (engine, tid):
        the lane, with ` #2` and so on behind its further slots.
    """
    ordered = events.sort("start_ns", "end_ns", descending=[False, True], maintain_order=True)
    slots: dict[tuple[str, str], list[list[int]]] = {}
    tids: dict[tuple[str, str, int], int] = {}
    lanes = sorted(events.select("engine", "lane").unique().rows(), key=_natural)
    names: dict[tuple[str, int], str] = {}
    counts: dict[str, int] = {}

    def tid_of(engine: str, lane: str, slot: int) -> int:
        key = (engine, lane, slot)
        if key not in tids:
            counts[engine] = tids[key] = counts.get(engine, 0) + 1
            names[engine, tids[key]] = f"{lane} #{slot + 1}" if slot else lane
        return tids[key]

    for engine, lane in lanes:  # first slots first, so that lanes keep their natural order
        tid_of(engine, lane, 0)
    placed = []
    for event in ordered.iter_rows(named=True):
        slot = _slot(slots.setdefault((event["engine"], event["lane"]), []), event["start_ns"], event["end_ns"])
        placed.append(Placed(event, tid_of(event["engine"], event["lane"], slot)))
    return placed, names


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


def _natural(lane: tuple[str, str]) -> tuple[str, list[tuple[int, str]]]:
    """Sort key under which `TPC 10` comes after `TPC 9`."""
    words = lane[1].replace("[", " ").replace("]", " ").split()
    return lane[0], [(int(word), "") if word.isdigit() else (-1, word) for word in words]


def complete(name: str, cat: str, pid: int, tid: int, start_ns: int, duration_ns: int, args: Row) -> Row:
    """An `X` row."""
    times = {"ts": micros(start_ns), "dur": micros(duration_ns)}
    return {"ph": "X", "name": name, "cat": cat, "pid": pid, "tid": tid, **times, "args": args}


def process_rows(names: Mapping[int, str]) -> Iterator[Row]:
    """`M` rows that name processes and keep them in order of pid."""
    for pid, name in sorted(names.items()):
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}}
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}


def thread_rows(names: Mapping[tuple[int, int], str]) -> Iterator[Row]:
    """`M` rows that name the threads (pid, tid) and keep them in order of tid."""
    for (pid, tid), name in sorted(names.items()):
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid}}


def counter_rows(events: pl.DataFrame, pids: Mapping[str, int], origin_ns: int) -> Iterator[Row]:
    """`C` rows `<engine> busy` (lanes that are busy) and `MME&TPC both` (0 or 1) as step functions: changes only."""
    steps = active_steps(events)
    for engine in pids:
        yield from _counter(steps.select("time_ns", engine), f"{engine} busy", "lanes", pids[engine], origin_ns)
    if {"MME", "TPC"} <= set(pids):
        both = ((pl.col("MME") > 0) & (pl.col("TPC") > 0)).cast(pl.Int64)
        yield from _counter(steps.select("time_ns", both), "MME&TPC both", "both", pids["MME"], origin_ns)


def _counter(steps: pl.DataFrame, name: str, key: str, pid: int, origin_ns: int) -> Iterator[Row]:
    column = steps.columns[1]
    changes = steps.filter((pl.col(column) != pl.col(column).shift(1)).fill_null(True))
    for time_ns, value in changes.iter_rows():
        yield {"ph": "C", "name": name, "pid": pid, "ts": micros(time_ns - origin_ns), "args": {key: value}}


def flow_rows(
    placed: Sequence[Placed], pids: Mapping[str, int], flows: Iterable[tuple[int, int]], origin_ns: int
) -> Iterator[Row]:
    """Arrows `s` → `f` between ops, from the last ns of the first to the start of the second.

    Pairs of op_id that have no row, no length or the wrong order in time are left out: a viewer would bind them to
    some other slice.
    """
    rows = {one.event["op_id"]: one for one in placed if one.event["end_ns"] > one.event["start_ns"]}
    for number, (source, target) in enumerate(flows, 1):
        if source not in rows or target not in rows:
            continue
        tail, head = rows[source], rows[target]
        if head.event["start_ns"] < tail.event["end_ns"]:
            continue
        common = {"name": "chunk", "cat": "flow", "id": number}
        for ph, one, time_ns in (("s", tail, tail.event["end_ns"] - 1), ("f", head, head.event["start_ns"])):
            bind = {"bp": "e"} if ph == "f" else {}
            pid = pids[one.event["engine"]]
            yield {"ph": ph, "pid": pid, "tid": one.tid, "ts": micros(time_ns - origin_ns), **bind, **common}

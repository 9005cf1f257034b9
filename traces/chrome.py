"""Event table → Chrome trace file, for Perfetto (ui.perfetto.dev) and chrome://tracing.

One process per engine, one thread per lane (more where rows of a lane overlap), counters of busy lanes, and arrows
where a chunk hands over to another. All columns of the event table are in the file (`args` of each row, times relative
to `otherData.origin_ns`), so `read_chrome` gives the table back exactly.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from overlap.program import Program
from overlap.traces.files import write_trace
from overlap.traces.rows import Placed, Row, complete, counter_rows, flow_rows, place, process_rows, thread_rows
from overlap.traces.schema import EVENTS, SCHEMA_VERSION
from overlap.traces.sweep import engines_of, window_of

ARGS = tuple(name for name in EVENTS if name not in ("engine", "name", "start_ns", "end_ns"))


@dataclass(frozen=True)
class TraceInfo:
    """Where a trace comes from: name of the device, `measured` or `simulated`, a title, and anything else worth a line.

    `memory_bytes` is the device's memory (0: unknown).
    """

    device: str
    evidence: str
    title: str = ""
    memory_bytes: int = 0
    notes: Mapping[str, str] = field(default_factory=dict)


def write_chrome(events: pl.DataFrame, path: Path, info: TraceInfo, flows: Iterable[tuple[int, int]] = ()) -> Path:
    """Write `events` to `path` (`*.pt.trace.json.gz`), atomically.

    Args:
        events: an event table (`overlap.traces.schema`).
        path: the file; its folder is made if it is missing.
        info: what the numbers are evidence of.
        flows: pairs of op_id to draw arrows between, such as `chunk_flows(program)`.

    Raises:
        RunDirError: where the file cannot be written.
        ValueError: for an unknown engine.
    """
    origin, _ = window_of(events)
    pids = {engine: pid for pid, engine in enumerate(engines_of(events), 1)}
    placed, lanes = place(events)
    rows = [
        *process_rows({pid: engine for engine, pid in pids.items()}),
        *thread_rows({(pids[engine], tid): name for (engine, tid), name in lanes.items()}),
        *(_slice(one, pids[one.event["engine"]], origin, info.evidence) for one in placed),
        *flow_rows(placed, pids, flows, origin),
        *counter_rows(events, pids, origin),
    ]
    return write_trace(path, {**header(info, origin), "traceEvents": rows})


def chunk_flows(program: Program) -> list[tuple[int, int]]:
    """Edges of `program` that lead from one chunk to another, as pairs of op_id (positions in program order)."""
    ops = program.ops
    return [
        (one, index)
        for index, before in enumerate(program.predecessors)
        for one in before
        if ops[one].chunk != ops[index].chunk and ops[one].chunk >= 0 and ops[index].chunk >= 0
    ]


def header(info: TraceInfo, origin_ns: int) -> dict[str, Any]:
    """Top-level keys beside `traceEvents`; `origin_ns` is the time that the file calls 0."""
    about = {"schema": f"overlap.trace/{SCHEMA_VERSION}", "device": info.device, "evidence": info.evidence}
    other = {**info.notes, **about, "title": info.title, "origin_ns": origin_ns}
    return {"schemaVersion": 1, "displayTimeUnit": "ns", "otherData": other}


def _slice(one: Placed, pid: int, origin: int, evidence: str) -> Row:
    event = one.event
    args = {"engine": event["engine"], **{name: event[name] for name in ARGS}, "evidence": evidence}
    start, duration = event["start_ns"] - origin, event["end_ns"] - event["start_ns"]
    return complete(event["name"], event["engine"].lower(), pid, one.tid, start, duration, args)


def read_chrome(path: Path) -> pl.DataFrame:
    """Event table of a file that `write_chrome` wrote, exact to the ns, in order of start."""
    raw = path.read_bytes()
    text = gzip.decompress(raw) if path.name.endswith(".gz") else raw
    document = msgspec.json.Decoder(float_hook=_nanos).decode(text)
    origin = document["otherData"]["origin_ns"]
    rows = []
    for row in document["traceEvents"]:
        if row["ph"] == "X":
            start = row["ts"] + origin
            rows.append({**row["args"], "name": row["name"], "start_ns": start, "end_ns": start + row["dur"]})
    return pl.DataFrame(rows, schema=EVENTS)


def _nanos(text: str) -> int:
    """µs with three decimals → ns, without a float in between."""
    whole, _, rest = text.partition(".")
    return int(whole + rest.ljust(3, "0"))

"""Event table → Chrome trace file, for Perfetto (ui.perfetto.dev) and chrome://tracing.

One process per engine, one thread per lane (more where rows of a lane overlap), counters of busy lanes, and arrows
where a chunk hands over to another. All columns of the event table are in the file (`args` of each row, times relative
to `otherData.origin_ns`), so `read_chrome` gives the table back exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from overlap.traces.files import write_trace
from overlap.traces.rows import (
    Pids,
    counter_rows,
    flow_rows,
    lines,
    members,
    micros,
    name_rows,
    sample_rows,
    thread_names,
)
from overlap.traces.schema import COUNTERS, EVENTS, SCHEMA_VERSION, empty
from overlap.traces.slots import place
from overlap.traces.sweep import engines_of, window_of

if TYPE_CHECKING:
    from overlap.program import Program  # loads torch, which reading traces can do without

ARGS = tuple(name for name in EVENTS if name not in ("name", "start_ns", "end_ns"))
FORMAT = "overlap.trace"
# Rows are half a kilobyte each as text, so only so many are text at a time.
_TEXT_ROWS = 1 << 15


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


def write_chrome(
    events: pl.DataFrame,
    path: Path,
    info: TraceInfo,
    flows: Iterable[tuple[int, int]] = (),
    samples: pl.DataFrame | None = None,
) -> Path:
    """Write `events` to `path` (`*.pt.trace.json.gz`), atomically.

    Args:
        events: an event table (`overlap.traces.schema`).
        path: the file; its folder is made if it is missing.
        info: what the numbers are evidence of.
        flows: pairs of op_id to draw arrows between, such as `chunk_flows(program)`.
        samples: counters of the hardware (`COUNTERS`) to draw beside those of busy lanes.

    Raises:
        RunDirError: where the file cannot be written.
        ValueError: for an unknown engine.
    """
    samples = empty(COUNTERS) if samples is None else samples
    origin, _ = window_of(events)
    if samples.height:
        first = int(samples["time_ns"].min())  # type: ignore[arg-type]
        origin = min(origin, first) if events.height else first
    return write_trace(path, header(info, origin), _rows(events, info, origin, flows, samples))


def _rows(
    events: pl.DataFrame, info: TraceInfo, origin: int, flows: Iterable[tuple[int, int]], samples: pl.DataFrame
) -> Iterator[pl.Series | list[str]]:
    pids = _pids(events)
    many = len({device for device, _ in pids}) > 1
    placed, names = place(events)
    processes = {pid: f"device {device} {engine}" if many else engine for (device, engine), pid in pids.items()}
    if samples.height:
        processes[len(pids) + 1] = "hardware counters"
    yield name_rows(processes, thread_names(names, pids))
    for start in range(0, placed.height, _TEXT_ROWS):
        yield _slices(placed.slice(start, _TEXT_ROWS), pids, origin, info.evidence)
    yield flow_rows(placed, pids, flows, origin)
    yield from counter_rows(events, pids, origin)
    yield sample_rows(samples, len(pids) + 1, origin)


def _pids(events: pl.DataFrame) -> Pids:
    """A process for every engine of every device, in order of both."""
    devices = sorted(events["device"].unique().to_list())
    used = [(one, engine) for one in devices for engine in engines_of(events.filter(pl.col("device") == one))]
    return {key: pid for pid, key in enumerate(used, 1)}


def _slices(placed: pl.DataFrame, pids: Pids, origin: int, evidence: str) -> pl.Series:
    """`X` rows; all columns of the event table are in `args` or in the row itself."""
    keys = [(device, engine, pid) for (device, engine), pid in pids.items()]
    table = pl.DataFrame(keys, schema={"device": pl.Int32, "engine": pl.String, "pid": pl.Int64}, orient="row")
    rows = placed.join(table, on=["device", "engine"], how="left", maintain_order="left")
    tail = pl.when(pl.col("tail_ns") >= 0).then(pl.col("tail_ns") - origin).otherwise(-1).alias("tail_ns")
    args = members(*(tail if name == "tail_ns" else name for name in ARGS), pl.lit(evidence).alias("evidence"))
    cat = pl.col("engine").str.to_lowercase().alias("cat")
    times = micros(pl.col("start_ns") - origin), micros(pl.col("end_ns") - pl.col("start_ns"))
    row = lines(
        '{"ph":"X",',
        members("name", cat, "pid", "tid"),
        ',"ts":',
        times[0],
        ',"dur":',
        times[1],
        ',"args":{',
        args,
        "}}",
    )
    return rows.select(row).to_series()


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
    about = {"schema": f"{FORMAT}/{SCHEMA_VERSION}", "device": info.device, "evidence": info.evidence}
    other = {**info.notes, **about, "title": info.title, "origin_ns": origin_ns}
    return {"schemaVersion": 1, "displayTimeUnit": "ns", "otherData": other}

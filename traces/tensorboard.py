"""Event table → the flavour of Chrome trace that torch-tb-profiler 0.4.3 opens with MME and TPC as separate devices.

The plug-in knows CUDA only, so engines are dressed up (tried against 0.4.3; rules in its event_parser and data.py):
each engine is a pseudo device with integer id = pid and an entry in `deviceProperties`; each op gets a host operator
and, inside it, a `Runtime` row that share integer `External id` and `correlation` with its `kernel` row; one
`ProfilerStep#N` row spans the run; every `X` row has cat, name and args. Read Perfetto files for anything but the
plug-in: host rows here are synthetic and only mirror the device rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from overlap.traces.chrome import ARGS, TraceInfo, header
from overlap.traces.files import write_trace
from overlap.traces.rows import lines, members, micros, micros_text, name_rows, text_of
from overlap.traces.slots import place
from overlap.traces.sweep import ENGINES, engines_of, window_of

HOST_PID = 1000


def write_tensorboard(
    events: pl.DataFrame, folder: Path, info: TraceInfo, *, worker: str, time_ns: int, step: int = 0
) -> Path:
    """Write `<folder>/<worker>.<time_ns>.pt.trace.json.gz`, atomically; a folder is one run of the plug-in.

    Args:
        events: an event table (`overlap.traces.schema`) of one run of a program.
        folder: made if it is missing.
        info: what the numbers are evidence of.
        worker: name under "Workers", such as `kept`.
        time_ns: when it was taken; the plug-in orders the traces of a worker by it.
        step: number of the step that the run is.

    Raises:
        RunDirError: where the file cannot be written.
        ValueError: for an unknown engine, or a worker whose name would be a path.
    """
    if not worker or "/" in worker or "\\" in worker:
        raise ValueError(f"worker {worker!r} must be a plain file name")
    origin, end = window_of(events)
    # Ids must be dense and start at 0, for they are positions in deviceProperties.
    devices = {engine: device for device, engine in enumerate(_devices(events))}
    placed, names = place(events)
    lanes = {(devices[engine], tid): name for (_, engine, tid), name in names.items()}
    host = {(HOST_PID, _host_tid(device, tid)): f"{name} queue" for (device, tid), name in lanes.items()}
    processes = {**{device: f"{info.device} {engine}" for engine, device in devices.items()}, HOST_PID: "host"}
    step_row = {"ph": "X", "name": f"ProfilerStep#{step}", "cat": "user_annotation", "pid": HOST_PID, "tid": HOST_PID}
    span = {"ts": micros_text(0), "dur": micros_text(end - origin), "args": {}}
    head = [*name_rows(processes, {**lanes, **host}), text_of({**step_row, **span})]
    rows: list[pl.Series | list[str]] = [head, *_op_rows(placed, devices, origin)]
    path = folder / f"{worker}.{time_ns}.pt.trace.json.gz"
    return write_trace(path, {**header(info, origin), "deviceProperties": _properties(devices, info)}, rows)


def _devices(events: pl.DataFrame) -> list[str]:
    """MME and TPC always, so that they keep their numbers; the others where they have rows."""
    used = engines_of(events)
    return [engine for engine in ENGINES if engine in used or engine in ("MME", "TPC")]


def _properties(devices: dict[str, int], info: TraceInfo) -> list[dict[str, Any]]:
    memory = {"totalGlobalMem": info.memory_bytes} if info.memory_bytes else {}
    return [{"id": device, "name": f"{engine} of {info.device}", **memory} for engine, device in devices.items()]


def _host_tid(device: int, tid: int) -> int:
    """Host threads mirror device threads, so that host operators nest wherever device rows do."""
    return HOST_PID * (device + 2) + tid


def _op_rows(placed: pl.DataFrame, devices: dict[str, int], origin: int) -> list[pl.Series]:
    """Per op a host operator, its launch and its kernel; kernels are grouped by name, so theirs is what ops share."""
    keys = pl.DataFrame(
        {"engine": list(devices), "index": list(devices.values())}, schema_overrides={"index": pl.Int64}
    )
    kernel = pl.concat_str("engine", "phase", "kind", separator=" ").str.replace_all("  ", " ").str.strip_chars()
    rows = placed.join(keys, on="engine", how="left", maintain_order="left").with_columns(
        number=pl.int_range(1, pl.len() + 1, dtype=pl.Int64), host=HOST_PID * (pl.col("index") + 2) + pl.col("tid")
    )
    link = pl.col("number").alias("External id"), pl.col("number").alias("correlation")
    known = (name for name in ARGS if name not in ("correlation", "device"))
    args = members(*link, pl.col("index").alias("device"), pl.col("tid").alias("stream"), *known)
    start, length = micros(pl.col("start_ns") - origin), micros(pl.col("end_ns") - pl.col("start_ns"))
    host = members(pl.lit(HOST_PID).alias("pid"), pl.col("host").alias("tid"))
    device = members(pl.col("index").alias("pid"), "tid")
    head = '{"ph":"X","cat":"'
    return [
        rows.select(one).to_series()
        for one in (
            lines(
                head,
                'cpu_op",',
                members("name"),
                ",",
                host,
                ',"ts":',
                start,
                ',"dur":',
                length,
                ',"args":{',
                members(link[0]),
                "}}",
            ),
            lines(
                head, 'Runtime","name":"launch",', host, ',"ts":', start, ',"dur":0.000,"args":{', members(*link), "}}"
            ),
            lines(
                head,
                'kernel",',
                members(kernel.alias("name")),
                ",",
                device,
                ',"ts":',
                start,
                ',"dur":',
                length,
                ',"args":{',
                args,
                "}}",
            ),
        )
    ]

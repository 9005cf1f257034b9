"""Event table → the flavour of Chrome trace that torch-tb-profiler 0.4.3 opens with MME and TPC as separate devices.

The plug-in knows CUDA only, so engines are dressed up (tried against 0.4.3; rules in its event_parser and data.py):
each engine is a pseudo device with integer id = pid and an entry in `deviceProperties`; each op gets a host operator
and, inside it, a `Runtime` row that share integer `External id` and `correlation` with its `kernel` row; one
`ProfilerStep#N` row spans the run; every `X` row has cat, name and args. Read Perfetto files for anything but the
plug-in: host rows here are synthetic and only mirror the device rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from overlap.traces.chrome import ARGS, TraceInfo, header
from overlap.traces.files import write_trace
from overlap.traces.rows import Placed, Row, complete, place, process_rows, thread_rows
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
    placed, lanes = place(events)
    threads = {(devices[engine], tid): name for (engine, tid), name in lanes.items()}
    host = {(HOST_PID, _host_tid(devices[engine], tid)): f"{name} queue" for (engine, tid), name in lanes.items()}
    span = end - origin
    rows = [
        *process_rows({**{device: f"{info.device} {engine}" for engine, device in devices.items()}, HOST_PID: "host"}),
        *thread_rows({**threads, **host}),
        complete(f"ProfilerStep#{step}", "user_annotation", HOST_PID, HOST_PID, 0, span, {}),
        *(row for number, one in enumerate(placed, 1) for row in _op_rows(one, number, devices, origin)),
    ]
    document = {**header(info, origin), "deviceProperties": _properties(devices, info), "traceEvents": rows}
    return write_trace(folder / f"{worker}.{time_ns}.pt.trace.json.gz", document)


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


def _op_rows(one: Placed, number: int, devices: dict[str, int], origin: int) -> Iterator[Row]:
    event, device = one.event, devices[one.event["engine"]]
    start, duration = event["start_ns"] - origin, event["end_ns"] - event["start_ns"]
    link = {"External id": number, "correlation": number}
    tid = _host_tid(device, one.tid)
    yield complete(event["name"], "cpu_op", HOST_PID, tid, start, duration, {"External id": number})
    yield complete("launch", "Runtime", HOST_PID, tid, start, 0, link)
    args = {
        **link,
        "device": device,
        "stream": one.tid,
        **{name: event[name] for name in ARGS if name not in ("correlation", "device")},
    }
    yield complete(_kernel_name(event), "kernel", device, one.tid, start, duration, args)


def _kernel_name(event: Any) -> str:
    """Kernels are grouped by name, so they carry what ops have in common rather than the name of one op."""
    return f"{event['engine']} {event['phase']} {event['kind']}".replace("  ", " ").strip()

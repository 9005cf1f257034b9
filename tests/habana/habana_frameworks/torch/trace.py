"""The trace that Kineto writes for a Gaudi2: compact JSON, device rows under pid 0, a thread per lane."""

from __future__ import annotations

import json
import os
from typing import Any

from habana_frameworks.torch.card import Node

MME_TID, TPC_TID, TPCS = 6000, 7000, 2
PATHS = {"mm": "gemm", "bmm": "batch_gemm"}


def write(path: str, launches: list[list[Node]]) -> None:
    """Rows of all launches."""
    rows: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": 0, "tid": 0, "args": {"name": "/device:HPU:0"}},
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": MME_TID, "args": {"name": "[HD0] MME"}},
    ]
    for lane in range(TPCS):
        name = {"name": f"[HD0] TPC {lane}"}
        rows.append({"ph": "M", "name": "thread_name", "pid": 0, "tid": TPC_TID + lane, "args": name})
    # Python's own threads may be filed under the device.
    rows.append(
        {"ph": "X", "cat": "python_function", "name": "threading.py(1): run", "pid": 0, "tid": 0, "ts": 0, "dur": 1}
    )
    for recipe, nodes in _numbered(launches):
        for node in nodes:
            lanes = [MME_TID] if node.engine == "MME" else [TPC_TID + lane for lane in range(TPCS)]
            rows += [_row(node, lane, recipe) for lane in lanes]
    about = {"schemaVersion": 1, "deviceProperties": [{"name": "GAUDI2", "totalGlobalMem": 1}]}
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**about, "traceEvents": rows, "traceName": path}, file)


def _numbered(launches: list[list[Node]]) -> list[tuple[int, list[Node]]]:
    """A number per recipe: it is the same when the recipe is launched again, and so are the names of its nodes."""
    numbers: dict[object, int] = {}
    keys = [tuple((node.name, node.ns) for node in nodes) for nodes in launches]
    return [(numbers.setdefault(key, len(numbers)), nodes) for key, nodes in zip(keys, launches, strict=True)]


def _row(node: Node, lane: int, recipe: int) -> dict[str, Any]:
    matrix = node.engine == "MME"
    kind = PATHS.get(node.name, node.name)
    event = "MMEH_WB0_MON_TS_BIT1" if matrix else "TPC_SPU_START_TO_SPU_HALT"
    args = {"EventName": f"graph/{kind}/{node.number}", "HW event name": event, "device": 0, "recipeId": recipe}
    name = {"mm": "GEMM", "bmm": "BatchGemm"}.get(node.name, f"{node.name}_fwd_bf16")
    where = {"pid": 0, "tid": lane, "ts": node.start_ns / 1e3, "dur": (node.end_ns - node.start_ns) / 1e3}
    return {"ph": "X", "cat": "kernel", "name": name, **where, "args": args}


HARDWARE = ("Name", "Trace Source", "Engine", "Event type", "Timestamp[usec]", "Recipe ID", "Device", "Operation")
HARDWARE += ("Data Type", "HW Event description")
MARKS = {"MME": ("START_EVENT", "MMEH_WB0_MON_TS_BIT1"), "TPC": ("TPC_SPU_START", "TPC_SPU_START_TO_SPU_HALT")}


def write_hardware(launches: list[list[Node]]) -> None:
    """The hardware profiler's CSV, where the config of `hl-prof-config` wants it."""
    with open(os.environ["HABANA_PROF_CONFIG"], encoding="utf-8") as file:
        folder = json.load(file)["GeneralSettings"]["values"]["outdir"]["value"]
    rows = [HARDWARE]
    for recipe, nodes in _numbered(launches):
        for node in nodes:
            begin, end = MARKS[node.engine]
            for kind, mark, at in (("BEGIN", begin, node.start_ns), ("END", end, node.end_ns)):
                path = f"model/{PATHS.get(node.name, node.name)}/{node.number}"
                lane = f"{node.engine} 0"
                rows.append((path, "HW", lane, kind, f"{at / 1e3:.6f}", str(recipe), "accel0", node.name, "bf16", mark))
    number = len(os.listdir(folder))
    with open(f"{folder}/double_hw_prof_accel0_{number:03}.csv", "w", encoding="utf-8") as file:
        file.writelines(",".join(row) + "\n" for row in rows)

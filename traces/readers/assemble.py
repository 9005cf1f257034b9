"""Codes and numbers of a whole Chrome trace → the tables of `overlap.traces.schema`.

What a row is (its engine, lane and texts) depends only on its thread, name, category and hardware event, so it is found
once per combination of them and joined back: a million rows have a few hundred combinations.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from overlap.traces.engines import EngineRules
from overlap.traces.kernels import short_kernel
from overlap.traces.readers import hpu
from overlap.traces.readers.columns import Codes, Ints
from overlap.traces.readers.launches import launch_ids
from overlap.traces.readers.links import with_links
from overlap.traces.schema import EVENTS, HOST, empty, filled
from overlap.traces.trace import About, Tally, Trace

if TYPE_CHECKING:
    from overlap.traces.readers.gathered import Gathered

_HPU_PROCESS = re.compile(r"HPU:?\s*(\d+)", re.I)
_COPIES = ("memcpy", "memset", "gpu_memcpy", "gpu_memset")


def assemble(found: Gathered, envelope: dict[str, Any], source: str, rules: EngineRules, tally: Tally) -> Trace:
    """The trace; what could not become a row of a table is in `tally`."""
    host = _host(found)
    events = _events(found, rules, tally)
    if not events.is_empty():
        events = with_links(events, host, found.products)
        events = filled(events)
    other = envelope.get("otherData")
    synthetic = "SYNTHETIC" in envelope
    stated = other.get("evidence") if isinstance(other, dict) else None
    return Trace(
        events if not events.is_empty() else empty(EVENTS),
        About(
            source=source,
            format="kineto",
            evidence="synthetic" if synthetic else stated if stated in ("simulated", "synthetic") else "measured",
            devices=device_names(envelope),
            origin_ns=origin_of(envelope),
            rows=found.rows,
            extra=_distributed(envelope),
        ),
        host,
    )


def origin_of(envelope: dict[str, Any]) -> int:
    """`baseTimeNanoseconds`, 0 where times are absolute or the key is missing."""
    value = envelope.get("baseTimeNanoseconds")
    return value if isinstance(value, int) and 0 <= value < 1 << 62 else 0


def device_names(envelope: dict[str, Any]) -> dict[int, str]:
    """Name by index; HPU properties have no id, so their position counts."""
    listed = envelope.get("deviceProperties", envelope.get("computeProperties"))
    names = {}
    for position, one in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(one, dict) and one.get("name"):
            index = one.get("id")
            names[index if isinstance(index, int) else position] = str(one["name"])
    return names


def _distributed(envelope: dict[str, Any]) -> dict[str, Any]:
    """Rank and world size, where the trace is one of several."""
    found = envelope.get("distributedInfo")
    if not isinstance(found, dict):
        return {}
    return {key: found[key] for key in ("rank", "world_size") if isinstance(found.get(key), int)}


def _host(found: Gathered) -> pl.DataFrame:
    if not found.host.rows:
        return empty(HOST)
    columns = found.host.done()
    calls, call = found.codes["call"], columns["call"]
    return pl.DataFrame(
        {
            "name": calls.series(call, lambda one: one[0]),
            "kind": calls.series(call, lambda one: one[1].lower()),
            "thread": calls.series(call, lambda one: f"{one[2]}/{one[3]}"),
            **{name: columns[name] for name in ("start_ns", "end_ns", "correlation", "external")},
        },
        schema=HOST,
    )


def _events(found: Gathered, rules: EngineRules, tally: Tally) -> pl.DataFrame:
    """Device rows with everything but their links to the host; columns that no table has are for those."""
    if not found.device.rows:
        return empty(EVENTS)
    columns = _in_order_of_start(found.device.done())
    work, node = (pl.Series(columns.pop(name), dtype=pl.UInt32) for name in ("work", "node"))
    frame = pl.DataFrame(columns).hstack(_described(found, rules)[work]).hstack(_nodes(found)[node])
    if marks := int(frame["mark"].sum()):
        tally.drop("start-only mark", marks)
        frame = frame.filter(~pl.col("mark"))
    frame = frame.with_columns(
        device=pl.when(pl.col("device").is_between(0, 65535)).then("device").otherwise("lane_device"),
        name=pl.when(pl.col("node") != "").then("node").otherwise("name"),
    )
    if frame["on_hpu"].any():
        return frame.with_columns(op_id=launch_ids(frame, ["node_id", "kind_id"]))
    return frame.with_columns(op_id=pl.int_range(pl.len(), dtype=pl.Int64))


def _in_order_of_start(columns: dict[str, Ints]) -> dict[str, Ints]:
    """Sorted while rows are still narrow."""
    order = np.lexsort((columns["end_ns"], columns["start_ns"]))
    for name in columns:
        columns[name] = columns[name][order]
    return columns


def _nodes(found: Gathered) -> pl.DataFrame:
    """`node, node_id` of every code: the graph node as text, and a number that tells equal nodes of two recipes apart.

    Ids of recipes repeat over a long run, so the recipe's name counts as well.
    """
    texts = [str(node) if node else "" for node, *_ in found.codes["node"]]
    return pl.DataFrame({"node": texts, "node_id": range(len(texts))}, schema={"node": pl.String, "node_id": pl.Int64})


def _of_gaudi(found: Gathered) -> bool:
    """Whether anything in the trace is what only a Gaudi's has; thread numbers alone could be a GPU's streams."""
    nodes = any(node or recipe is not None for node, recipe, _ in found.codes["node"])
    return nodes or any("HPU" in name for name in found.processes.values())


def _described(found: Gathered, rules: EngineRules) -> pl.DataFrame:
    """`engine, lane, name, kind, kind_id, lane_device, on_hpu, mark` of every combination that device rows have."""
    engines: dict[str, tuple[str, str]] = {}
    gaudi = _of_gaudi(found)
    kinds = Codes()
    rows = []
    for name, cat, pid, tid, seen in found.codes["work"]:
        process, thread = found.processes.get(pid, ""), found.threads.get((pid, tid), "").strip()
        on_hpu = seen is not None or cat.lower() == "hpu_op" or "HPU" in process or (gaudi and hpu.is_lane(pid, tid))
        if on_hpu:
            engine, kind = hpu.lane_engine(str(seen or ""), thread, tid, name), name
            lane = hpu.lane_text(thread, tid)
        else:
            if name not in engines:
                engines[name] = rules.engine(name), short_kernel(name)
            engine, kind = engines[name]
            engine = "DMA" if cat.lower() in _COPIES else engine
            lane = thread or (tid if isinstance(tid, str) else f"stream {tid}")
        index = _HPU_PROCESS.search(process)
        device = int(index.group(1)) if index else pid if isinstance(pid, int) and 0 <= pid < 1 << 16 else 0
        mark = seen is not None and hpu.start_only(str(seen))
        rows.append((engine, lane, name, kind, kinds[kind], device, on_hpu, mark))
    texts = dict.fromkeys(("engine", "lane", "name", "kind"), pl.String)
    return pl.DataFrame(
        rows,
        schema={**texts, "kind_id": pl.Int64, "lane_device": pl.Int64, "on_hpu": pl.Boolean, "mark": pl.Boolean},
        orient="row",
    )

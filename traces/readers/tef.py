"""Chrome JSON of the Gaudi profiler itself (`TEF`): processes per type of engine, threads per engine → a trace.

Terms
    half: a row that only begins (`B`) or ends (`E`); both have the `id` of their context.
    host row: of a process whose name says `Host`, or of the host trace inside an `.hltv`; its halves nest like calls.
    busy row: `Busy…`, all that the light template records: the span of a whole recipe, not of a kernel.

Contract: halves of a device pair first in, first out by (thread, recipe, id); where ends name no recipe it is left out
of the key. Counters are samples as they are in the file, which leaves out those that did not change. Times stay those
of the file, in ns. Processes that are neither an engine's nor the host's are counted as dropped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl

from overlap.errors import TraceError
from overlap.traces.readers import hpu
from overlap.traces.readers.launches import launch_ids
from overlap.traces.readers.pairing import EARLY, OPEN, fifo_pairs
from overlap.traces.readers.times import ABSURD_NS, doubles_to_ns, micros_to_ns
from overlap.traces.schema import COUNTERS, EVENTS, HOST, empty, filled
from overlap.traces.trace import About, Tally, Trace

Row = dict[str, Any]
HOST_KIND = "host_api"
_COUNTERS = ("spmu", "bmon")
_DEVICE = re.compile(r"accel\s*(\d+)", re.I)
_RECIPE = ("recipe id", "recipe_id", "recipeId", "Recipe ID")
_KIND = ("op", "operation", "Operation")
_KEY = ("pid", "tid", "recipe", "id")
_OP = ("recipe", "id", "name", "kind")
_HALF = {
    **dict.fromkeys(("pid", "tid", "recipe", "id", "name", "kind", "lane", "engine"), pl.String),
    **{"device": pl.Int32, "time_ns": pl.Int64, "begins": pl.Boolean},
}
_WHOLE = {
    **dict.fromkeys(("recipe", "id", "name", "kind", "lane", "engine"), pl.String),
    **dict.fromkeys(("start_ns", "end_ns"), pl.Int64),
    "device": pl.Int32,
}


class Places:
    """Names of processes and threads, wherever in the file they are told.

    Args:
        rows: all rows of the file; those that name something are taken.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.processes: dict[str, str] = {}
        self.threads: dict[tuple[str, str], str] = {}
        self.known: dict[tuple[str, str], tuple[str, str, int, bool]] = {}
        for row in rows:
            if row.get("ph") == "M" and "name" in _args(row):
                text = str(_args(row)["name"]).strip()
                if row.get("name") == "process_name":
                    self.processes[str(row.get("pid"))] = text
                elif row.get("name") == "thread_name":
                    self.threads[_thread(row)] = text

    def of(self, row: Row) -> tuple[str, str, int, bool]:
        """(engine, lane, device, whether it is the host's) of a row's thread."""
        thread = _thread(row)
        if thread not in self.known:
            process, lane = self.processes.get(thread[0], ""), self.threads.get(thread, "")
            engine = hpu.lane_engine("", lane, None, "")
            engine = engine if engine != "OTHER" else hpu.lane_engine("", process, None, "")
            found = _DEVICE.search(process)
            # `***Host` is a name of its own; a process that is named at all and no engine's is somebody else's.
            host = "host" in process.lower() or "host" in lane.lower()
            self.known[thread] = engine, lane or thread[1], int(found.group(1)) if found else 0, host
        return self.known[thread]


def read_tef(rows: list[Row], about_keys: dict[str, Any], source: str, tally: Tally) -> Trace:
    """The trace of the rows of `traceEvents`.

    Args:
        rows: rows as JSON has them.
        about_keys: everything of the file beside its rows; plain values of it are kept in `about.extra`.
        source: name of the file.
        tally: counts what is left out.

    Raises:
        TraceError: where no row is an activity or a counter of a device.
    """
    rows = _sound(rows, tally)
    places = Places(rows)
    timed = [row for row in rows if row["ph"] in ("B", "E", "X")]
    events = _events([row for row in timed if not places.of(row)[3]], places, tally)
    counters = _counters([row for row in rows if row["ph"] == "C"], places, tally)
    host = host_rows([row for row in timed if places.of(row)[3]], places, tally)
    if events.is_empty() and counters.is_empty():
        raise TraceError(f"{source} holds no activity of a device", "profile again with --hw-trace on --invoc json")
    return Trace(events, _about(events, counters, about_keys, source, len(rows)), host, counters)


def host_rows(rows: Sequence[Row], places: Places, tally: Tally) -> pl.DataFrame:
    """Calls of the host; halves of a thread nest, so an end belongs to the call that began last."""
    found: list[tuple[str, str, str, int, int]] = []
    calls: dict[tuple[str, str], list[tuple[str, int]]] = {}
    starts, ends = _spans(rows)
    # Stable, and B before E at one time unless the file has them the other way round within one thread.
    for index in sorted(range(len(rows)), key=starts.__getitem__):
        row, thread = rows[index], _thread(rows[index])
        lane, stack = f"{places.processes.get(thread[0], thread[0])}/{places.of(row)[1]}", calls.setdefault(thread, [])
        if starts[index] <= -ABSURD_NS or (row["ph"] == "X" and ends[index] < starts[index]):
            tally.drop("host row without a possible time")
        elif row["ph"] == "X":
            found.append((str(row.get("name", "")), HOST_KIND, lane, int(starts[index]), int(ends[index])))
        elif row["ph"] == "B":
            stack.append((str(row.get("name", "")), int(starts[index])))
        elif stack:
            name, start = stack.pop()
            found.append((name, HOST_KIND, lane, start, int(starts[index])))
        else:
            tally.drop(EARLY)
    tally.drop(OPEN, sum(map(len, calls.values())))
    names = ("name", "kind", "thread", "start_ns", "end_ns")
    frame = pl.DataFrame(found, schema={name: HOST[name] for name in names}, orient="row")
    return filled(frame.sort("start_ns", "end_ns", maintain_order=True), HOST)


def _about(events: pl.DataFrame, counters: pl.DataFrame, keys: dict[str, Any], source: str, rows: int) -> About:
    indices = sorted({int(index) for frame in (events, counters) for index in frame["device"].unique()})
    return About(
        source=source,
        format="gaudi tef",
        devices={index: f"accel{index}" for index in indices},
        rows=rows,
        extra={key: value for key, value in keys.items() if isinstance(value, (str, int, float, bool))},
    )


def ns_of_values(values: Sequence[Any]) -> list[int | None]:
    """Ns of decimal µs that JSON had as integers, floats or texts; None for what is no time."""
    floats = [index for index, value in enumerate(values) if isinstance(value, float) and abs(value) < 4e15]
    exact = doubles_to_ns(np.array([values[index] for index in floats], np.float64))
    found: list[int | None] = [None if isinstance(value, float) else _ns(value) for value in values]
    for index, time in zip(floats, exact.tolist(), strict=True):
        found[index] = time
    return found


def _ns(value: Any) -> int | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return value * 1000 if abs(value) < ABSURD_NS // 1000 else None
    return micros_to_ns(value) if isinstance(value, str) else None


def _sound(rows: list[Row], tally: Tally) -> list[Row]:
    usable = [row for row in rows if isinstance(row, dict) and isinstance(row.get("ph"), str)]
    tally.drop("row that is no event", len(rows) - len(usable))
    return usable


def _args(row: Row) -> Row:
    args = row.get("args")
    return args if isinstance(args, dict) else {}


def _thread(row: Row) -> tuple[str, str]:
    return str(row.get("pid", "")), str(row.get("tid", ""))


def _first(args: Row, names: Sequence[str]) -> str:
    return next((str(args[name]) for name in names if args.get(name) is not None), "")


def _spans(rows: Sequence[Row]) -> tuple[list[int], list[int]]:
    """Starts and ends; a row without a time starts at -ABSURD_NS, one without a duration ends before it starts."""
    starts = ns_of_values([row.get("ts") for row in rows])
    lengths = ns_of_values([row.get("dur") for row in rows])
    begun = [-ABSURD_NS if start is None else start for start in starts]
    return begun, [b - 1 if length is None else b + length for b, length in zip(begun, lengths, strict=True)]


def _events(rows: list[Row], places: Places, tally: Tally) -> pl.DataFrame:
    rows = _of_engines(rows, places, tally)
    starts, ends = _spans(rows)
    halves, wholes = [], []
    for row, start, end in zip(rows, starts, ends, strict=True):
        engine, lane, device, _ = places.of(row)
        args, name = _args(row), str(row.get("name") or "")
        kind = "busy" if name.startswith("Busy") else _first(args, _KIND)
        what = (_first(args, _RECIPE), str(row.get("id", "")), name, kind, lane, engine)
        if start <= -ABSURD_NS:
            tally.drop("row without a time")
        elif row["ph"] != "X":
            halves.append((*_thread(row), *what, device, start, row["ph"] == "B"))
        elif end < start or end >= ABSURD_NS:
            tally.drop("row of negative or unknown duration")
        else:
            wholes.append((*what, start, end, device))
    frames = [pl.DataFrame(wholes, schema=_WHOLE, orient="row"), _paired(halves, tally)]
    return _finished(pl.concat(frames), tally)


def _of_engines(rows: list[Row], places: Places, tally: Tally) -> list[Row]:
    """Rows on lanes of engines; `OTHER` lanes count where their process is a device's."""
    found, others = [], Counter[str]()
    for row in rows:
        engine, lane, _, _ = places.of(row)
        process = places.processes.get(_thread(row)[0], "")
        known = engine != "OTHER" or _DEVICE.search(process) or str(row.get("name", "")).startswith("Busy")
        if not known:
            others[process or lane] += 1
        elif _is_mark(row):
            tally.drop("start-only mark")
        else:
            found.append(row)
    tally.drop("row of a process that is no device", others.total())
    return found


def _is_mark(row: Row) -> bool:
    """Whether a row is of a monitor without an end; as halves, `TPC_SPU_START` and its like do have one."""
    event = str(_args(row).get("HW event name", ""))
    return hpu.start_only(event) and (row["ph"] == "X" or event.startswith("STM_"))


def _paired(halves: list[tuple[Any, ...]], tally: Tally) -> pl.DataFrame:
    frame = pl.DataFrame(halves, schema=_HALF, orient="row")
    nameless = frame.filter(pl.col("recipe") == "").height
    if nameless and nameless < frame.height:
        tally.warn(f"{nameless} of {frame.height} begins and ends name no recipe: all were paired without it")
    key = [name for name in _KEY if not (nameless and name == "recipe")]
    pairs = fifo_pairs(frame, key, ["time_ns"])
    pairs.count_unmatched(tally)
    texts = ("name", "kind")
    ends = pairs.ends.select(pl.col("time_ns").alias("end_ns"), *(pl.col(text).alias(f"{text}_end") for text in texts))
    both = pairs.begins.rename({"time_ns": "start_ns"}).hstack(ends)
    fuller = (pl.when(pl.col(text) == "").then(f"{text}_end").otherwise(text).alias(text) for text in texts)
    return both.with_columns(fuller).select(*_WHOLE)


def _finished(frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """Rows of the event table; the name of a row is the node's path where it has slashes."""
    if frame.is_empty():
        return empty(EVENTS)
    frame = frame.sort("start_ns", "end_ns", "lane", maintain_order=True)
    busy = frame.filter(pl.col("kind") == "busy").height
    if busy:
        tally.warn(f"{busy} of {frame.height} rows are `Busy` spans of the light template: recipes, not kernels")
    path = pl.when(pl.col("name").str.contains("/", literal=True)).then("name").otherwise(pl.lit(""))
    return filled(frame.with_columns(launch_ids(frame, _OP), path.alias("path")))


def _counters(rows: list[Row], places: Places, tally: Tally) -> pl.DataFrame:
    samples = []
    for row, time in zip(rows, ns_of_values([row.get("ts") for row in rows]), strict=True):
        if not str(row.get("cat", "")).lower().startswith(_COUNTERS):
            tally.drop("counter of another kind")
            continue
        values = {key: value for key, cell in _args(row).items() if (value := _counter_value(cell)) is not None}
        if time is None or not values:
            tally.drop("counter without a time or a value")
            continue
        _, lane, device, _ = places.of(row)
        title = str(row.get("name", ""))
        for key, value in values.items():
            name = title if key == title or (len(values) == 1 and title) else f"{title} {key}".strip()
            samples.append((device, lane, name, time, value))
    frame = pl.DataFrame(samples, schema=COUNTERS, orient="row")
    negative = frame.filter(pl.col("value") < 0).height
    if negative:
        tally.warn(f"{negative} of {frame.height} counter samples are negative: leave them out of sums")
    return frame.sort("time_ns", maintain_order=True)


def _counter_value(cell: Any) -> int | None:
    """Int64 of a whole number below 2**64, wrapped as counters are; None for anything else."""
    try:
        value = round(cell) if isinstance(cell, float) else int(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    if not -(1 << 63) <= value < 1 << 64:
        return None
    return value - (1 << 64) if value >= 1 << 63 else value

"""Everything there is to say about one device of a trace, in one go.

Terms
    window: whole iterations where the trace has them and they are asked for, otherwise from the first start to the last
        end of the device. Rows are clipped to it; rows that lie outside are counted.

Contract: pure; every figure of a device is of the same window, and its partition sums to that window exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import polars as pl

from overlap.analysis.advice import Advised, advise
from overlap.analysis.advice_rules import Findings
from overlap.analysis.buckets import busy_over_time
from overlap.analysis.diff import by_name
from overlap.analysis.gaps import gap_summary, gaps
from overlap.analysis.health import Check, checks, iterations, whole_window
from overlap.analysis.lane_use import lane_use
from overlap.analysis.lanes import balance, lanes_and_occupancy
from overlap.analysis.names import normal_name
from overlap.analysis.ops import op_table
from overlap.analysis.pairs import pair_table
from overlap.analysis.partition import Partition, partition
from overlap.analysis.phases import by_attention_phase, by_layer, with_attention_phase
from overlap.analysis.roofline import Peaks, find_peaks, roofline
from overlap.analysis.tails import tpc_definitions
from overlap.analysis.unions import Unions, engine_unions
from overlap.analysis.vendor.perf_tool import host_times, perf_tool
from overlap.traces.sweep import Window, window_of
from overlap.traces.trace import Trace


@dataclass(frozen=True)
class Look:
    """How to look: `steps` cuts the window to whole iterations, idle from `macro_ns` on is macro."""

    steps: bool = True
    macro_ns: int = 10_000


@dataclass(frozen=True)
class DeviceAnalysis:
    """What one device did; frames are those of the modules named like them."""

    index: int
    name: str
    events: pl.DataFrame
    partition: Partition
    steps: int
    outside: int
    ops: pl.DataFrame
    names: pl.DataFrame
    phases: pl.DataFrame
    layers: pl.DataFrame
    pairs: pl.DataFrame
    lanes: pl.DataFrame
    balance: pl.DataFrame
    occupancy: pl.DataFrame
    gaps: pl.DataFrame
    gap_summary: pl.DataFrame
    tpc: pl.DataFrame
    vendor: pl.DataFrame
    over_time: pl.DataFrame
    peaks: Peaks | None
    roofline: pl.DataFrame
    advised: Advised
    checks: Sequence[Check]


def analyse(trace: Trace, look: Look | None = None) -> list[DeviceAnalysis]:
    """Every device of a trace, in order of index.

    Raises:
        TraceError: no device has rows.
    """
    look = look or Look()
    sound = checks(trace.events, trace.host, trace.about)
    devices = sorted(trace.events["device"].unique().to_list())
    return [_device(trace, index, look, sound if len(devices) == 1 else None) for index in devices]


def window_for(trace: Trace, events: pl.DataFrame, look: Look) -> tuple[Window, pl.DataFrame]:
    """The window of a device, and the iterations in it."""
    whole = whole_window(events, trace.host) if look.steps else None
    window = window_of(events) if whole is None else whole
    steps = iterations(trace.host)
    return window, steps.filter(pl.col("start_ns") >= window[0], pl.col("end_ns") <= window[1])


def clipped(events: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Rows that share time with the window, cut to it; what is known of a whole row is not known of a part of it.

    Rows of length zero stay where they are inside of it.
    """
    start, end = window
    starts, ends = pl.col("start_ns"), pl.col("end_ns")
    within = (starts >= start) & (ends <= end)
    if events.select(within.all()).item():
        return events
    inside = events.filter(within | ((ends > start) & (starts < end)))
    whole = pl.when(within)
    return inside.with_columns(
        starts.clip(start, end),
        ends.clip(start, end),
        *(whole.then(name).otherwise(pl.lit(-1, pl.Int64)).alias(name) for name in ("flops", "bytes")),
    )


def _device(trace: Trace, index: int, look: Look, sound: Sequence[Check] | None) -> DeviceAnalysis:
    # Of a single device, the table itself: a filter would copy it.
    mine = trace.events if sound is not None else trace.events.filter(pl.col("device") == index)
    window, steps = window_for(trace, mine, look)
    events = clipped(mine, window)
    unions = engine_unions(events, window)
    part = partition(events, window, unions)
    name = device_name(trace.about.devices, index)
    peaks = find_peaks(name)
    # Two threads: polars and numpy let go of Python's lock while they work.
    with ThreadPoolExecutor(1) as beside:
        of_time = beside.submit(_of_time, events, trace.host, window, look, unions, steps)
        of_checks = beside.submit(lambda: checks(mine, trace.host, trace.about) if sound is None else sound)
        of_ops = _of_ops(events, unions, peaks)
        times = of_time.result()
        spare = lane_use(events, of_ops["ops"])
        findings = Findings(part, of_ops["ops"], times["gaps"], spare, host_times(times["vendor"]))
        advised = advise(findings)
        found = of_checks.result()
    return DeviceAnalysis(
        index=index,
        name=name,
        events=events,
        partition=part,
        steps=max(1, steps.height),
        outside=mine.height - events.height,
        peaks=peaks,
        advised=advised,
        checks=found,
        **of_ops,
        **times,
    )


def device_name(names: Mapping[int, str], index: int) -> str:
    """Name of a device; of a single one whose index is not listed, the name that all listed ones share."""
    shared = set(names.values())
    return names.get(index) or (shared.pop() if len(shared) == 1 else f"device {index}")


def _of_ops(events: pl.DataFrame, unions: Unions, peaks: Peaks | None) -> dict[str, pl.DataFrame]:
    """What follows from the table of ops."""
    ops = with_attention_phase(op_table(events, unions))
    return {
        "ops": ops,
        "names": by_name(ops),
        "phases": by_attention_phase(ops),
        "layers": by_layer(ops),
        "roofline": roofline(ops, peaks),
    }


def _of_time(
    events: pl.DataFrame, host: pl.DataFrame, window: Window, look: Look, unions: Unions, steps: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """What follows from when rows ran."""
    lanes, histogram = lanes_and_occupancy(events, window)
    idle = gaps(events, window, look.macro_ns)
    return {
        "pairs": pair_table(events, window),
        "lanes": lanes,
        "balance": balance(lanes, histogram),
        "occupancy": histogram,
        "gaps": idle.with_columns(normal_name(pl.col("before")), normal_name(pl.col("after"))),
        "gap_summary": gap_summary(idle),
        "tpc": tpc_definitions(events, window),
        "vendor": perf_tool(events, host, window, steps.select("start_ns", "end_ns"), unions),
        "over_time": busy_over_time(events, window, unions=unions),
    }


def together(parts: Sequence[Partition]) -> Mapping[str, int]:
    """Parts of several devices summed: device-nanoseconds, which sum to the sum of the windows."""
    total: dict[str, int] = {}
    for part in parts:
        for key, time_ns in part.parts_ns.items():
            total[key] = total.get(key, 0) + time_ns
    return total

"""Everything there is to say about one device of a trace, in one go.

Terms
    window: whole iterations where the trace has them and they are asked for, otherwise from the first start to the last
        end of the device. Rows are clipped to it; rows that lie outside are counted.

Contract: pure; every figure of a device is of the same window, and its partition sums to that window exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from overlap.analysis.ops import op_table
from overlap.analysis.pairs import pair_table
from overlap.analysis.partition import Partition, partition
from overlap.analysis.phases import by_attention_phase, by_layer, with_attention_phase
from overlap.analysis.roofline import Peaks, find_peaks, roofline
from overlap.analysis.tails import tpc_definitions
from overlap.analysis.unions import engine_unions
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
    """Rows that touch the window, cut to it."""
    start, end = window
    inside = events.filter(pl.col("end_ns") >= start, pl.col("start_ns") <= end)
    if inside.select((pl.col("start_ns").min() >= start) & (pl.col("end_ns").max() <= end)).item():
        return inside
    return inside.with_columns(pl.col("start_ns", "end_ns").clip(start, end))


def _device(trace: Trace, index: int, look: Look, sound: Sequence[Check] | None) -> DeviceAnalysis:
    mine = trace.events.filter(pl.col("device") == index)
    window, steps = window_for(trace, mine, look)
    events = clipped(mine, window)
    unions = engine_unions(events, window)
    name = trace.about.devices.get(index, f"device {index}")
    ops = with_attention_phase(op_table(events, unions))
    lanes, histogram = lanes_and_occupancy(events, window)
    idle = gaps(events, window, look.macro_ns)
    part = partition(events, window, unions)
    peaks = find_peaks(name)
    vendor = perf_tool(events, trace.host, window, steps.select("start_ns", "end_ns"), unions)
    findings = Findings(part, ops, idle, lane_use(events, ops), host_times(vendor))
    return DeviceAnalysis(
        index=index,
        name=name,
        events=events,
        partition=part,
        steps=max(1, steps.height),
        outside=mine.height - events.height,
        ops=ops,
        names=by_name(ops),
        phases=by_attention_phase(ops),
        layers=by_layer(ops),
        pairs=pair_table(events, window),
        lanes=lanes,
        balance=balance(lanes, histogram),
        occupancy=histogram,
        gaps=idle,
        gap_summary=gap_summary(idle),
        tpc=tpc_definitions(events, window),
        vendor=vendor,
        over_time=busy_over_time(events, window, unions=unions),
        peaks=peaks,
        roofline=roofline(ops, peaks) if peaks is not None else pl.DataFrame(),
        advised=advise(findings),
        checks=sound if sound is not None else checks(mine, trace.host, trace.about),
    )


def together(parts: Sequence[Partition]) -> Mapping[str, int]:
    """Parts of several devices summed: device-nanoseconds, which sum to the sum of the windows."""
    total: dict[str, int] = {}
    for part in parts:
        for key, time_ns in part.parts_ns.items():
            total[key] = total.get(key, 0) + time_ns
    return total

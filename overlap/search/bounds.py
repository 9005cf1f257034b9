"""The bound of a program on a device."""

from __future__ import annotations

import polars as pl

from overlap.analysis.bound import Bound, OpTimes, bound
from overlap.analysis.partition import partition
from overlap.devices.base import Device
from overlap.program import Program


def busy_bound(events: pl.DataFrame) -> Bound:
    """From one run: the busy time of the busiest engine. All that can be told where ops are fused and cut."""
    found = partition(events)
    work = {engine: found.busy_ns(engine) for engine in events["engine"].unique().sort()}
    limit = max(work, key=lambda engine: work[engine], default="")
    return Bound(work.get(limit, 0), 0, work, limit)


def device_bound(device: Device, program: Program, measured: OpTimes) -> Bound:
    """Least time of any order: from the device's own least times where it knows them, else from `measured` ones."""
    least = device.least_times(program)
    return bound(program, measured if least is None else least, device.queue_rules, device.cuts(program))

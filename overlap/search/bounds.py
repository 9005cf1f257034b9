"""The bound of a program on a device."""

from __future__ import annotations

from overlap.analysis.bound import Bound, OpTimes, bound
from overlap.devices.base import Device
from overlap.program import Program


def device_bound(device: Device, program: Program, measured: OpTimes) -> Bound:
    """Least time of any order: from the device's own least times where it knows them, else from `measured` ones."""
    least = device.least_times(program)
    return bound(program, measured if least is None else least, device.queue_rules, device.cuts(program))

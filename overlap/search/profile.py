"""Profiling one split: capture it, time its kernels, run it, and say how busy the engines were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from overlap.analysis.bound import Bound
from overlap.devices.base import Device, DeviceInfo, Uncertainty, require_memory
from overlap.program import Program
from overlap.search.bench import Bench
from overlap.search.bounds import busy_bound, device_bound
from overlap.search.candidate import Candidate
from overlap.search.config import SEARCHED, SearchConfig
from overlap.search.narrow import search_split
from overlap.split import Split, canonical, check
from overlap.stats import Interval, median_interval
from overlap.workload import Workload

KERNEL_REPEATS = 3


@dataclass(frozen=True)
class Profile:
    """One profiled split. Times in ns; `op_ns` are isolated times by op index."""

    workload: Workload
    device: DeviceInfo
    candidate: Candidate
    program: Program
    op_ns: Sequence[int]
    latency: Interval
    bound: Bound
    peak_bytes: int
    events: pl.DataFrame
    uncertainty: Uncertainty | None


def run_profile(workload: Workload, split: Split, order: str, device: Device, repeats: int, seed: int) -> Profile:
    """Run `split` of `workload` `repeats` times in `order` on `device`, then once more for the event table.

    Raises:
        SplitError: the split does not fit the workload.
        MemoryLimitError: the device has too little memory.
    """
    check(split, workload)
    device.require(workload)
    bench = Bench(workload, device, {}, seed)
    candidate = Candidate(canonical(split, workload), order)
    program = bench.program(candidate.split)
    require_memory(program, device.info)
    bench.kernel_ns.update(device.op_times(program, KERNEL_REPEATS))
    if order == SEARCHED:
        bench.searched[candidate.split] = search_split(bench, candidate.split, SearchConfig(), seed).order
    runnable = bench.runnable(candidate)
    times = runnable.time(repeats)
    op_ns = bench.times(candidate.split)
    events = runnable.profile()
    return Profile(
        workload=workload,
        device=device.info,
        candidate=candidate,
        program=program,
        op_ns=op_ns,
        latency=median_interval(times),
        bound=device_bound(device, program, op_ns) if device.info.single_ops else busy_bound(events),
        peak_bytes=runnable.peak_bytes,
        events=events,
        uncertainty=runnable.uncertainty(),
    )

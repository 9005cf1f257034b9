"""The most memory that a call needs beside what was there before it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# How PyTorch's profiler calls what its allocators report.
RECORD = "[memory]"


def peak_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """Run `call` once; None where nobody counts."""
    if device.type == "cpu":
        return _of_the_host(call)
    counters: Any = torch.get_device_module(device)
    if not hasattr(counters, "reset_peak_memory_stats") or not hasattr(counters, "max_memory_allocated"):
        return None
    counters.reset_peak_memory_stats()
    before = counters.memory_allocated()
    call()
    return int(counters.max_memory_allocated() - before)


def _of_the_host(call: Callable[[], object]) -> int | None:
    """From every allocation that PyTorch's CPU allocator made: it keeps no peak of its own."""
    # Else some builds of the profiler write when they start and stop.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    results: Any = getattr(profiler.profiler, "kineto_results", None)
    if results is None:
        return None
    live = peak = 0
    for _, size in sorted((one.start_ns(), one.nbytes()) for one in results.events() if one.name() == RECORD):
        live += size
        peak = max(peak, live)
    return peak

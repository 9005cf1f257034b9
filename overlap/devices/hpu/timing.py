"""Times by the device's own events (§2.3 of the serving facts).

A sample is a stretch of at least `sample_ms` in which the program is launched again and again without waiting, so that
what the host needs to launch hides behind the run before. A sample in which a graph was compiled or an op fell back to
the CPU is no sample: it is taken once more, and if it happens again the program cannot be timed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from overlap.devices.hpu.bridge import Bridge
from overlap.devices.hpu.counters import Counts
from overlap.errors import OpFailedError

MOST_RUNS = 1000
ATTEMPTS = 2


def stretch_ns(bridge: Bridge, run: Callable[[], None], runs: int) -> float:
    """Ns per run over `runs` of them, by events; by the host's clock where events take no time."""
    bridge.synchronize()
    begin, end = bridge.timing_event(), bridge.timing_event()
    if begin is None or end is None:
        start = time.perf_counter_ns()
        for _ in range(runs):
            run()
        bridge.synchronize()
        return (time.perf_counter_ns() - start) / runs
    begin.record()
    for _ in range(runs):
        run()
    end.record()
    bridge.synchronize()
    return float(begin.elapsed_time(end)) * 1e6 / runs


def runs_per_sample(bridge: Bridge, run: Callable[[], None], sample_ms: float) -> int:
    """How many runs make a sample long enough."""
    once_ns = max(1.0, stretch_ns(bridge, run, 1))
    return max(1, min(MOST_RUNS, math.ceil(sample_ms * 1e6 / once_ns)))


@dataclass
class Tally:
    """Samples taken of a program, and how many had to be taken again because a graph was compiled meanwhile."""

    samples: int = 0
    again: int = 0

    def __str__(self) -> str:
        """For a gate."""
        return f"none in {self.samples} timed samples" + (f", {self.again} taken again" if self.again else "")


def sample_ns(bridge: Bridge, run: Callable[[], None], runs: int, bodies: list[int], tally: Tally) -> int:
    """One clean sample, which `tally` counts.

    Raises:
        OpFailedError: graphs were compiled, ops fell back or graphs were not replayed, twice.
    """
    trouble, hint = "", ""
    for _ in range(ATTEMPTS):
        before, calls = Counts.now(bridge), bodies[0]
        found = stretch_ns(bridge, run, runs)
        trouble, hint = _trouble(before, Counts.now(bridge), bodies[0] - calls)
        if not trouble:
            tally.samples += 1
            return max(1, round(found))
        tally.again += 1
    raise OpFailedError(f"cannot be timed: {trouble} while the clock ran", hint)


def _trouble(before: Counts, after: Counts, unreplayed: int) -> tuple[str, str]:
    """What happened that must not, and what it may come from."""
    found, hints = [], []
    if compiled := after.compiled_since(before):
        found.append(f"{compiled} graphs were compiled")
        hints.append("something changes from call to call")
    if fell := after.fell_since(before):
        found.append(f"ops ran on the CPU: {', '.join(fell)}")
        hints.append("this release has no kernel for them")
    if unreplayed:
        found.append(f"{unreplayed} calls ran without their graph")
        hints.append("a limit on graphs, or scalars that change")
    return " and ".join(found), "; ".join(hints)

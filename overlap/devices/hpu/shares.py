"""Times of ops out of one profile.

A graph compiler fuses vector ops and cuts matrix ops into slices, so a trace of a card has no row per op. What it has
is how long each engine was busy. An engine's busy time is shared out among its ops in proportion to what the model of
the chip expects of them: the sums are measured, the shares within them are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from overlap.program import Engine, Program


def busy_ns(events: pl.DataFrame, engine: str) -> int:
    """Union of an engine's rows."""
    rows = events.filter(pl.col("engine") == engine).sort("start_ns").select("start_ns", "end_ns").rows()
    total, until = 0, -(2**62)
    for start, end in rows:
        total += max(0, end - max(start, until))
        until = max(until, end)
    return total


def shared_times(events: pl.DataFrame, program: Program, expected: Sequence[int]) -> dict[str, int]:
    """Ns by `Kernel.key`, the mean over the ops that run it; kernels of engines without rows get 0."""
    sums: dict[Engine, int] = {}
    by_kernel: dict[str, list[int]] = {}
    engines: dict[str, Engine] = {}
    for op, ns in zip(program.ops, expected, strict=True):
        sums[op.engine] = sums.get(op.engine, 0) + ns
        by_kernel.setdefault(op.kernel.key, []).append(ns)
        engines[op.kernel.key] = op.engine
    busy = {engine: busy_ns(events, engine.value) for engine in sums}
    # Fused attention is one kernel on both engines; its rows count for the engine that its op is queued on.
    if Engine.MME in busy:
        busy[Engine.MME] += busy_ns(events, "FUSED")
    found = {}
    for key, times in by_kernel.items():
        engine = engines[key]
        found[key] = round(busy[engine] * sum(times) / len(times) / sums[engine]) if sums[engine] else 0
    return found

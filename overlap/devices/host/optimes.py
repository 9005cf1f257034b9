"""Times of kernels in isolation: the same code on the same engine's thread, with nothing on the other engine.

A kernel is timed on operands of its own (random, non-zero, of the geometry it was captured with), made once per kernel
and dropped afterwards. It is run in short batches until it has enough samples; the first run of a kernel is a warm-up.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch

from overlap.devices.host.plan import QUEUE_OF
from overlap.program import Op, Program, Ref
from overlap.stats import median

if TYPE_CHECKING:
    from overlap.devices.host.device import HostDevice


def isolated_times(device: HostDevice, program: Program, repeats: int, known: Collection[str]) -> dict[str, int]:
    """Median ns per kernel key that is not `known`."""
    times: dict[str, int] = {}
    for op in program.ops:
        if op.kernel.key not in times and op.kernel.key not in known:
            times[op.kernel.key] = _time_kernel(device, op, repeats)
    return times


def _time_kernel(device: HostDevice, op: Op, repeats: int) -> int:
    samples: list[int] = []

    def job() -> None:
        operands = [operand(ref) for ref in op.refs]
        for _ in range(repeats + 1):
            values = list(operands)
            begin = time.perf_counter_ns()
            made = op.kernel.run(values)
            samples.append(time.perf_counter_ns() - begin)
            del made

    device.on_engine(QUEUE_OF[op.engine], op.name, job)
    return int(median(samples[1:]))


def operand(ref: Ref) -> torch.Tensor:
    """A random tensor with the geometry of `ref`."""
    if not ref.size:
        return torch.ones((), dtype=ref.dtype)
    span = 1 + sum((size - 1) * stride for size, stride in zip(ref.size, ref.stride, strict=True))
    flat = torch.empty(span, dtype=ref.dtype).uniform_(0.1, 1.0)
    return flat.as_strided(ref.size, ref.stride)

"""The protocol every device answers, so that a search never knows what it runs on.

Terms
    runnable: a program in a fixed order, bound to its inputs, ready to run any number of times.
    gate: a named yes/no with the value it was decided on; a variant is kept only if all its gates passed.
    serial: one queue at a time; every op waits for the op before it. The same work without overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import polars as pl
import torch

from overlap.errors import MemoryLimitError
from overlap.program import Program
from overlap.queues import Cuts, QueueRules
from overlap.stats import Interval
from overlap.workload import Workload


@dataclass(frozen=True)
class DeviceInfo:
    """What a device is; goes into every file that carries a number.

    `evidence` is `measured` or `simulated`; `software` maps component to version. `computes` is false for a device
    that tells times but no values: what programs compute is then checked elsewhere. `fused_stack` is true where serving
    stacks run a fused attention of the device's own. `single_ops` is false where a compiler fuses and cuts ops, so that
    only the work of whole engines can be told, and `one_queue` where a program cannot run on one queue at a time.
    """

    kind: str
    name: str
    evidence: str
    memory_bytes: int
    software: Mapping[str, str] = field(default_factory=dict)
    computes: bool = True
    fused_stack: bool = False
    single_ops: bool = True
    one_queue: bool = True


@dataclass(frozen=True)
class Gate:
    """One check of a prepared variant."""

    passed: bool
    value: str


@dataclass(frozen=True)
class StackRun:
    """The window as a serving stack would run it, in the form that a device can use.

    `call` computes it with PyTorch's own modules; `program` captures it with the fused attention and a graph per layer,
    to run on `tensors` (by root name).
    """

    call: Callable[[], object]
    program: Callable[[], Program]
    tensors: Callable[[], Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Effect:
    """What one uncertain constant of a model does: times with it at the ends of its interval."""

    name: str
    at_low_ns: int
    at_high_ns: int
    source: str


@dataclass(frozen=True)
class Uncertainty:
    """A predicted time with its interval, and the constants behind it, the strongest first."""

    time_ns: int
    low_ns: float
    high_ns: float
    effects: tuple[Effect, ...]


def require_memory(program: Program, info: DeviceInfo, order: Sequence[int] | None = None) -> None:
    """Refuse a program whose inputs and live tensors need more than the device has, in `order` or program order.

    Raises:
        MemoryLimitError: with both numbers.
    """
    need = program.input_bytes() + program.peak_bytes(order)
    if need > info.memory_bytes:
        raise MemoryLimitError(
            f"{program.label} needs {need:,} bytes ({need / 2**30:.3g} GiB), {info.kind} has {info.memory_bytes:,}",
            "a smaller bucket, fewer window_layers or a larger tensor_parallel",
        )


class Runnable(Protocol):
    """A program in a fixed order on a device."""

    program: Program
    order: Sequence[int]

    def time(self, repeats: int) -> list[int]:
        """Run `repeats` times; wall time of each run in ns."""

    def profile(self) -> pl.DataFrame:
        """Run once; the event table (schema: `overlap.traces.schema`)."""

    def outputs(self) -> dict[str, torch.Tensor]:
        """Run once on poisoned memory; clones of the program's outputs by name."""

    @property
    def peak_bytes(self) -> int:
        """Most bytes alive at once beside the inputs, over the runs so far (runs once if there was none)."""

    def gates(self) -> dict[str, Gate]:
        """Checks that a variant must pass to be kept, by name."""

    def uncertainty(self) -> Uncertainty | None:
        """How far a predicted time may be off; None for a device that measures."""


class Device(Protocol):
    """Something that runs programs."""

    @property
    def info(self) -> DeviceInfo:
        """What it is."""

    def require(self, workload: Workload) -> None:
        """Raise `MemoryLimitError` for a workload that could not be served on this device at all."""

    def prepare(
        self,
        program: Program,
        order: Sequence[int],
        inputs: Mapping[str, torch.Tensor],
        *,
        serial: bool = False,
    ) -> Runnable:
        """Bind `program` in `order` to `inputs` (by root name)."""

    def op_times(
        self,
        program: Program,
        repeats: int,
        *,
        known: Collection[str] = (),
    ) -> dict[str, int]:
        """Median time in ns of every distinct kernel of `program` in isolation, by `Kernel.key`, less the `known`."""

    def predict_ns(self, program: Program, order: Sequence[int]) -> int | None:
        """Time of `program` in `order` without running it, where the device can tell; None where it cannot."""

    def expected_times(self, program: Program) -> list[int] | None:
        """Ns of every op as part of the whole program, where the device can tell without running it; None if not."""

    def least_times(self, program: Program) -> list[int] | None:
        """Ns that every op takes at least in any order; None where only `op_times` can tell, as a measurement."""

    def names(self, program: Program) -> frozenset[int]:
        """Ops that are no work, such as copies that only rename."""

    def cuts(self, program: Program) -> Cuts:
        """Edges on which the device may let the op behind start before the one before has ended."""

    @property
    def queue_rules(self) -> QueueRules:
        """What an order costs beside the work of the ops."""

    def time_stack(self, stack: StackRun, repeats: int) -> list[int]:
        """Times in ns of the window as a serving stack would run it on this device."""

    def speedup_interval(self, before: Runnable, after: Runnable) -> Interval | None:
        """Speed-up of `after` over `before`, over all that a model does not know; None for a device that measures."""

    def close(self) -> None:
        """Release threads and memory."""

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

from overlap.program import Program


@dataclass(frozen=True)
class DeviceInfo:
    """What a device is; goes into every file that carries a number.

    `evidence` is `measured` or `simulated`; `software` maps component to version.
    """

    kind: str
    name: str
    evidence: str
    memory_bytes: int
    software: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Gate:
    """One check of a prepared variant."""

    passed: bool
    value: str


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


class Device(Protocol):
    """Something that runs programs."""

    @property
    def info(self) -> DeviceInfo:
        """What it is."""

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

    def time_stack(self, call: Callable[[], object], repeats: int) -> list[int]:
        """Wall times in ns of `call`, which runs the window as a serving stack would on this device."""

    def close(self) -> None:
        """Release threads and memory."""

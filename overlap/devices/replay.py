"""A device that is not there: it answers from what a sweep has recorded, and refuses what was never recorded.

A sweep that is gone through again asks a device only for what its journal lacks. With the settings that were recorded
that is nothing; with others it may be a time that nobody took. Such a question has one of two answers:

    refused     `ReplayError`, which ends the replay: without the answer the decision would be another one
    lost        `OpFailedError`, which costs the sweep only the candidate or the factor that was asked for, and says
                why: a candidate that was dropped from the recorded race, a factor of a gain that was never attributed
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NoReturn

import polars as pl
import torch

from overlap.devices.base import DeviceInfo, Gate, StackRun
from overlap.devices.measuring import OnlyMeasures
from overlap.errors import OpFailedError, ReplayError
from overlap.program import Program
from overlap.traces.schema import filled

# (label of a program, serial) -> why its time is lost; empty if a missing time must be refused.
Lost = Callable[[str, bool], str]
UNRECORDED = "profile was not recorded"


class ReplayRunnable:
    """A program whose times are all in the journal, or nowhere."""

    def __init__(self, program: Program, order: Sequence[int], serial: bool, lost: Lost) -> None:
        self.program, self.order, self._serial, self._lost = program, order, serial, lost
        self._warm = False

    def time(self, repeats: int) -> list[int]:
        """The warm-up, whose times nobody reads, and nothing else."""
        if not self._warm:
            self._warm = True
            return [0] * repeats
        reason = self._lost(self.program.label, self._serial)
        if reason:
            raise OpFailedError(reason)
        _refuse(f"the times of {self.program.label}")

    def profile(self) -> pl.DataFrame:
        """One event that says that there is none."""
        row = {"engine": ["OTHER"], "lane": ["OTHER"], "name": [UNRECORDED], "start_ns": [0], "end_ns": [1]}
        return filled(pl.DataFrame(row))

    def outputs(self) -> dict[str, torch.Tensor]:
        """Nothing is computed."""
        _refuse(f"what {self.program.label} computes")

    @property
    def peak_bytes(self) -> int:
        """Checked with the outputs, so it was never asked for."""
        _refuse(f"the memory of {self.program.label}")

    def gates(self) -> dict[str, Gate]:
        """Checked with the outputs, so they were never asked for."""
        _refuse(f"the checks of {self.program.label}")

    def uncertainty(self) -> None:
        """It was measured."""
        return None


class ReplayDevice(OnlyMeasures):
    """The recorded device as far as its records go.

    Args:
        info: who took the records. `computes` should be false, so that no tensors are made for runs that cannot be.
        kernel_ns: what the kernels took in isolation, by key.
        lost: which missing times cost only what was asked for.
    """

    def __init__(self, info: DeviceInfo, kernel_ns: Mapping[str, int], lost: Lost) -> None:
        self.info = info
        self._kernel_ns = kernel_ns
        self._lost = lost

    def prepare(
        self, program: Program, order: Sequence[int], inputs: Mapping[str, torch.Tensor], *, serial: bool = False
    ) -> ReplayRunnable:
        """Nothing to bind."""
        return ReplayRunnable(program, order, serial, self._lost)

    def op_times(self, program: Program, repeats: int, *, known: Collection[str] = ()) -> dict[str, int]:
        """What was recorded."""
        keys = dict.fromkeys(op.kernel.key for op in program.ops)
        missing = [key for key in keys if key not in self._kernel_ns]
        if missing:
            _refuse(f"{len(missing)} kernel times of {program.label}")
        return {key: self._kernel_ns[key] for key in keys if key not in known}

    def time_stack(self, stack: StackRun, repeats: int) -> list[int]:
        """In the journal, or nowhere."""
        _refuse("the time of the stack")

    def close(self) -> None:
        """Nothing to close."""


def _refuse(what: str) -> NoReturn:
    raise ReplayError(
        f"never recorded: {what}", "replay with settings that ask for no more than was measured, or sweep again"
    )

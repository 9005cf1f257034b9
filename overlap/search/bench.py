"""The bench: everything that stands ready while candidates are timed, made when first needed.

A finished sweep that is run again needs no tensors and no device, so nothing here is made before it is asked for.
"""

from __future__ import annotations

from functools import cached_property

import torch

from overlap.devices.base import Device, Runnable
from overlap.kernels import inputs as window_inputs
from overlap.kernels.capture import capture
from overlap.kernels.inputs import Inputs
from overlap.kernels.reference import reference, relative_errors
from overlap.kernels.stock import run_stock
from overlap.program import Program
from overlap.search.candidate import Candidate
from overlap.search.order import PROGRAM, find_order, op_times
from overlap.split import Split
from overlap.workload import Workload


class Bench:
    """Programs, tensors and runnables of one sweep."""

    def __init__(self, workload: Workload, device: Device, kernel_ns: dict[str, int], seed: int) -> None:
        self.workload = workload
        self.device = device
        self.kernel_ns = kernel_ns
        self._seed = seed
        self._programs: dict[Split, Program] = {}
        self._runnables: dict[Candidate, Runnable] = {}
        self._stack_is_warm = False

    def program(self, split: Split) -> Program:
        """The captured program of a split."""
        if split not in self._programs:
            self._programs[split] = capture(self.workload, split)
        return self._programs[split]

    def times(self, split: Split) -> list[int]:
        """Ns per op of a split, from the kernel times known so far."""
        return op_times(self.program(split), self.kernel_ns)

    def order(self, candidate: Candidate) -> list[int]:
        """The order of a candidate's ops."""
        program = self.program(candidate.split)
        if candidate.order == PROGRAM:
            return list(range(len(program.ops)))
        return find_order(program, candidate.order, self.times(candidate.split))

    def runnable(self, candidate: Candidate) -> Runnable:
        """A candidate ready to run; prepared once, warmed up once."""
        if candidate not in self._runnables:
            runnable = self.device.prepare(
                self.program(candidate.split), self.order(candidate), self.tensors, serial=candidate.serial
            )
            runnable.time(1)
            self._runnables[candidate] = runnable
        return self._runnables[candidate]

    def errors(self, candidate: Candidate) -> dict[str, float]:
        """Relative L2 error per output against the fp32 reference, on poisoned memory."""
        return relative_errors(self.runnable(candidate).outputs(), self.truth, self.workload.bucket.context)

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Inputs by root name."""
        return window_inputs.make(self.workload, self._seed)

    @cached_property
    def truth(self) -> dict[str, torch.Tensor]:
        """Outputs of the fp32 reference."""
        with torch.inference_mode():
            return reference(self._assembled, self.workload)

    def time_stack(self) -> int:
        """One run, in ns, of what a serving stack would run; the first call warms it up."""
        if not self._stack_is_warm:
            self.device.time_stack(self._run_stack, 1)
            self._stack_is_warm = True
        return self.device.time_stack(self._run_stack, 1)[0]

    def _run_stack(self) -> torch.Tensor:
        return run_stock(self._assembled, self.workload)

    @cached_property
    def _assembled(self) -> Inputs:
        return window_inputs.assemble(self.workload, lambda name, _: self.tensors[name])

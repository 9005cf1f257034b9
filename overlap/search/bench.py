"""The bench: everything that stands ready while candidates are timed, made when first needed.

A finished sweep that is run again needs no tensors and no device, so nothing here is made before it is asked for.
"""

from __future__ import annotations

from functools import cached_property

import torch

from overlap.devices.base import Device, Runnable, StackRun
from overlap.devices.interpret import interpret
from overlap.kernels import inputs as window_inputs
from overlap.kernels.capture import capture
from overlap.kernels.inputs import Inputs
from overlap.kernels.reference import reference, relative_errors
from overlap.kernels.stock import run_stock
from overlap.program import Program, check_order
from overlap.search.candidate import Candidate
from overlap.search.config import PROGRAM, SEARCHED
from overlap.search.journal import Journal
from overlap.search.order import find_order, op_times
from overlap.search.orders.problem import Problem
from overlap.search.twin import twin
from overlap.split import Split, canonical
from overlap.workload import Workload


def stack_split(workload: Workload) -> Split:
    """What serving stacks run by default: fused causal attention in prefill, a graph per layer."""
    fused = workload.bucket.phase == "prefill"
    split = Split(fused_sdpa=fused, masked_blocks="skip" if fused else "compute", layers_per_graph=1)
    return canonical(split, workload)


class Bench:
    """Programs, tensors and runnables of one sweep."""

    def __init__(self, workload: Workload, device: Device, kernel_ns: dict[str, int], seed: int) -> None:
        self.workload = workload
        self.device = device
        self.kernel_ns = kernel_ns
        self._seed = seed
        self._programs: dict[Split, Program] = {}
        self._runnables: dict[Candidate, Runnable] = {}
        self._problems: dict[Split, Problem] = {}
        self._told: dict[Split, list[int] | None] = {}
        # Orders that were searched.
        self.searched: dict[Split, list[int]] = {}
        self._stack_is_warm = False

    def program(self, split: Split) -> Program:
        """The captured program of a split."""
        if split not in self._programs:
            self._programs[split] = capture(self.workload, split)
        return self._programs[split]

    def times(self, split: Split) -> list[int]:
        """Ns per op of a split, from the kernel times known so far."""
        return op_times(self.program(split), self.kernel_ns)

    def learn(self, split: Split, repeats: int, journal: Journal | None = None) -> None:
        """Time the kernels of a split that are not known yet, unless the device tells times of ops itself."""
        program = self.program(split)
        if self._expected(split) is None:
            fresh = self.device.op_times(program, repeats, known=self.kernel_ns)
            if fresh and journal is not None:
                journal.append("kernels", ns=fresh)
            self.kernel_ns.update(fresh)

    def problem(self, split: Split) -> Problem:
        """What an order search needs to know of a split; its kernels must have been learnt."""
        if split not in self._problems:
            program, device = self.program(split), self.device
            expected = self._expected(split)
            times = self.times(split) if expected is None else expected
            self._problems[split] = Problem.of(program, times, device.queue_rules, device.names(program))
        return self._problems[split]

    def _expected(self, split: Split) -> list[int] | None:
        """Times of ops that the device tells itself."""
        if split not in self._told:
            self._told[split] = self.device.expected_times(self.program(split))
        return self._told[split]

    def order(self, candidate: Candidate) -> list[int]:
        """The order of a candidate's ops."""
        program = self.program(candidate.split)
        if candidate.order == PROGRAM:
            return list(range(len(program.ops)))
        if candidate.order == SEARCHED:
            return self.searched[candidate.split]
        return find_order(program, candidate.order, self.problem(candidate.split))

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
        """Relative L2 error per output against the fp32 reference, on poisoned memory.

        Of the narrow twin on this machine's CPU, in the candidate's order, if the device computes no values.
        """
        if self.device.info.computes:
            return relative_errors(self.runnable(candidate).outputs(), self.truth, self.workload.bucket.context)
        small, split = twin(self.workload, candidate.split)
        program = capture(small, split)
        number = {op.name: index for index, op in enumerate(program.ops)}
        order = [number[self.program(candidate.split).ops[index].name] for index in self.order(candidate)]
        check_order(program, order)
        tensors = window_inputs.make(small, self._seed)
        with torch.inference_mode():
            truth = reference(window_inputs.assemble(small, lambda name, _: tensors[name]), small)
        return relative_errors(interpret(program, order, tensors), truth, small.bucket.context)

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Inputs by root name; none for a device that computes no values."""
        return window_inputs.make(self.workload, self._seed) if self.device.info.computes else {}

    @cached_property
    def truth(self) -> dict[str, torch.Tensor]:
        """Outputs of the fp32 reference."""
        with torch.inference_mode():
            return reference(self._assembled, self.workload)

    def time_stack(self) -> int:
        """One run, in ns, of what a serving stack would run; the first call warms it up."""
        stack = StackRun(self._run_stack, lambda: self.program(stack_split(self.workload)), lambda: self.tensors)
        if not self._stack_is_warm:
            self.device.time_stack(stack, 1)
            self._stack_is_warm = True
        return self.device.time_stack(stack, 1)[0]

    def _run_stack(self) -> torch.Tensor:
        return run_stock(self._assembled, self.workload)

    @cached_property
    def _assembled(self) -> Inputs:
        return window_inputs.assemble(self.workload, lambda name, _: self.tensors[name])

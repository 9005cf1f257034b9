"""One run of a plan: the state that the workers share, and the loop that each of them goes through its queue with."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import torch

from overlap.devices.host.plan import QUEUES, Plan
from overlap.errors import OpFailedError

# Finite, because masked blocks read cache rows before they are written; far from any value of a working model.
POISON = 100.0


def op_failed(name: str, error: BaseException) -> OpFailedError:
    """The error for an op that raised: its name, and the first line of what it raised."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return OpFailedError(f"op {name} failed: {text}", "the ops before it are fine")


class Run:
    """State of one run. Made fresh for every run; `roots` holds the live tensors.

    With `poison`, memory that ops fill piecewise holds `POISON` first. Otherwise it holds whatever was there, which in
    a pool can be the right result of an earlier run: a variant that forgets to write would pass for correct.
    """

    def __init__(self, plan: Plan, inputs: Mapping[str, torch.Tensor], poison: bool = False) -> None:
        program = plan.program
        self.plan = plan
        self._poison = poison
        self.roots: list[torch.Tensor | None] = [inputs[spec.name] if spec.name else None for spec in program.roots]
        self.start_ns = [0] * len(program.ops)
        self.end_ns = [0] * len(program.ops)
        self.peak_bytes = 0
        self.failure: tuple[str, BaseException] | None = None
        self.at: list[str] = ["not started"] * len(QUEUES)
        self._live_bytes = 0
        self._users = dict(plan.users)
        self._lock = threading.Lock()
        # One lock per expected signal, taken now and released by the op that is waited for.
        self._signals = {
            (op, waiter): threading.Lock() for op, waiters in enumerate(plan.signals) for waiter in waiters
        }
        for lock in self._signals.values():
            lock.acquire()

    def work(self, queue: int) -> None:
        """Run the ops of one queue in order; called on the queue's own thread."""
        program = self.plan.program
        name = ""
        try:
            for index in self.plan.queues[queue]:
                op = program.ops[index]
                name = op.name
                self._wait(queue, index, name)
                if self.failure is not None:
                    return
                self._run_op(index)
        except BaseException as error:  # the worker must survive whatever an op raises
            self.abort(name, error)
        self.at[queue] = "done"

    def abort(self, name: str, error: BaseException) -> None:
        """Stop all queues after their current op; the first failure is kept."""
        with self._lock:
            if self.failure is None:
                self.failure = (name, error)
        for lock in self._signals.values():
            if lock.locked():
                try:
                    lock.release()
                except RuntimeError:
                    continue  # its op signalled in between

    def raise_failure(self) -> None:
        """Raise what stopped the run, naming the op."""
        if self.failure is None:
            return
        name, error = self.failure
        if isinstance(error, KeyboardInterrupt):
            raise error
        raise op_failed(name, error) from error

    def _wait(self, queue: int, index: int, name: str) -> None:
        for other in self.plan.waits[index]:
            lock = self._signals[other, index]
            if not lock.acquire(blocking=False):
                self.at[queue] = f"{name} waits for {self.plan.program.ops[other].name}"
                lock.acquire()
        self.at[queue] = name

    def _run_op(self, index: int) -> None:
        """Resolve the refs, run the kernel, publish its results, free what it was the last to touch, signal."""
        op = self.plan.program.ops[index]
        roots, specs = self.roots, self.plan.program.roots
        values = []
        for ref in op.refs:
            root = roots[ref[0]]
            values.append(ref.strided(self._buffer(ref[0]) if root is None else root, specs[ref[0]].stride))
        kernel = op.kernel
        self.start_ns[index] = time.perf_counter_ns()
        made = kernel.run(values)
        self.end_ns[index] = time.perf_counter_ns()
        del values
        for root_index, tensor in zip(op.outputs, made, strict=True):
            roots[root_index] = tensor
        self._account(index, sum(kernel.output_bytes), kernel.scratch_bytes)
        for waiter in self.plan.signals[index]:
            try:
                self._signals[index, waiter].release()
            except RuntimeError:
                return  # the run was aborted meanwhile

    def _buffer(self, root: int) -> torch.Tensor:
        """Memory that several ops fill; the first to come makes it."""
        with self._lock:
            made = self.roots[root]
            if made is None:
                spec = self.plan.program.roots[root]
                assert spec.buffer, "a root that an op makes is there before anybody reads it"
                made = torch.empty_strided(spec.shape, spec.stride, dtype=spec.dtype)
                self.roots[root] = made.fill_(POISON) if self._poison else made
                self._live_bytes += spec.bytes
            return made

    def _account(self, index: int, new_bytes: int, scratch_bytes: int) -> None:
        """Count live bytes and drop roots that no later op touches."""
        users, program = self._users, self.plan.program
        with self._lock:
            self._live_bytes += new_bytes
            self.peak_bytes = max(self.peak_bytes, self._live_bytes + scratch_bytes)
            for root in program.touched(index):
                left = users.get(root, 0)
                if left == 1:
                    self.roots[root] = None
                    self._live_bytes -= program.roots[root].bytes
                if left:
                    users[root] = left - 1

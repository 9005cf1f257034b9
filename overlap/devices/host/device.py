"""`HostDevice`: runs programs on two engines made of cores, with real tensors and real clocks."""

from __future__ import annotations

import gc
import os
import platform
import queue
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import polars as pl
import torch

from overlap import __version__
from overlap.devices.base import DeviceInfo, Gate, StackRun, require_memory
from overlap.devices.config import DeviceConfig
from overlap.devices.host.memory import physical_memory_bytes, pool_memory
from overlap.devices.host.optimes import isolated_times
from overlap.devices.host.plan import QUEUES, Plan, make_plan
from overlap.devices.host.run import POISON, Run, op_failed
from overlap.devices.host.workers import CoreShare, Worker, share_cores
from overlap.devices.measuring import OnlyMeasures
from overlap.errors import DeviceError, OpFailedError
from overlap.program import Program
from overlap.traces.schema import filled


class HostDevice(OnlyMeasures):
    """Two queues on this machine's cores; see `overlap.devices.base.Device`."""

    def __init__(self, config: DeviceConfig) -> None:
        self._config = config
        self._shares = share_cores(config.mme_threads, config.tpc_threads, config.pin)
        self._pooled = pool_memory()
        self._workers = [Worker(engine.value, share) for engine, share in zip(QUEUES, self._shares, strict=True)]
        self.info = _describe(self._shares, self._pooled, config.memory_fraction)

    def prepare(
        self,
        program: Program,
        order: Sequence[int],
        inputs: Mapping[str, torch.Tensor],
        *,
        serial: bool = False,
    ) -> HostRunnable:
        """Bind `program` in `order`; raises `MemoryLimitError` if it cannot fit."""
        require_memory(program, self.info, order)
        missing = sorted(program.inputs.keys() - inputs.keys())
        if missing:
            raise DeviceError(f"input {missing[0]} of {program.label} is missing", "make the inputs from the workload")
        return HostRunnable(self, make_plan(program, order, serial), inputs)

    def execute(self, run: Run) -> int:
        """Run once; wall time in ns. Raises what an op raised, or names the op that waits if nothing moves."""
        done: queue.SimpleQueue[str] = queue.SimpleQueue()
        asked = finished = 0
        begin = time.perf_counter_ns()
        try:
            for number, worker in enumerate(self._workers):
                asked += 1
                worker.submit(lambda number=number: run.work(number), done)  # type: ignore[misc]
            while finished < asked:
                done.get(timeout=self._config.timeout_s)
                finished += 1
        except queue.Empty:
            run.abort("", TimeoutError())
            state = "; ".join(f"{engine.value} queue: {at}" for engine, at in zip(QUEUES, run.at, strict=True))
            raise OpFailedError(
                f"a queue did not end within {self._config.timeout_s:g} s. {state}", "raise device.timeout_s"
            ) from None
        except BaseException as stop:
            # Ctrl-C: let the ops that are running end, so that nothing writes into tensors that are reused or freed.
            run.abort("", stop)
            with suppress(queue.Empty):
                for _ in range(asked - finished):
                    done.get(timeout=self._config.timeout_s)
            raise
        end = time.perf_counter_ns()
        run.raise_failure()
        return end - begin

    def on_engine(self, queue_number: int, name: str, job: Callable[[], None]) -> None:
        """Run `job` on the thread of one engine and wait for it; raises `OpFailedError` with the op's `name`."""
        failure: list[BaseException] = []

        def guarded() -> None:
            try:
                job()
            except BaseException as error:
                failure.append(error)

        done: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._workers[queue_number].submit(guarded, done)
        try:
            done.get(timeout=self._config.timeout_s)
        except queue.Empty:
            raise OpFailedError(
                f"op {name} did not end within {self._config.timeout_s:g} s", "raise device.timeout_s"
            ) from None
        if failure:
            raise op_failed(name, failure[0]) from failure[0]

    def op_times(
        self,
        program: Program,
        repeats: int,
        *,
        known: Collection[str] = (),
    ) -> dict[str, int]:
        """Median time in ns of every distinct kernel in isolation, on its engine's thread."""
        return isolated_times(self, program, repeats, known)

    def time_stack(self, stack: StackRun, repeats: int) -> list[int]:
        """Wall times in ns of PyTorch's own layer on the calling thread with all cores."""
        threads = torch.get_num_threads()
        torch.set_num_threads(sum(share.threads for share in self._shares))
        try:
            with torch.inference_mode(), quiet_gc():
                return [_timed(stack.call) for _ in range(repeats)]
        finally:
            torch.set_num_threads(threads)

    def close(self) -> None:
        """End the worker threads."""
        for worker in self._workers:
            worker.close()


class HostRunnable:
    """A plan bound to inputs; see `overlap.devices.base.Runnable`."""

    def __init__(self, device: HostDevice, plan: Plan, inputs: Mapping[str, torch.Tensor]) -> None:
        self._device = device
        self._plan = plan
        self._inputs = inputs
        self._peak_bytes = 0
        self.program = plan.program
        self.order: Sequence[int] = plan.order

    def time(self, repeats: int) -> list[int]:
        """Wall times in ns."""
        with quiet_gc():
            return [self._once()[0] for _ in range(repeats)]

    def profile(self) -> pl.DataFrame:
        """Run once and return the event table; the origin of its clock is the start of the first op."""
        with quiet_gc():
            _, run = self._once()
        return _events(run)

    def outputs(self) -> dict[str, torch.Tensor]:
        """Run once with all memory that the program is to write set to `POISON` before; clones of the outputs."""
        for op in self.program.ops:
            for position in op.writes:
                ref = op.refs[position]
                if name := self.program.roots[ref.root].name:
                    ref.resolve(self._inputs[name]).fill_(POISON)
        _, run = self._once(poison=True)
        found = {}
        for name, ref in self.program.outputs.items():
            root = run.roots[ref.root]
            assert root is not None
            found[name] = ref.resolve(root).clone()
        return found

    @property
    def peak_bytes(self) -> int:
        """Most bytes alive at once beside the inputs."""
        if not self._peak_bytes:
            self._once()
        return self._peak_bytes

    def gates(self) -> dict[str, Gate]:
        """Memory is the only thing on the host that can go wrong without an exception."""
        need = self.program.input_bytes() + self.peak_bytes
        limit = self._device.info.memory_bytes
        return {"memory": Gate(need <= limit, f"{need / 2**20:.0f} of {limit / 2**20:.0f} MiB")}

    def uncertainty(self) -> None:
        """The host measures."""
        return None

    def _once(self, poison: bool = False) -> tuple[int, Run]:
        run = Run(self._plan, self._inputs, poison)
        wall_ns = self._device.execute(run)
        self._peak_bytes = max(self._peak_bytes, run.peak_bytes)
        return wall_ns, run


@contextmanager
def quiet_gc() -> Iterator[None]:
    """Collect now and not while the clock runs."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _timed(call: Callable[[], object]) -> int:
    begin = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - begin


def _events(run: Run) -> pl.DataFrame:
    """The stamps of a run as an event table."""
    ops = run.plan.program.ops
    origin = min(run.start_ns, default=0)
    order = run.plan.order
    frame = pl.DataFrame(
        {
            "engine": [ops[i].engine.value for i in order],
            "lane": [f"{ops[i].engine.value} 0" for i in order],
            "name": [ops[i].name for i in order],
            "kind": [ops[i].kernel.kind for i in order],
            "op_id": list(order),
            "layer": [ops[i].layer for i in order],
            "chunk": [ops[i].chunk for i in order],
            "phase": [ops[i].phase for i in order],
            "start_ns": [run.start_ns[i] - origin for i in order],
            "end_ns": [run.end_ns[i] - origin for i in order],
            "correlation": list(order),
            "flops": [ops[i].kernel.flops for i in order],
            "bytes": [ops[i].kernel.read_bytes + ops[i].kernel.write_bytes for i in order],
        }
    )
    return filled(frame)


def _describe(shares: Sequence[CoreShare], pooled: bool, memory_fraction: float) -> DeviceInfo:
    """Name, versions and memory of this machine; the name says so if the engines have no cores of their own."""
    threads = "+".join(str(share.threads) for share in shares)
    pinned = "" if all(share.cpus for share in shares) else ", not pinned"
    software = {
        "overlap": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "os": f"{platform.system()} {platform.release()}",
        "memory_pool": "glibc, freed memory kept" if pooled else "none",
    }
    return DeviceInfo(
        kind="host",
        name=f"host ({cpu_name()}, {threads} threads{pinned})",
        evidence="measured",
        memory_bytes=int(physical_memory_bytes() * memory_fraction),
        software=software,
    )


def cpu_name() -> str:
    """Model name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or os.uname().machine

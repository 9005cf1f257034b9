"""Stand-ins for tests: a device that computes for real but tells invented times, and programs made by hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence

import polars as pl
import torch

from overlap.devices.base import DeviceInfo, Gate, StackRun
from overlap.devices.measuring import OnlyMeasures
from overlap.errors import OpFailedError
from overlap.program import Engine, Kernel, Op, Program, check_order
from overlap.search.order import makespan_ns, op_times
from overlap.traces.schema import filled
from overlap.workload import ModelShape, Workload

SMALL = ModelShape(name="small", hidden=32, heads=4, kv_heads=2, head_dim=8, ffn=48, layers=4, dtype="float32")

# Time in ns of one run: (program label, order, serial) -> ns, called anew for every run.
Clock = Callable[["FakeRunnable"], int]


def small_workload(**bucket: object) -> Workload:
    """A workload that runs in a millisecond."""
    from overlap.workload import Bucket

    return Workload(SMALL, Bucket(**{"query": 16, **bucket}))  # type: ignore[arg-type]


def run_program(program: Program, order: Sequence[int], inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Run a program op by op in `order`; the plainest interpreter there can be."""
    roots = [
        inputs[spec.name]
        if spec.name
        else torch.empty_strided(spec.shape, spec.stride, dtype=spec.dtype).fill_(float("nan"))
        if spec.buffer
        else None
        for spec in program.roots
    ]
    for index in order:
        op = program.ops[index]
        made = op.kernel.run([ref.resolve(roots[ref.root]) for ref in op.refs])  # type: ignore[arg-type]
        for root, tensor in zip(op.outputs, made, strict=True):
            roots[root] = tensor
    return {name: ref.resolve(roots[ref.root]).clone() for name, ref in program.outputs.items()}  # type: ignore[arg-type]


class FakeRunnable:
    """Computes with `run_program`, times with the device's clock."""

    def __init__(
        self, device: FakeDevice, program: Program, order: Sequence[int], inputs: Mapping, serial: bool
    ) -> None:
        check_order(program, order)
        self.device, self.program, self.order, self.serial = device, program, order, serial
        self._inputs = inputs

    @property
    def makespan_ns(self) -> int:
        """What the queues would take."""
        times = op_times(self.program, self.device.kernel_times(self.program))
        return makespan_ns(self.program, self.order, times, self.serial)

    def time(self, repeats: int) -> list[int]:
        """Invented times."""
        return [self.device.clock(self) for _ in range(repeats)]

    def profile(self) -> pl.DataFrame:
        """One event per op, one after the other."""
        rows, now = [], 0
        times = op_times(self.program, self.device.kernel_times(self.program))
        for op in self.order:
            node = self.program.ops[op]
            rows.append((node.engine.value, node.name, now, now + times[op]))
            now += times[op]
        frame = pl.DataFrame(rows, schema=["engine", "name", "start_ns", "end_ns"], orient="row")
        return filled(frame.with_columns(lane=pl.col("engine")))

    def outputs(self) -> dict[str, torch.Tensor]:
        """Real outputs, unless the device was told to spoil this program."""
        found = run_program(self.program, self.order, self._inputs)
        if self.device.spoils and self.device.spoils in self.program.label:
            found["hidden"] = found["hidden"] * 1.5
        return found

    @property
    def peak_bytes(self) -> int:
        """By the static count."""
        return self.program.peak_bytes(self.order)

    def uncertainty(self) -> None:
        """Invented times are exact."""
        return None

    def gates(self) -> dict[str, Gate]:
        """One gate, which the device can be told to fail."""
        return {
            "memory": Gate(not (self.device.fails_gate and self.device.fails_gate in self.program.label), "told so")
        }


class FakeDevice(OnlyMeasures):
    """Two queues whose ops cost by their work; `clock` adds whatever noise a test wants."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.info = DeviceInfo("fake", "fake", "simulated", 2**40, {"fake": "1"})
        self.clock: Clock = clock or (lambda runnable: runnable.makespan_ns)
        self.spoils = self.fails_gate = self.crashes = ""
        self.runs = 0

    def kernel_times(self, program: Program) -> dict[str, int]:
        """1 ns per 64 flops or per element, at least 100."""
        return {
            op.kernel.key: max(100, op.kernel.flops // 64, op.kernel.elements if op.engine is Engine.TPC else 0)
            for op in program.ops
        }

    def prepare(
        self, program: Program, order: Sequence[int], inputs: Mapping[str, torch.Tensor], *, serial: bool = False
    ) -> FakeRunnable:
        """Bind; raises for the program that was told to crash."""
        if self.crashes and self.crashes in program.label:
            raise OpFailedError("op x failed: told so")
        return FakeRunnable(self, program, order, inputs, serial)

    def op_times(self, program: Program, repeats: int, *, known: Collection[str] = ()) -> dict[str, int]:
        """By work."""
        return {key: ns for key, ns in self.kernel_times(program).items() if key not in known}

    def time_stack(self, stack: StackRun, repeats: int) -> list[int]:
        """Run it, and say 1 ms."""
        for _ in range(repeats):
            stack.call()
        return [1_000_000] * repeats

    def close(self) -> None:
        """Nothing to close."""


def kernel(engine: Engine, key: str) -> Kernel:
    """A kernel without code."""
    return Kernel(key, engine, "gemm", (), 0, 0, (), (), 0, 0, 0, 0, 0)


def program_of(
    edges: Sequence[Sequence[int]], engines: Sequence[Engine], graphs: Sequence[int] | None = None
) -> Program:
    """A program without code: `edges[i]` are the predecessors of op i."""
    ops = tuple(
        Op(f"op{i}", kernel(engine, f"k{i}"), (), (), (), (), 0, 0, "", graphs[i] if graphs else 0)
        for i, engine in enumerate(engines)
    )
    return Program(ops, (), {}, tuple(tuple(sorted(set(before))) for before in edges), "by hand")


def random_program(rng: random.Random, most: int = 7) -> Program:
    """A small random program."""
    count = rng.randint(1, most)
    edges = [[j for j in range(i) if rng.random() < 0.35] for i in range(count)]
    graphs = sorted(rng.randint(0, 1) for _ in range(count))
    return program_of(edges, [rng.choice([Engine.MME, Engine.TPC]) for _ in range(count)], graphs)


def random_order(program: Program, rng: random.Random) -> list[int]:
    """A random topological order that keeps graphs apart."""
    left, order = set(range(len(program.ops))), []
    while left:
        graph = min(program.ops[op].graph for op in left)
        able = [op for op in left if program.ops[op].graph == graph and not left.intersection(program.predecessors[op])]
        order.append(rng.choice(sorted(able)))
        left.remove(order[-1])
    return order

"""A captured attention block: ops on engines, the tensors they touch, and the edges between them.

Terms
    root: a tensor that owns its memory. Views never are tensors of a program.
    ref: how an op sees a root: a chain of view calls and the geometry (size, stride, offset) they end in.
    kernel: the straight-line code of an op over its refs; ops that do the same work share one kernel.
    edge: op a must end before op b starts, because b reads what a wrote (RAW), or overwrites what a read (WAR) or
        wrote (WAW). Refs to disjoint boxes of one root (two chunks of a KV cache) make no edge.
    graph: ops of graph g+1 start only when graph g is done on every engine (a fence, like between two recipes).

Contract: `ops` are in program order, which is a topological order of `edges`; indices are positions in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

import torch

from overlap.errors import ProgramError


class Engine(str, Enum):
    """The engines of an accelerator, each fed by one in-order queue."""

    MME = "MME"
    TPC = "TPC"
    DMA = "DMA"
    NIC = "NIC"


class Slot(NamedTuple):
    """A local value of a kernel: one of its inputs, or the result of one of its steps."""

    at: int


class Call(NamedTuple):
    """One ATen call; arguments may hold `Slot`s at any depth. `out` are the slots that it fills."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: tuple[int, ...]


class ViewCall(NamedTuple):
    """One step of a view chain: `func(tensor, *args)`, and which output where there are several (-1: the only one)."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    pick: int = -1


class Ref(NamedTuple):
    """How an op sees a root."""

    root: int
    chain: tuple[ViewCall, ...]
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Bytes that the ref covers (expanded dimensions count once)."""
        count = 1
        for size, stride in zip(self.size, self.stride, strict=True):
            count *= size if stride else 1
        return count * self.dtype.itemsize

    def strided(self, root: torch.Tensor, captured_stride: tuple[int, ...]) -> torch.Tensor:
        """The same view in one call, for devices whose tensors are plain strided memory.

        Falls back to the chain where the real root is not laid out as the captured one was.
        """
        if not self.chain:
            return root
        if self.dtype != root.dtype or root.stride() != captured_stride:
            return self.resolve(root)
        return root.as_strided(self.size, self.stride, self.offset)

    def resolve(self, root: torch.Tensor) -> torch.Tensor:
        """Apply the chain to the real root."""
        for func, args, pick in self.chain:
            made = func(root, *args)
            root = made if pick < 0 else made[pick]
        return root


class Geometry(NamedTuple):
    """Size, stride and dtype of a tensor that a call sees or makes."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class CallWork(NamedTuple):
    """What one ATen call does: its name without `aten::`, its tensors, flops of matrix calls, elements of vector calls.

    `given` are the tensor arguments in order, `made` the results; a call that writes in place makes what it was given.
    """

    name: str
    given: tuple[Geometry, ...] = ()
    made: tuple[Geometry, ...] = ()
    flops: int = 0
    elements: int = 0


@dataclass(frozen=True)
class Kernel:
    """The code of an op and what it costs.

    `key` is a content hash of the calls and of the geometry of the inputs, stable across processes: ops with equal keys
    do equal work. `flops` counts multiply-adds twice (GEMMs only), `elements` the values that vector calls produce;
    `work` says the same call by call, for devices that are modelled.
    """

    key: str
    engine: Engine
    kind: str
    calls: tuple[Call, ...]
    inputs: int
    slots: int
    outputs: tuple[int, ...]
    output_bytes: tuple[int, ...]
    flops: int
    elements: int
    read_bytes: int
    write_bytes: int
    scratch_bytes: int
    work: tuple[CallWork, ...] = ()

    def run(self, values: list[Any]) -> list[torch.Tensor]:
        """Run on resolved inputs; returns the new roots, one per entry of `outputs`."""
        values.extend([None] * (self.slots - len(values)))
        for func, args, kwargs, out in self.calls:
            made = func(*bind(args, values), **bind(kwargs, values)) if kwargs else func(*bind(args, values))
            if len(out) == 1:
                values[out[0]] = made
            elif out:
                for slot, value in zip(out, made, strict=True):
                    values[slot] = value
        return [values[slot] for slot in self.outputs]


def bind(template: Any, values: Sequence[Any]) -> Any:
    """Replace the slots in an argument template by their values."""
    kind = type(template)
    if kind is Slot:
        return values[template[0]]
    if kind is tuple or kind is list:
        return kind([bind(item, values) for item in template])
    if kind is dict:
        return {name: bind(item, values) for name, item in template.items()}
    return template


class Op(NamedTuple):
    """One node: a kernel applied to refs. `reads`/`writes` are positions in `refs`, `outputs` the roots it creates."""

    name: str
    kernel: Kernel
    refs: tuple[Ref, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    outputs: tuple[int, ...]
    layer: int
    chunk: int
    phase: str
    graph: int

    @property
    def engine(self) -> Engine:
        """The engine whose queue the op enters."""
        return self.kernel.engine


class RootSpec(NamedTuple):
    """Geometry of a root. `name` is set for the inputs of a program; `buffer` marks memory that ops fill piecewise."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    bytes: int
    name: str = ""
    buffer: bool = False


@dataclass(frozen=True)
class Program:
    """Ops in program order, their roots and edges.

    `outputs` names the refs that a caller gets back; `predecessors[i]` are the ops that must end before op i starts.
    """

    ops: tuple[Op, ...]
    roots: tuple[RootSpec, ...]
    outputs: Mapping[str, Ref]
    predecessors: tuple[tuple[int, ...], ...]
    label: str = ""

    @cached_property
    def inputs(self) -> dict[str, int]:
        """Input roots by name."""
        return {spec.name: root for root, spec in enumerate(self.roots) if spec.name}

    @cached_property
    def successors(self) -> tuple[tuple[int, ...], ...]:
        """The edges the other way round."""
        after: list[list[int]] = [[] for _ in self.ops]
        for op, before in enumerate(self.predecessors):
            for one in before:
                after[one].append(op)
        return tuple(tuple(ops) for ops in after)

    @cached_property
    def fingerprint(self) -> str:
        """Content hash of kernels and edges: equal fingerprints mean the same work in the same program order."""
        text = "\n".join(
            f"{op.name} {op.kernel.key} {before}" for op, before in zip(self.ops, self.predecessors, strict=True)
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def engines(self) -> list[Engine]:
        """Engines that have work, in the order of `Engine`."""
        used = {op.engine for op in self.ops}
        return [engine for engine in Engine if engine in used]

    def input_bytes(self) -> int:
        """Bytes of weights, cache and other inputs."""
        return sum(spec.bytes for spec in self.roots if spec.name)

    def peak_bytes(self, order: Iterable[int] | None = None) -> int:
        """Peak of live bytes beside the inputs if ops ran one by one in `order`, roots freed after the last use."""
        sequence = list(range(len(self.ops)) if order is None else order)
        last: dict[int, int] = {}
        for position, index in enumerate(sequence):
            for root in self.touched(index):
                last[root] = position
        keep = {ref.root for ref in self.outputs.values()}
        dies: dict[int, list[int]] = {}
        for root, position in last.items():
            if root not in keep and not self.roots[root].name:
                dies.setdefault(position, []).append(root)
        live = peak = 0
        born: set[int] = set()
        for position, index in enumerate(sequence):
            fresh = [root for root in self.touched(index) if root not in born and not self.roots[root].name]
            born.update(fresh)
            live += sum(self.roots[root].bytes for root in fresh)
            peak = max(peak, live + self.ops[index].kernel.scratch_bytes)
            live -= sum(self.roots[root].bytes for root in dies.get(position, ()))
        return peak

    def touched(self, index: int) -> set[int]:
        """Roots that op `index` reads, writes or creates."""
        op = self.ops[index]
        return {ref.root for ref in op.refs}.union(op.outputs)


def check_order(program: Program, order: Sequence[int]) -> None:
    """Raise `ProgramError` unless `order` holds every op once, after its predecessors and within its graph.

    Queues that are cut out of such an order cannot deadlock: the first unfinished op of the order never waits.
    """
    if sorted(order) != list(range(len(program.ops))):
        raise ProgramError(f"an order of {len(order)} entries for {len(program.ops)} ops", "every op once")
    done: set[int] = set()
    graph = 0
    for index in order:
        op = program.ops[index]
        missing = [one for one in program.predecessors[index] if one not in done]
        if missing:
            raise ProgramError(
                f"order puts {op.name} before {program.ops[missing[0]].name}, whose result it needs",
                "an order must be topological",
            )
        if op.graph < graph:
            raise ProgramError(f"order puts {op.name} after graph {graph} began", "graphs are fenced off")
        graph = op.graph
        done.add(index)

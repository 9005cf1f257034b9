"""A program in an order, cut at its fences into segments: straight code from tensors to tensors.

Terms
    segment: the ops of one graph, in the order they are to be emitted. Nothing crosses a fence but tensors.
    takes: roots that are there before the segment.
    written: what of its `takes` the segment writes, as positions with the part of the tensor there.
    gives: roots that the segment makes and that somebody needs afterwards.
Collectives are left out: one process holds one card's shard and has no peers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from overlap.program import Engine, Kernel, Op, Program, Ref

Straight = Callable[..., tuple[torch.Tensor, ...]]
# `(before, after) → after`: the same tensor, which now waits for the other one.
Edge = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _as_written(kernel: Kernel) -> None:
    return None


@dataclass(frozen=True)
class Ways:
    """How ops are run: `calls` by operator and `kernel` by content replace what the device does in its own way.

    `edge` ties every op to the one before it on its engine.
    """

    calls: Mapping[Any, Callable[..., Any]] = field(default_factory=dict)
    kernel: Callable[[Kernel], Callable[[list[Any]], Any] | None] = _as_written
    edge: Edge | None = None


@dataclass(frozen=True)
class Segment:
    """Ops between two fences."""

    graph: int
    ops: tuple[int, ...]
    takes: tuple[int, ...]
    written: tuple[tuple[int, Ref], ...]
    gives: tuple[int, ...]


def segments(program: Program, order: Sequence[int]) -> list[Segment]:
    """`order` cut where the graph changes; collectives are dropped."""
    runs: list[tuple[int, list[int]]] = []
    for index in order:
        if program.ops[index].engine is Engine.NIC:
            continue
        graph = program.ops[index].graph
        if not runs or runs[-1][0] != graph:
            runs.append((graph, []))
        runs[-1][1].append(index)
    there = {root for root, spec in enumerate(program.roots) if spec.name}
    needed_later = _needed_later(program, [ops for _, ops in runs])
    found = []
    for (graph, ops), needed in zip(runs, needed_later, strict=True):
        touched = {root for index in ops for root in program.touched(index)}
        made = touched - there
        takes = tuple(sorted(touched & there))
        targets = [program.ops[index].refs[at] for index in ops for at in program.ops[index].writes]
        written = tuple(dict.fromkeys((takes.index(ref.root), ref) for ref in targets if ref.root in takes))
        found.append(Segment(graph, tuple(ops), takes, written, tuple(sorted(made & needed))))
        there |= made
    return found


def _needed_later(program: Program, runs: Sequence[Sequence[int]]) -> list[set[int]]:
    """Roots that are touched behind each run, or that the caller gets back."""
    needed = {ref.root for ref in program.outputs.values()}
    found: list[set[int]] = []
    for ops in reversed(runs):
        found.append(set(needed))
        needed |= {root for index in ops for root in program.touched(index)}
    return found[::-1]


def straight(program: Program, segment: Segment, ways: Ways) -> Straight:
    """The segment as a function of its `takes`, returning its `gives`; it can be traced, for no value decides in it."""
    runners = {index: _runner(program.ops[index].kernel, ways) for index in segment.ops}

    def run(*taken: torch.Tensor) -> tuple[torch.Tensor, ...]:
        roots: dict[int, torch.Tensor] = dict(zip(segment.takes, taken, strict=True))
        last: dict[Engine, torch.Tensor] = {}
        for index in segment.ops:
            op = program.ops[index]
            values: list[Any] = []
            for ref in op.refs:
                if ref.root not in roots:
                    roots[ref.root] = _buffer(program, ref.root, taken[0])
                values.append(ref.resolve(roots[ref.root]))
            if ways.edge is not None and op.engine in last:
                _tie(ways.edge, last[op.engine], op, values)
            for root, tensor in zip(op.outputs, runners[index](values), strict=True):
                roots[root] = tensor
            last[op.engine] = roots[op.outputs[0] if op.outputs else op.refs[op.writes[0]].root]
        return tuple(roots[root] for root in segment.gives)

    return run


def _tie(edge: Edge, before: torch.Tensor, op: Op, values: list[Any]) -> None:
    """Make the first operand that `op` only reads wait for `before`."""
    position = next((one for one in op.reads if one not in op.writes), None)
    if position is not None:
        values[position] = edge(before, values[position])


def _buffer(program: Program, root: int, like: torch.Tensor) -> torch.Tensor:
    spec = program.roots[root]
    assert spec.buffer, f"root {root} of {program.label} is read before it is made"
    made = like.new_empty(spec.shape, dtype=spec.dtype)
    # Plain memory wherever it will do: every release has a kernel for that.
    return made if made.stride() == spec.stride else like.new_empty_strided(spec.shape, spec.stride, dtype=spec.dtype)


def _runner(kernel: Kernel, ways: Ways) -> Callable[[list[Any]], Any]:
    """`Kernel.run`, with what the device does in its own way."""
    own = ways.kernel(kernel)
    if own is not None:
        return own
    calls = tuple(call._replace(func=ways.calls.get(call.func, call.func)) for call in kernel.calls)
    return replace(kernel, calls=calls).run


class Roots:
    """The live tensors of a program between its segments."""

    def __init__(self, program: Program, inputs: Mapping[str, torch.Tensor]) -> None:
        self._program = program
        self._named = {root: inputs[name] for name, root in program.inputs.items() if name in inputs}
        self._made: dict[int, torch.Tensor] = {}

    def taken(self, segment: Segment) -> tuple[torch.Tensor, ...]:
        """What a segment takes."""
        return tuple(self._named[root] if root in self._named else self._made[root] for root in segment.takes)

    def named(self, root: int) -> torch.Tensor:
        """An input."""
        return self._named[root]

    def put(self, segment: Segment, given: Sequence[torch.Tensor]) -> None:
        """Keep what a segment gave."""
        self._made.update(zip(segment.gives, given, strict=True))

    def outputs(self) -> dict[str, torch.Tensor]:
        """Clones of the program's outputs: on replays the tensors themselves are the same ones again."""
        found = {}
        for name, ref in self._program.outputs.items():
            root = self._named[ref.root] if ref.root in self._named else self._made[ref.root]
            found[name] = ref.resolve(root).clone()
        return found

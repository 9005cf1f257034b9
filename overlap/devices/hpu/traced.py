"""A segment as an FX graph without mutation, as `torch.compile` and PyTorch's `hints_wrapper` want it.

`hints_wrapper` takes functions only: no writes into what they are given. The segment is therefore traced once on fake
tensors, made functional; what it would have written into its inputs (K and V) becomes further results, and only those
parts are copied into the inputs, outside of the wrapped function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensorMode, dispatch_functionalize
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from overlap.devices.hpu.segments import Straight
from overlap.program import Ref

STRICT = "strict"
Written = Sequence[tuple[int, Ref]]


class Functional(torch.nn.Module):
    """A segment whose body mutates nothing; with `wrapper`, the compiler is told to keep the body's order.

    Args:
        body: gives the segment's results, then the new contents of what it writes.
        store: copies these contents, behind the inputs, to where they belong; None if nothing is written.
        wrapper: PyTorch's `hints_wrapper`, or None.
        group: number of the group of hints.
    """

    def __init__(
        self, body: GraphModule, store: GraphModule | None, wrapper: Callable[..., Any] | None, group: int
    ) -> None:
        super().__init__()
        self.body = body
        self.store = store
        # The store takes all that the body takes, and the contents behind it.
        self._writes = 0 if store is None else _inputs(store) - _inputs(body)
        self._wrapper = wrapper
        self._hints = {"schedule_policy": STRICT, "group_id": group}

    def forward(self, *taken: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Results of the segment."""
        wrapper, body = self._wrapper, self.body
        found: Sequence[torch.Tensor] = body(*taken) if wrapper is None else wrapper(body, taken, {}, hints=self._hints)
        if self.store is None:
            return tuple(found)
        results = len(found) - self._writes
        self.store(*taken, *found[results:])
        return tuple(found[:results])


def trace(run: Straight, taken: Sequence[torch.Tensor], written: Written) -> tuple[GraphModule, GraphModule | None]:
    """`run` as a graph without mutation, and the graph that stores what it would have written."""

    def with_contents(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # Copies: results of a wrapped function may not share memory, and parts of one cache would.
        return (*run(*values), *(ref.resolve(values[position]).clone() for position, ref in written))

    def store(*values: torch.Tensor) -> None:
        for (position, ref), content in zip(written, values[len(taken) :], strict=True):
            ref.resolve(values[position]).copy_(content)

    # Not `torch.func.functionalize`: it refuses the bridge's autograd functions.
    functional = dispatch_functionalize(with_contents, FunctionalTensorMode())
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(tensor) for tensor in taken]
        body: GraphModule = make_fx(functional)(*fake)
        contents = [ref.resolve(fake[position]).clone() for position, ref in written]
        epilogue: GraphModule | None = make_fx(store)(*fake, *contents) if written else None
    body.graph.eliminate_dead_code()
    body.recompile()
    return body, epilogue


def _inputs(graph: GraphModule) -> int:
    return sum(node.op == "placeholder" for node in graph.graph.nodes)

"""A segment as an FX graph without mutation, as `torch.compile` and PyTorch's `hints_wrapper` want it.

`hints_wrapper` takes functions only: no writes into what they are given. The segment is therefore traced once under
`functionalize` on fake tensors; what it would have written into its inputs (K and V) becomes further results, which are
copied into the inputs outside of the wrapped function.
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

STRICT = "strict"


class Functional(torch.nn.Module):
    """A segment whose body mutates nothing; with `hints`, the compiler is told to keep the body's order.

    Args:
        body: gives the segment's results, then the new content of the inputs at `written`.
        written: positions of inputs that are overwritten.
        wrapper: PyTorch's `hints_wrapper`, or None.
        group: number of the group of hints.
    """

    def __init__(
        self, body: GraphModule, written: Sequence[int], wrapper: Callable[..., Any] | None, group: int
    ) -> None:
        super().__init__()
        self.body = body
        self._written = tuple(written)
        self._wrapper = wrapper
        self._hints = {"schedule_policy": STRICT, "group_id": group}

    def forward(self, *taken: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Results of the segment."""
        wrapper, body = self._wrapper, self.body
        found: Sequence[torch.Tensor] = body(*taken) if wrapper is None else wrapper(body, taken, {}, hints=self._hints)
        results = len(found) - len(self._written)
        for position, value in zip(self._written, found[results:], strict=True):
            taken[position].copy_(value)
        return tuple(found[:results])


def trace(run: Straight, taken: Sequence[torch.Tensor], written: Sequence[int]) -> GraphModule:
    """`run` as a graph without mutation; behind its results come the new contents of the inputs at `written`."""

    def with_contents(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (*run(*values), *(values[position] for position in written))

    # Not `torch.func.functionalize`: it refuses the bridge's autograd functions.
    functional = dispatch_functionalize(with_contents, FunctionalTensorMode())
    with FakeTensorMode() as mode:
        graph: GraphModule = make_fx(functional)(*(mode.from_tensor(tensor) for tensor in taken))
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph

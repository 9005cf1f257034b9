"""HPU graphs with their traps: outputs are the same tensors on every replay, scalars are hashed by value, and beyond
`max_graphs` calls run without a graph and say nothing."""

from __future__ import annotations

import os
from typing import Any

import torch

from habana_frameworks.torch import core
from habana_frameworks.torch.card import CARD, Node, Recorder, misbehave, trait


def wrap_in_hpu_graph(
    module: Any,
    asynchronous: bool = False,
    disable_tensor_cache: bool = False,
    dry_run: bool = False,
    max_graphs: int | None = None,
) -> Any:
    """Replaces `module.forward`."""
    # Only this spelling is true, and it wins over the argument.
    spelled = os.environ.get("PT_HPUGRAPH_DISABLE_TENSOR_CACHE")
    CARD.tensor_cache = not (disable_tensor_cache if spelled is None else spelled == "1")
    original, cache = module.forward, {}
    if trait("few_graphs"):
        max_graphs = 0

    def forward(*args: Any, **kwargs: Any) -> Any:
        key = input_hash((args, kwargs))
        if key in cache:
            CARD.replays += 1
            return cache[key].replay(args, kwargs)
        if max_graphs is not None and len(cache) >= max_graphs:
            CARD.ungraphed += 1
            return original(*args, **kwargs)
        core.mark_step()
        cache[key] = _Captured(original, args, kwargs)
        return cache[key].outputs

    module.forward = forward
    module.clear_cache = cache.clear
    return module


def input_hash(value: Any) -> Any:
    """Tensors by shape, everything else by value."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, (tuple, list)):
        return tuple(input_hash(one) for one in value)
    if isinstance(value, dict):
        return tuple((name, input_hash(one)) for name, one in value.items())
    return value


class _Captured:
    """Ops that were run once, to be run again without their Python code."""

    def __init__(self, run: Any, args: Any, kwargs: Any) -> None:
        self._inputs = _tensors([*args, *kwargs.values()])
        with Recorder(keep=True) as seen:
            self.outputs = run(*args, **kwargs)
        misbehave(sum(node.engine == "MME" for node in seen.nodes))
        self._calls = seen.calls
        self._nodes = [(node.name, node.engine, node.reads, node.writes, node.ns) for node in seen.nodes]
        self._launch()

    def _launch(self) -> None:
        core._lazy.nodes.clear()
        CARD.launch([Node(*one) for one in self._nodes])

    def replay(self, args: Any, kwargs: Any) -> Any:
        """Run on other inputs, and fill the same outputs again."""
        now = {id(old): new for old, new in zip(self._inputs, _tensors([*args, *kwargs.values()]), strict=True)}

        def current(value: Any) -> Any:
            if isinstance(value, (tuple, list)):
                return type(value)(current(one) for one in value)
            return now.get(id(value), value)

        for func, one, named, made in self._calls:
            again = func(*current(one), **{name: current(value) for name, value in named.items()})
            now |= {id(old): new for old, new in zip(_tensors(made), _tensors(again), strict=True)}
        for output in _tensors(self.outputs):
            if now[id(output)] is not output:
                output.copy_(now[id(output)])
        self._launch()
        return self.outputs


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [one for item in value for one in _tensors(item)] if isinstance(value, (tuple, list)) else []

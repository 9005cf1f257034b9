"""HPU graphs with their traps: outputs are the same tensors on every replay, scalars are hashed by value, and beyond
`max_graphs` calls run without a graph and say nothing."""

from __future__ import annotations

import os
from typing import Any

import torch

from habana_frameworks.torch import core
from habana_frameworks.torch.card import CARD, Node, Recorder


def wrap_in_hpu_graph(
    module: Any,
    asynchronous: bool = False,
    disable_tensor_cache: bool = False,
    dry_run: bool = False,
    max_graphs: int | None = None,
) -> Any:
    """Replaces `module.forward`."""
    if os.environ.get("PT_HPUGRAPH_DISABLE_TENSOR_CACHE") is not None:
        # Only this spelling is true.
        disable_tensor_cache = os.environ["PT_HPUGRAPH_DISABLE_TENSOR_CACHE"] == "1"
    original, cache = module.forward, {}

    def forward(*args: Any, **kwargs: Any) -> Any:
        key = input_hash((args, kwargs))
        if key in cache:
            CARD.replays += 1
            return cache[key].replay()
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
        with Recorder(keep=True) as seen:
            self.outputs = run(*args, **kwargs)
        self._calls = seen.calls
        self._nodes = [(node.name, node.engine, node.reads, node.writes, node.ns) for node in seen.nodes]
        self._launch()

    def _launch(self) -> None:
        assert core._lazy is not None
        core._lazy.nodes.clear()
        CARD.launch([Node(*one) for one in self._nodes])

    def replay(self) -> Any:
        """Fill the same tensors again."""
        for func, args, kwargs, made in self._calls:
            again = func(*args, **kwargs)
            if func._schema.is_mutable:
                continue
            for old, new in zip(_tensors(made), _tensors(again), strict=True):
                if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)
        self._launch()
        return self.outputs


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [one for item in value for one in _tensors(item)] if isinstance(value, (tuple, list)) else []

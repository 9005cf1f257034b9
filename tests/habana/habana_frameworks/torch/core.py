"""`habana_frameworks.torch.core`: importing it makes `torch.hpu` and patches PyTorch, as the real one does."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

from habana_frameworks.torch import card, hpu
from habana_frameworks.torch.card import CARD, Recorder, misbehave, trait

_to = torch.Tensor.to
_lazy: Recorder | None = None


def mark_step(device_str: str = "", sync: bool = False) -> None:
    """End the accumulated graph and launch it; does nothing outside of lazy mode."""
    if _lazy is not None:
        nodes, _lazy.nodes = _lazy.nodes, []
        misbehave(sum(node.engine == "MME" for node in nodes))
        CARD.launch(nodes)


def _on_card(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """`tensor.to("hpu")` is a copy on this machine's CPU."""
    target = args[0] if args else kwargs.get("device")
    if not isinstance(target, (str, torch.device)) or torch.device(target).type != "hpu":
        return _to(self, *args, **kwargs)
    if trait("busy"):
        raise RuntimeError("synStatus=8 [Device not found] Device acquire failed: device is busy.")
    if trait("driver"):
        raise RuntimeError("Incompatible driver version 1.10.0, expected 1.24.1")
    return self.clone()


def _backend(module: Any, example: Any, **options: Any) -> Any:
    """`hpu_backend`: the graph as it came, launched as one recipe."""
    from torch._dynamo.backends.common import aot_autograd

    unknown = set(options.get("options") or {}) - {"use_graph_freezing", "force_static_compile", "inference"}
    if unknown:
        raise RuntimeError(f"unknown options {sorted(unknown)}")

    def compiled(graph: Any, inputs: Any) -> Any:
        hinted = _inline_hints(graph)
        if hinted and trait("refuse_hints"):
            raise RuntimeError("user programmability is not supported")

        def run(*values: Any) -> Any:
            with Recorder() as seen:
                made = graph(*values)
            misbehave(sum(node.engine == "MME" for node in seen.nodes))
            _complain_of_memory(seen)
            CARD.launch(seen.nodes, strict=hinted)
            return made

        return run

    return aot_autograd(fw_compiler=compiled)(module, example)


def _inline_hints(graph: Any) -> bool:
    """Put the bodies of `hints_wrapper` where it is called, as the real backend does; whether there were any."""
    hinted = False
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or "hints_wrapper" not in str(node.target):
            continue
        body, values, named = node.args[:3]
        hints = node.kwargs["hints"]
        assert named == {}
        assert hints["schedule_policy"] == "strict"
        assert isinstance(hints["group_id"], int)
        with graph.graph.inserting_before(node):
            inlined = graph.graph.call_module(body.target, tuple(values))
        node.replace_all_uses_with(inlined)
        graph.graph.erase_node(node)
        hinted = True
    graph.recompile()
    return hinted


def _complain_of_memory(seen: Recorder) -> None:
    if trait("oom") and any(node.name == "_softmax" and node.ns > card.OOM_NS for node in seen.nodes):
        raise RuntimeError("Graph compile failed. synStatus: out of memory, Failed to allocate 123456789 bytes")


class _Profile:
    """Stands in for `torch.profiler.profile`: device rows of what was launched inside."""

    def __init__(self, activities: Any = None, debug_activities: Any = None, **_: Any) -> None:
        self._device = activities is not None and torch.profiler.ProfilerActivity.HPU in activities

    def __enter__(self) -> _Profile:
        CARD.profiling, CARD.launches = True, []
        return self

    def __exit__(self, *_: Any) -> None:
        CARD.profiling = False
        self._launches = CARD.launches

    def export_chrome_trace(self, path: str) -> None:
        """Write what Kineto writes for a Gaudi."""
        from habana_frameworks.torch.trace import write, write_hardware

        launches = self._launches if self._device and not trait("no_lanes") else []
        write(path, launches)
        if os.environ.get("HABANA_PROFILE_WRITE_HLTV") == "1":
            write_hardware(launches)


class _OpByOp(Recorder):
    """Launches what it records at once."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one op."""
        made = super().__torch_dispatch__(func, types, args, kwargs)
        nodes, self.nodes = self.nodes, []
        CARD.launch(nodes)
        return made


if getattr(torch, "hpu", None) is not hpu:
    torch.hpu = hpu
    sys.modules["torch.hpu"] = hpu
    torch.Tensor.to = _on_card  # type: ignore[method-assign,assignment]
    torch.profiler.profile = _Profile  # type: ignore[misc,assignment]
    if card.lazy():
        _lazy = Recorder()
        _lazy.__enter__()
    elif trait("op_by_op"):
        _OpByOp().__enter__()
    else:
        torch._dynamo.register_backend(_backend, name="hpu_backend")

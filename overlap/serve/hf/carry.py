"""Chunks carried through all decoder layers of a Hugging Face model, in the order of a split's wavefront.

Terms
    pass: one call of the decoder, which calls its layers in turn. Whoever calls a layer by hand gets that layer.
    carry: what is done with the first layer's call of a pass: all layers run, chunk by chunk, and the calls of the
        later layers of the same pass give back what they are given.

The `forward` of the layers is replaced and the decoder gets two hooks; parameters and names stay where they are.
Whatever else looks at a layer or changes it (hooks, forwards of others) keeps chunks from being carried.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from overlap.serve.attend import Frame
from overlap.serve.hf.attention import TunedAttention, is_causal, mask_obstacle
from overlap.serve.hf.flow import Flow
from overlap.serve.hf.seams import Seam
from overlap.serve.lookup import EXACT, Found, Lookup
from overlap.split import Split
from overlap.workload import ModelShape

# Hooks of transformers' own that do nothing unless `_captures()`; once put there, they stay.
CAPTURING = "transformers.utils.output_capturing"


class Carry:
    """The decoder layers of one model with their forwards replaced."""

    def __init__(self, seam: Seam, model: ModelShape, lookup: Lookup, function: TunedAttention) -> None:
        self._layers = seam.layers
        self._rotate = seam.rotate
        self._model = model
        self._lookup = lookup
        self._function = function
        self._before: list[Any] = []
        self._hooks: list[RemovableHandle] = []
        # The pass that runs on this thread.
        self._pass = _Pass()

    def install(self, decoder: Any) -> None:
        """Replace the forwards. By bound methods, so that a deep copy of the model carries through its own layers."""
        self._hooks = [
            decoder.register_forward_pre_hook(self._begin),
            decoder.register_forward_hook(self._end, always_call=True),
        ]
        for number, layer in enumerate(self._layers):
            self._before.append(layer.__dict__.get("forward"))
            layer.__dict__["forward"] = _Layer(self, number, layer.forward).forward

    def uninstall(self) -> None:
        """Put back what was there; a forward that somebody else has put over ours stays."""
        for hook in self._hooks:
            hook.remove()
        for layer, before in zip(self._layers, self._before, strict=True):
            if isinstance(getattr(layer.__dict__.get("forward"), "__self__", None), _Layer):
                del layer.__dict__["forward"]
                if before is not None:
                    layer.__dict__["forward"] = before
        self._before.clear()

    def _begin(self, *_: Any) -> None:
        if not torch.compiler.is_compiling():
            self._pass.runs, self._pass.left = True, 0

    def _end(self, *_: Any) -> None:
        if not torch.compiler.is_compiling():
            self._pass.runs, self._pass.left = False, 0

    def call(
        self,
        number: int,
        original: Callable[..., Any],
        hidden: torch.Tensor,
        rest: tuple[Any, ...],
        arguments: dict[str, Any],
    ) -> Any:
        """What the forward of layer `number` does.

        Chunks are not carried in code that is compiled: its traces would keep the state of the pass they were made in.
        """
        if torch.compiler.is_compiling() or rest or not self._pass.runs:
            return original(hidden, *rest, **arguments)
        if number == 0:
            found = self._find(hidden, arguments)
            if found is not None:
                made = self._run(found, hidden, arguments)
                self._pass.left = len(self._layers) - 1
                return made
        elif self._pass.left:
            self._pass.left -= 1
            return hidden
        return original(hidden, **arguments)

    def _find(self, hidden: torch.Tensor, arguments: dict[str, Any]) -> Found | None:
        """The entry to carry by; None where a pass is left to the layers."""
        batch, tokens = hidden.shape[:2]
        cache = arguments.get("past_key_values")
        cached = cache.get_seq_length() if cache is not None else 0
        found = self._lookup.find(batch, tokens, int(cached))
        if found.entry is None or not carries(found.entry.split):
            return None
        reason = self._obstacle(hidden, arguments) or mask_obstacle(found.entry.split, arguments.get("attention_mask"))
        if reason:
            self._function.counts.went_through(f"chunks are not carried: {reason}")
            return None
        return found

    def _obstacle(self, hidden: torch.Tensor, arguments: dict[str, Any]) -> str:
        if self._layers[0].training or (torch.is_grad_enabled() and self._learns(hidden)):
            return "training"
        if torch.is_autocast_enabled(hidden.device.type):
            return "autocast"
        if self._layers[0].self_attn.config.num_hidden_layers != len(self._layers):
            return "only some of the layers run"
        if not is_causal(self._layers[0].self_attn.config):
            return "attention that is not causal"
        if _captures():
            return "hidden states or attention weights are wanted"
        if self._is_watched():
            return "somebody else's hooks or forwards in the layers"
        if not isinstance(arguments.get("position_embeddings"), tuple):
            return "no position embeddings"
        kinds = getattr(self._layers[0].self_attn.config, "layer_types", None) or ["full_attention"]
        if len(set(kinds)) > 1:
            return "layers with different masks"
        return _cache_obstacle(arguments.get("past_key_values"), hidden.shape[1])

    def _learns(self, hidden: torch.Tensor) -> bool:
        return hidden.requires_grad or any(one.requires_grad for layer in self._layers for one in layer.parameters())

    def _is_watched(self) -> bool:
        """Whether the calls that are left out, those of layers and of their attentions, would do anything else."""
        if any(one is not None for one in self._before):
            return True
        for number, layer in enumerate(self._layers):
            ours = getattr(layer.__dict__.get("forward"), "__self__", None)
            if not isinstance(ours, _Layer) or ours.number != number or "forward" in layer.self_attn.__dict__:
                return True
            for module in (layer, layer.self_attn):
                hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
                if any(getattr(hook, "__module__", "") != CAPTURING for hook in hooks):
                    return True
        return False

    def _run(self, found: Found, hidden: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        assert found.entry is not None
        cache = arguments.get("past_key_values")
        cached = int(cache.get_seq_length()) if cache is not None else 0
        frame = Frame(found.entry.bucket, hidden.shape[0], hidden.shape[1], cached)
        bias = frame.bias(arguments.get("attention_mask"), hidden.dtype, hidden.device)
        flow = Flow(self._model, self._layers, self._rotate, found.entry.split, frame, cache, bias)
        made = flow.run(hidden, arguments["position_embeddings"])
        padded = "" if found.how == EXACT else ", padded"
        self._function.counts.ran(f"{found.entry.bucket}, carried{padded}", len(self._layers))
        return made


def carries(split: Split) -> bool:
    """Whether chunks travel through layers on their own."""
    return split.chunks > 1


class _Pass(threading.local):
    """Whether the decoder runs, and how many of its later layers have nothing left to do."""

    runs = False
    left = 0

    def __reduce__(self) -> tuple[type[_Pass], tuple[()]]:
        """A copy of a model begins a pass of its own."""
        return _Pass, ()


@dataclass
class _Layer:
    """A layer and its place in the carry; its `forward` stands in for the layer's."""

    carry: Carry
    number: int
    original: Callable[..., Any]

    def forward(self, hidden_states: torch.Tensor, *rest: Any, **arguments: Any) -> Any:
        """As transformers calls it."""
        return self.carry.call(self.number, self.original, hidden_states, rest, arguments)


def _captures() -> bool:
    """Whether transformers records what layers give back in this pass."""
    from transformers.utils import output_capturing

    collector = getattr(output_capturing, "_active_collector", None)
    return bool(collector is not None and collector.get())


def _cache_obstacle(cache: Any, tokens: int) -> str:
    """Why chunks cannot share a cache: they need K and V of all tokens in one tensor per layer, where the layer is."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, StaticCache, StaticLayer

    if cache is None:
        return ""
    kind = {DynamicCache: DynamicLayer, StaticCache: StaticLayer}.get(type(cache))
    if kind is None or cache.offloading or not all(type(layer) is kind for layer in cache.layers):
        kinds = sorted({type(layer).__name__ for layer in cache.layers})
        return f"a cache of another kind, {type(cache).__name__} of {' and '.join(kinds) or 'nothing'}"
    # Every step would have a shape of its own, where the cache is there to have one.
    return "a decode step in a static cache" if kind is StaticLayer and tokens == 1 else ""

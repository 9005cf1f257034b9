"""The attention function that a tuned model calls in every layer, registered under a name of its own.

Contract: what it does not run tuned, it hands to the original function with exactly the arguments it got. It decides by
shapes alone, in microseconds, and counts what it decided.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

from overlap.serve.attend import Frame, attend, is_cut, within_layer
from overlap.serve.counts import Counts
from overlap.serve.hf.seams import PREFIX, Seam
from overlap.serve.lookup import EXACT, Lookup
from overlap.split import Split

_numbers = itertools.count(1)
# Attributes of masks: made for the model's own causal attention; tokens in the cache when it was made.
MARK, CACHED = "overlap_is_causal", "overlap_cached_tokens"
# Arguments that stand for arithmetic which the kernels do not have.
FOREIGN = {
    "softcap": "soft-capped scores",
    "s_aux": "attention sinks",
    "position_bias": "a position bias",
    "cache": "a paged cache",
}


class _Marked:
    """Masks of a layer's own causal attention, marked as such; one that a caller brings may let rows look ahead.

    They also say how many tokens lie in the cache, which the shape of a static cache does not.
    """

    def __init__(self, make: Callable[..., torch.Tensor | None]) -> None:
        self._make = make

    def __call__(self, *arguments: Any, **named: Any) -> torch.Tensor | None:
        made = self._make(*arguments, **named)
        if made is not None:
            setattr(made, MARK, True)
            # A static cache counts in a tensor, whose value compiled code does not have.
            if not torch.compiler.is_compiling() and "q_offset" in named:
                setattr(made, CACHED, int(named["q_offset"]) - int(named.get("kv_offset", 0)))
        return made


def is_causal(what: Any) -> bool:
    """Whether a layer, or the config that decides its masks, is causal; models that embed text are not."""
    return bool(getattr(what, "is_causal", True))


def cached_tokens(mask: torch.Tensor | None, tokens: int, keys: int) -> int:
    """How many of `keys` lie before `tokens` new ones. A decode step runs at the shape of its cache, full or not."""
    if tokens == 1:
        return keys - tokens
    # Without a mask a prefill is causal; keys behind the query are places of a static cache that is still empty.
    if mask is None:
        return 0
    told: int | None = getattr(mask, CACHED, None)
    return told if told is not None and told <= keys - tokens else keys - tokens


def mask_obstacle(split: Split, mask: torch.Tensor | None) -> str:
    """Why `split` cannot run under a mask; empty if it can. Leaving out what lies ahead needs a causal one."""
    if mask is not None and (mask.dim() != 4 or mask.shape[1] != 1):
        return "a mask for each head"
    ahead = split.masked_blocks == "skip" or (split.chunks > 1 and split.chunk_axis == "query")
    return "a mask of the caller's own" if ahead and mask is not None and not getattr(mask, MARK, False) else ""


class TunedAttention:
    """The function and what it knows; `name` is what transformers finds it by."""

    def __init__(self, seam: Seam, lookup: Lookup, counts: Counts) -> None:
        self.name = f"{PREFIX}{next(_numbers)}"
        self.counts = counts
        self._original = seam.original
        self._lookup = lookup
        self._scale = seam.layers[0].self_attn.head_dim ** -0.5
        self._ends = (seam.layers[0].self_attn.layer_idx, seam.layers[-1].self_attn.layer_idx)
        # The bias of this pass: all its layers get the same mask.
        self._last: tuple[object, Frame, torch.dtype, torch.Tensor | None] | None = None

    def register(self, mask_of: str) -> None:
        """Make it known by name, with the masks of the original; without any, padding would be attended to."""
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
        from transformers.modeling_utils import AttentionInterface

        AttentionMaskInterface.register(self.name, _Marked(ALL_MASK_ATTENTION_FUNCTIONS[mask_of]))
        AttentionInterface.register(self.name, self)

    def unregister(self) -> None:
        """Forget the name."""
        from transformers.masking_utils import AttentionMaskInterface
        from transformers.modeling_utils import AttentionInterface

        AttentionMaskInterface._global_mapping.pop(self.name, None)
        AttentionInterface._global_mapping.pop(self.name, None)

    def __call__(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **arguments: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As transformers calls it: query [B, H, T, D], key and value [B, K, S, D] → ([B, T, H, D], None)."""
        batch, _, tokens, _ = query.shape
        cached = cached_tokens(attention_mask, tokens, key.shape[2])
        found = self._lookup.find(batch, tokens, cached)
        reason = found.reason
        if found.entry is not None:
            split = within_layer(found.entry.split, found.entry.bucket.query)
            reason = self._obstacle(module, query, key, value, arguments) or mask_obstacle(split, attention_mask)
            reason = reason or ("" if is_cut(split) else "nothing of the split lies within a layer")
        if found.entry is None or reason:
            if not torch.compiler.is_compiling():
                self.counts.went_through(reason)
            return self._original(module, query, key, value, attention_mask, **arguments)
        frame = Frame(found.entry.bucket, batch, tokens, cached)
        keys, values = key[:, :, : cached + tokens], value[:, :, : cached + tokens]
        if module.layer_idx == self._ends[0]:
            self._last = None
        bias = self.bias(attention_mask, frame, query)
        made = attend(query, keys, values, bias, split, frame).contiguous()
        if module.layer_idx == self._ends[1]:
            self._last = None
        if not torch.compiler.is_compiling():
            self.counts.ran(f"{found.entry.bucket}{'' if found.how == EXACT else ', padded'}")
        return made, None

    def bias(self, mask: torch.Tensor | None, frame: Frame, like: torch.Tensor) -> torch.Tensor | None:
        """The bias of a mask, kept until the pass is over."""
        last = self._last
        if last is not None and last[0] is mask and last[1:3] == (frame, like.dtype):
            return last[3]
        made = frame.bias(mask, like.dtype, like.device)
        if not torch.compiler.is_compiling():
            self._last = (mask, frame, like.dtype, made)
        return made

    def _obstacle(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, arguments: dict[str, Any]
    ) -> str:
        """Why a call with a tuned shape cannot run tuned; empty if it can."""
        for name, what in FOREIGN.items():
            if arguments.get(name) is not None:
                return what
        learns = query.requires_grad or key.requires_grad or value.requires_grad
        if arguments.get("dropout") or (torch.is_grad_enabled() and learns):
            return "training"
        if torch.is_autocast_enabled(query.device.type):
            return "autocast"
        if arguments.get("output_attentions"):
            return "attention weights are wanted"
        if arguments.get("is_causal") is False or not (is_causal(module) and is_causal(module.config)):
            return "attention that is not causal"
        if arguments.get("scaling") not in (None, self._scale):
            return "another scaling"
        return "" if value.shape == key.shape else "values of another shape than keys"

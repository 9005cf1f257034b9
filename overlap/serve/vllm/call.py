"""One call of the seam: its arguments, and why a call of a tuned shape may not run tuned.

Terms
    seam: `ModuleFusedSDPA.forward` of vllm-gaudi @091bbadd. Tensors are [B, H, T, D], keys and values with KV heads.
    lengths: how many tokens of each sequence are real, the others being padding behind them.

Reasons are constants, and are decided by shapes and Python values alone: a compiler traces this.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch

from overlap.serve.vllm.plans import Plan

# How far a scale may be off 1/√D, in parts of it.
SAME_SCALE = 1e-6


@dataclass(frozen=True)
class Call:
    """The arguments, in the order of the seam."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    attn_mask: torch.Tensor | None
    dropout_p: float
    is_causal: bool
    scale: float | None
    softmax_mode: str
    recompute_mode: bool
    valid_sequence_lengths: torch.Tensor | None
    padding_side: str = "left"
    window_size: Any = None
    sinks: torch.Tensor | None = None


NAMES = tuple(field.name for field in fields(Call))


def read(arguments: tuple[Any, ...], named: dict[str, Any]) -> Call | None:
    """The call; none if something is asked for that was not there when this was written."""
    for more in arguments[len(NAMES) :]:
        if more is not None:
            return None
    for name, more in named.items():
        if name not in NAMES and more is not None:
            return None
    return Call(*arguments[: len(NAMES)], **{name: one for name, one in named.items() if name in NAMES})


class Shard(NamedTuple):
    """What the attention of the tuned model looks like on one card."""

    heads: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype

    def differs(self, call: Call) -> str:
        """How an attention is seen to be another model's; empty if it may be this one's."""
        query, key, value = call.query, call.key, call.value
        if query.dim() != 4 or query.shape[1] != self.heads or query.shape[3] != self.head_dim:
            return "attention of another shape"
        if key.dim() != 4 or key.shape[0] != query.shape[0]:
            return "keys of another shape"
        if key.shape[1] != self.kv_heads or key.shape[3] != self.head_dim:
            return "keys of another shape"
        if value.shape != key.shape:
            return "values of another shape than keys"
        same = query.dtype == key.dtype and key.dtype == value.dtype and query.dtype == self.dtype
        return "" if same else "another dtype"


def obstacle(call: Call, plan: Plan) -> str:
    """Why a call of a tuned shape cannot run tuned; empty if it can."""
    if call.window_size is not None:
        return "a sliding window"
    if call.sinks is not None:
        return "attention sinks"
    if call.dropout_p:
        return "dropout"
    if call.scale is not None and abs(call.scale * call.query.shape[3] ** 0.5 - 1) > SAME_SCALE:
        return "another scaling"
    if plan.split.softmax == "fast" and call.softmax_mode != "fast":
        return "a softmax in fp32 is wanted"
    return _unmasked(call) if call.attn_mask is None else _masked(call, call.attn_mask, plan)


def _unmasked(call: Call) -> str:
    """Without a mask, the new tokens must be all there is, causal, and padded behind if at all.

    Lengths then need no mask: padding comes last, so no real row sees it, and what its own rows give is never read.
    """
    if not call.is_causal:
        return "attention that is not causal"
    if call.key.shape[2] != call.query.shape[2]:
        return "a context without a mask"
    if call.valid_sequence_lengths is not None and call.padding_side != "right":
        return "padding on the left"
    return ""


def _masked(call: Call, mask: torch.Tensor, plan: Plan) -> str:
    """A mask must be one of rows by keys; what lies behind a row may only be left out where the caller says causal."""
    batch, tokens, keys = call.query.shape[0], call.query.shape[2], call.key.shape[2]
    if mask.dim() != 4 or mask.shape[1] != 1 or mask.shape[2] != tokens or mask.shape[3] != keys:
        return "a mask of another shape"
    if mask.shape[0] not in (1, batch) or not mask.dtype.is_floating_point:
        return "a mask of another shape"
    return "a mask that need not be causal" if plan.needs_causal and not call.is_causal else ""

"""The device's own fused attention as one op that a capture never looks into; whole, and as a partial result."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch.utils.flop_counter import register_flop_formula


@torch.library.custom_op("overlap::fused_attention", mutates_args=())
def fused_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None, causal: bool
) -> torch.Tensor:
    """Softmax(QK^T / √D + bias) V.

    Args:
        query: [B, K, T, G, D].
        key: [B, K, S, D]; each KV head serves G query heads.
        value: [B, K, S, D].
        bias: [T, S], [B, T, S] or None.
        causal: mask keys after the query, both counted from 0 (needs T = S).

    Returns:
        [B, K, T, G, D].
    """
    kv_heads, group = query.shape[1], query.shape[3]
    heads = query.permute(0, 1, 3, 2, 4).flatten(1, 2)
    mask = bias.unsqueeze(1) if bias is not None and bias.dim() == 3 else bias
    result: torch.Tensor = functional.scaled_dot_product_attention(
        heads, key, value, attn_mask=mask, is_causal=causal, enable_gqa=group > 1
    )
    batch, tokens, head_dim = query.shape[0], query.shape[2], query.shape[4]
    return result.view(batch, kv_heads, group, tokens, head_dim).transpose(2, 3).contiguous()


@fused_attention.register_fake
def _(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None, causal: bool
) -> torch.Tensor:
    return query.new_empty(query.shape)


@register_flop_formula(torch.ops.overlap.fused_attention)
def _flops(query: tuple[int, ...], key: tuple[int, ...], *_: object, **__: object) -> int:
    """QK^T and PV over the whole rectangle, as the field counts attention."""
    batch, kv_heads, tokens, group, head_dim = query
    return 4 * batch * kv_heads * group * tokens * key[2] * head_dim


@torch.library.custom_op("overlap::fused_partial", mutates_args=())
def fused_partial(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fused attention over some of the keys, with what merging it with others needs.

    Args:
        query: [B, K, T, G, D].
        key: [B, K, S, D].
        value: [B, K, S, D].
        bias: [T, S], [B, T, S] or None; a row that sees no key gets statistics that a merge gives no weight.

    Returns:
        Normalised output [B, K, T·G, D] in the dtype of the query; row maxima and row sums [B, K, T·G, 1] in fp32.
    """
    flat = query.flatten(2, 3)
    scores = flat.float() @ key.float().transpose(-1, -2) * query.shape[-1] ** -0.5
    if bias is not None:
        rows = bias.float().repeat_interleave(query.shape[3], dim=-2)
        scores += rows if bias.dim() == 2 else rows.unsqueeze(1)
    maximum = scores.amax(dim=-1, keepdim=True)
    weights = scores.sub_(maximum).exp_()
    total = weights.sum(dim=-1, keepdim=True)
    output = (weights / total).to(query.dtype) @ value
    return output, maximum, total


@fused_partial.register_fake
def _(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch, kv_heads, tokens, group, head_dim = query.shape
    rows = query.new_empty(batch, kv_heads, tokens * group, 1, dtype=torch.float32)
    return query.new_empty(batch, kv_heads, tokens * group, head_dim), rows, torch.empty_like(rows)


@register_flop_formula(torch.ops.overlap.fused_partial)
def _partial_flops(query: tuple[int, ...], key: tuple[int, ...], *_: object, **__: object) -> int:
    """As those of the whole."""
    batch, kv_heads, tokens, group, head_dim = query
    return 4 * batch * kv_heads * group * tokens * key[2] * head_dim

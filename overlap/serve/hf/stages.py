"""The four stages of a decoder layer (`overlap.split.STAGES`), made of the modules that a Hugging Face layer has.

They call the layer's own modules, so that adapters and quantised projections work as before; projections are those of
the model, whatever the split says of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def project(
    layer: Any,
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    rotate: Callable[..., tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Norm, projections and RoPE of x [B, T, H]: query [B, K·G, T, D], key and value [B, K, T, D]."""
    attention = layer.self_attn
    normed = layer.input_layernorm(x)
    heads = (*normed.shape[:-1], -1, attention.head_dim)
    query, key = attention.q_proj(normed).view(heads), attention.k_proj(normed).view(heads)
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    value = attention.v_proj(normed).view(heads).transpose(1, 2)
    query, key = rotate(query.transpose(1, 2), key.transpose(1, 2), cos, sin)
    return query, key, value


def project_out(layer: Any, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """Output projection of attended [B, T, K·G·D], and the residual x [B, T, H]."""
    made: torch.Tensor = layer.self_attn.o_proj(attended)
    return x + made


def mlp(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """Norm and MLP of x [B, T, H], without the residual."""
    made: torch.Tensor = layer.mlp(layer.post_attention_layernorm(x))
    return made

"""The stack: what PyTorch itself runs for the same window, with its fused causal attention and whole tensors.

No engines, no chunks, no capture. On the host it uses all cores, so that a reader sees what the machine does when
nobody splits its cores into engines.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional

from overlap.kernels.inputs import Inputs, LayerWeights
from overlap.kernels.layer import rms_norm
from overlap.workload import Workload


def run_stock(inputs: Inputs, workload: Workload) -> torch.Tensor:
    """Hidden states after the window [B, query, H]; the caches receive the new K and V."""
    x = inputs.hidden
    for layer, weights in enumerate(inputs.layers):
        x = x + functional.linear(_attention(x, inputs, weights, layer, workload), weights.out)
        normed = rms_norm(x, weights.mlp_norm, workload.shard.norm_eps)
        gate, up = functional.linear(normed, weights.gate_up).chunk(2, dim=-1)
        x = x + functional.linear(functional.silu(gate) * up, weights.down)
    return x


def _attention(x: torch.Tensor, inputs: Inputs, weights: LayerWeights, layer: int, workload: Workload) -> torch.Tensor:
    """Attention of all tokens [B, T, K·G·D]."""
    shape, bucket = workload.shard, workload.bucket
    batch, tokens = x.shape[0], x.shape[1]
    normed = rms_norm(x, weights.input_norm, shape.norm_eps)
    heads = functional.linear(normed, weights.qkv, weights.qkv_bias).view(batch, tokens, -1, shape.head_dim)
    q, k, v = heads.transpose(1, 2).split([shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
    if weights.q_norm is not None and weights.k_norm is not None:
        q = rms_norm(q, weights.q_norm, shape.norm_eps)
        k = rms_norm(k, weights.k_norm, shape.norm_eps)
    cos, sin = inputs.cos[bucket.context :], inputs.sin[bucket.context :]
    keys, values = inputs.key_caches[layer], inputs.value_caches[layer]
    keys[:, :, bucket.context :] = _rope(k, cos, sin)
    values[:, :, bucket.context :] = v
    causal = bucket.query > 1 and bucket.context == 0
    attended = functional.scaled_dot_product_attention(
        _rope(q, cos, sin),
        keys,
        values,
        attn_mask=None if causal or bucket.query == 1 else inputs.bias,
        is_causal=causal,
        enable_gqa=shape.group > 1,
    )
    return attended.transpose(1, 2).flatten(2)


def _rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

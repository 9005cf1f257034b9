"""The truth: the same window in fp32, straight from the textbook, sharing no arithmetic with the split kernels.

Attention is computed per KV head and per block of query rows, so that memory stays small; rows are independent, so this
changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as functional

from overlap.kernels.inputs import Inputs, LayerWeights, rotary_tables
from overlap.workload import ModelShape, Workload

ROWS = 1024
WEIGHT_ROWS = 4096


def reference(inputs: Inputs, workload: Workload) -> dict[str, torch.Tensor]:
    """fp32 outputs by name: `hidden` [B, query, H] and per layer the cache rows of the new tokens [B, K, query, D]."""
    bucket, shape = workload.bucket, workload.shard
    tables = rotary_tables(workload)
    position = slice(bucket.context, bucket.key_tokens)
    cos, sin = tables["cos"][position], tables["sin"][position]
    x = inputs.hidden.float()
    outputs: dict[str, torch.Tensor] = {}
    for layer, weights in enumerate(inputs.layers):
        q, k, v = _project(_norm(x, weights.input_norm, shape.norm_eps), weights, shape)
        q, k = _rope(q, cos, sin), _rope(k, cos, sin)
        outputs |= {f"layer{layer}.key_cache": k, f"layer{layer}.value_cache": v}
        past_k, past_v = inputs.key_caches[layer], inputs.value_caches[layer]
        keys = torch.cat([past_k[:, :, : bucket.context].float(), k], dim=2)
        values = torch.cat([past_v[:, :, : bucket.context].float(), v], dim=2)
        attended = _attend(q, keys, values, bucket.context)
        x = x + _linear(attended.transpose(1, 2).flatten(2), weights.out)
        normed = _norm(x, weights.mlp_norm, shape.norm_eps)
        gate, up = _linear(normed, weights.gate_up).chunk(2, dim=-1)
        x = x + _linear(functional.silu(gate) * up, weights.down)
    return outputs | {"hidden": x}


def _norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight.float()


def _linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Product x weight^T in fp32, by blocks of output rows: a fp32 copy of a large model's weight may not fit."""
    return torch.cat([x @ rows.float().T for rows in weight.split(WEIGHT_ROWS)], dim=-1)


def _project(
    x: torch.Tensor, weights: LayerWeights, shape: ModelShape
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries [B, heads, T, D], keys and values [B, K, T, D]."""
    flat = _linear(x, weights.qkv)
    if weights.qkv_bias is not None:
        flat = flat + weights.qkv_bias.float()
    heads = flat.unflatten(-1, (-1, shape.head_dim)).transpose(1, 2)
    q, k, v = heads.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
    if weights.q_norm is not None and weights.k_norm is not None:
        q, k = _norm(q, weights.q_norm, shape.norm_eps), _norm(k, weights.k_norm, shape.norm_eps)
    return q, k, v


def _rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, context: int) -> torch.Tensor:
    """Causal attention of q [B, heads, T, D] over k, v [B, K, S, D]; query t sees keys up to context + t."""
    group = q.shape[1] // k.shape[1]
    result = torch.empty_like(q)
    key_position = torch.arange(k.shape[2])
    for head in range(q.shape[1]):
        keys, values = k[:, head // group], v[:, head // group]
        for row in range(0, q.shape[2], ROWS):
            rows = q[:, head, row : row + ROWS]
            scores = rows @ keys.transpose(1, 2) / q.shape[-1] ** 0.5
            query_position = context + row + torch.arange(rows.shape[1])
            hidden = key_position[None, :] > query_position[:, None]
            weights = scores.masked_fill_(hidden, float("-inf")).softmax(-1)
            result[:, head, row : row + ROWS] = weights @ values
    return result


def relative_errors(
    outputs: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], context: int
) -> dict[str, float]:
    """Relative L2 error per output: |out - expected| / |expected| in fp64; NaN anywhere gives inf.

    `outputs` holds whole caches; only their rows from `context` on were written and are compared.
    """
    errors = {}
    for name, truth in expected.items():
        found = outputs[name]
        if found.shape != truth.shape:
            found = found[:, :, context:]
        truth64 = truth.double()
        error = float((found.double() - truth64).norm() / truth64.norm())
        errors[name] = error if error == error else float("inf")
    return errors

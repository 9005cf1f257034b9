"""The four stages of a decoder layer. Between stages, chunks may take turns (`overlap.split.STAGES`).

Every stage takes and gives whole chunks; K and V go straight into the caches, where later chunks find them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional

from overlap.capture import op, piece
from overlap.kernels.attention import Span
from overlap.kernels.collective import all_reduce
from overlap.kernels.inputs import LayerWeights
from overlap.workload import ModelShape


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm over the last dimension."""
    return functional.rms_norm(x, (x.shape[-1],), weight, eps)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, target: torch.Tensor) -> None:
    """RoPE of x [..., T, h, D] with tables [T, D/2] into `target`, which is shaped alike (half-turned convention)."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    half = x.shape[-1] // 2
    target[..., :half].copy_((first * cos).sub_(second * sin))
    target[..., half:].copy_((second * cos).add_(first * sin))


@piece
def qkv_stage(
    x: torch.Tensor,
    weights: LayerWeights,
    cos: torch.Tensor,
    sin: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    shape: ModelShape,
    span: Span,
    fused: bool,
    into: torch.Tensor | None = None,
) -> torch.Tensor:
    """Norm, projections and RoPE of a chunk x [B, T, H]; writes the caches, returns the queries [B, K, T, G, D].

    The queries are written `into` a tensor of that shape if there is one.
    """
    batch, tokens = x.shape[0], span.tokens
    kv_heads, group, head_dim = shape.kv_heads, shape.group, shape.head_dim
    with op("norm"):
        normed = rms_norm(x, weights.input_norm, shape.norm_eps)
    q, k, v = _project(normed, weights, shape, fused)
    first = span.context + span.query
    cos, sin = cos[first : first + tokens], sin[first : first + tokens]
    rows = slice(span.batch, span.batch_end), slice(None), slice(first, first + tokens)
    query = x.new_empty(batch, kv_heads, tokens, group, head_dim) if into is None else into
    with op("rope_q"):
        heads = q.view(batch, tokens, shape.heads, head_dim)
        if weights.q_norm is not None:
            heads = rms_norm(heads, weights.q_norm, shape.norm_eps)
        by_group = heads.view(batch, tokens, kv_heads, group, head_dim).transpose(1, 2)
        rotate(by_group, cos, sin, query)
    with op("rope_k"):
        heads = k.view(batch, tokens, kv_heads, head_dim)
        if weights.k_norm is not None:
            heads = rms_norm(heads, weights.k_norm, shape.norm_eps)
        rotate(heads, cos, sin, key_cache[rows].transpose(1, 2))
    with op("write_v"):
        value_cache[rows].transpose(1, 2).copy_(v.view(batch, tokens, kv_heads, head_dim))
    return query


def _project(
    x: torch.Tensor, weights: LayerWeights, shape: ModelShape, fused: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Q [B, T, K·G·D], K and V [B, T, K·D], by one GEMM or by three."""
    sizes = [shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.head_dim]
    if fused:
        with op("qkv"):
            both = functional.linear(x, weights.qkv, weights.qkv_bias)
        q, k, v = both.split(sizes, dim=-1)
        return q, k, v
    parts = []
    biases = weights.qkv_bias.split(sizes) if weights.qkv_bias is not None else (None, None, None)
    for name, weight, bias in zip("qkv", weights.qkv.split(sizes), biases, strict=True):
        with op(name):
            parts.append(functional.linear(x, weight, bias))
    return parts[0], parts[1], parts[2]


@piece
def out_stage(x: torch.Tensor, attended: torch.Tensor, weights: LayerWeights, cards: int) -> torch.Tensor:
    """Output projection of [B, T, K·G·D], sum over the cards and residual; returns [B, T, H]."""
    with op("out"):
        projected = functional.linear(attended, weights.out)
    _sum_over(projected, cards)
    with op("residual"):
        projected.add_(x)
    return projected


def _sum_over(partial: torch.Tensor, cards: int) -> None:
    """Row-parallel GEMMs leave partial sums on every card."""
    if cards > 1:
        with op("all_reduce"):
            all_reduce(partial, cards)


@piece
def mlp_stage(
    x: torch.Tensor, weights: LayerWeights, eps: float, fused: bool, into: torch.Tensor | None, cards: int
) -> torch.Tensor:
    """Norm, gated MLP and residual of x [B, T, H]; the last layer writes `into` the output, others make a tensor."""
    down = _mlp(x, weights, eps, fused, cards)
    with op("residual"):
        if into is None:
            down.add_(x)
        else:
            torch.add(x, down, out=into)
    return down if into is None else into


@piece
def mlp_without_residual(x: torch.Tensor, weights: LayerWeights, eps: float, fused: bool, cards: int) -> torch.Tensor:
    """Norm and gated MLP of x [B, T, H]; `mlp_residual` adds x later."""
    return _mlp(x, weights, eps, fused, cards)


@piece
def mlp_residual(x: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """The sum of an MLP's input and output, in the memory of the output."""
    with op("residual"):
        down.add_(x)
    return down


def _mlp(x: torch.Tensor, weights: LayerWeights, eps: float, fused: bool, cards: int) -> torch.Tensor:
    with op("norm"):
        normed = rms_norm(x, weights.mlp_norm, eps)
    active = _gate_fused(normed, weights) if fused else _gate_split(normed, weights)
    with op("down"):
        down = functional.linear(active, weights.down)
    _sum_over(down, cards)
    return down


def _gate_fused(x: torch.Tensor, weights: LayerWeights) -> torch.Tensor:
    with op("gate_up"):
        both = functional.linear(x, weights.gate_up)
    with op("silu_mul"):
        gate, up = both.chunk(2, dim=-1)
        return functional.silu(gate).mul_(up)


def _gate_split(x: torch.Tensor, weights: LayerWeights) -> torch.Tensor:
    """SiLU needs only the gate, so it can run beside the GEMM of up."""
    gate_weight, up_weight = weights.gate_up.chunk(2)
    with op("gate"):
        gate = functional.linear(x, gate_weight)
    with op("silu"):
        active = functional.silu(gate)
    with op("up"):
        up = functional.linear(x, up_weight)
    with op("mul"):
        return up.mul_(active)

"""Tensors that a workload runs on: weights, rotary tables, causal bias, KV caches and the hidden states.

`specs` says what there is (name → shape and dtype), `make` fills it with reproducible, non-zero values. Names are those
of the program's input roots, such as `layer0.qkv`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from overlap.workload import Workload

# Cache rows that nobody has written hold this: finite, because a masked block may read them, and far from any value a
# right program writes, so that a row left out shows as an error.
UNWRITTEN = 100.0


class TensorSpec(NamedTuple):
    """Shape and dtype of an input."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class LayerWeights(NamedTuple):
    """One layer's parameters. GEMM weights are [out, in]; `qkv` stacks Q, K, V and `gate_up` gate and up along out."""

    input_norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    out: torch.Tensor
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class Inputs(NamedTuple):
    """All tensors of a window.

    hidden [B, query, H]; cos, sin [S, D/2] in the model's dtype; bias [query, S], 0 where a query may look and the
    dtype's lowest value where it may not, absent in decode; caches [B, K, S, D], filled up to `context`.
    """

    hidden: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    bias: torch.Tensor | None
    layers: tuple[LayerWeights, ...]
    key_caches: tuple[torch.Tensor, ...]
    value_caches: tuple[torch.Tensor, ...]


def torch_dtype(name: str) -> torch.dtype:
    """`torch.bfloat16` for `bfloat16`."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def specs(workload: Workload) -> dict[str, TensorSpec]:
    """Every input of the window by name."""
    shape, bucket = workload.shard, workload.bucket
    dtype = torch_dtype(shape.dtype)
    keys, half = bucket.key_tokens, shape.head_dim // 2
    found = {
        "hidden": (bucket.batch, bucket.query, shape.hidden),
        "cos": (keys, half),
        "sin": (keys, half),
    }
    if bucket.query > 1:
        found["bias"] = (bucket.query, keys)
    for layer in range(workload.window_layers):
        for name, size in _layer_shapes(workload).items():
            found[f"layer{layer}.{name}"] = size
    return {name: TensorSpec(size, dtype) for name, size in found.items()}


def _layer_shapes(workload: Workload) -> dict[str, tuple[int, ...]]:
    shape, bucket = workload.shard, workload.bucket
    hidden, head_dim = shape.hidden, shape.head_dim
    rows = (shape.heads + 2 * shape.kv_heads) * head_dim
    cache = (bucket.batch, shape.kv_heads, bucket.key_tokens, head_dim)
    found: dict[str, tuple[int, ...]] = {"input_norm": (hidden,), "qkv": (rows, hidden)}
    if shape.qkv_bias:
        found["qkv_bias"] = (rows,)
    if shape.qk_norm:
        found |= {"q_norm": (head_dim,), "k_norm": (head_dim,)}
    return found | {
        "out": (hidden, shape.heads * head_dim),
        "mlp_norm": (hidden,),
        "gate_up": (2 * shape.ffn, hidden),
        "down": (hidden, shape.ffn),
        "key_cache": cache,
        "value_cache": cache,
    }


def assemble(workload: Workload, get: Callable[[str, TensorSpec], torch.Tensor]) -> Inputs:
    """Build `Inputs` from a function that gives each tensor by name; used for real and for meta tensors alike."""
    made = {name: get(name, spec) for name, spec in specs(workload).items()}
    window = range(workload.window_layers)
    return Inputs(
        hidden=made["hidden"],
        cos=made["cos"],
        sin=made["sin"],
        bias=made.get("bias"),
        layers=tuple(_layer_weights(made, layer) for layer in window),
        key_caches=tuple(made[f"layer{layer}.key_cache"] for layer in window),
        value_caches=tuple(made[f"layer{layer}.value_cache"] for layer in window),
    )


def _layer_weights(made: Mapping[str, torch.Tensor], layer: int) -> LayerWeights:
    """The weights of one layer; optional ones that the model has not are None."""
    found: dict[str, Any] = {name: made.get(f"layer{layer}.{name}") for name in LayerWeights._fields}
    return LayerWeights(**found)


def make(workload: Workload, seed: int = 0) -> dict[str, torch.Tensor]:
    """Real tensors for `workload`, the same for the same seed. New tokens' cache rows hold `UNWRITTEN`."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    tables = rotary_tables(workload)
    for name, spec in specs(workload).items():
        leaf = name.rpartition(".")[2]
        if leaf in ("cos", "sin"):
            made[name] = tables[leaf].to(spec.dtype)
        elif leaf == "bias":
            made[name] = causal_bias(workload)
        else:
            made[name] = _random(leaf, spec, workload.bucket.context, generator)
    return made


def _random(leaf: str, spec: TensorSpec, context: int, generator: torch.Generator) -> torch.Tensor:
    """Unit-variance activations, weights scaled to keep them so, norm gains around 1."""
    tensor = torch.empty(spec.shape, dtype=spec.dtype).normal_(generator=generator)
    if leaf.endswith("norm"):
        return tensor.mul_(0.1).add_(1.0)
    if leaf in ("qkv", "out", "gate_up", "down"):
        return tensor.mul_(spec.shape[1] ** -0.5)
    if leaf.endswith("cache"):
        tensor[:, :, context:] = UNWRITTEN
    return tensor


def rotary_tables(workload: Workload) -> Mapping[str, torch.Tensor]:
    """fp32 cos and sin [S, D/2] of the positions 0..S-1 (RoPE with the half-turned convention of Hugging Face)."""
    shape, keys = workload.shard, workload.bucket.key_tokens
    half = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    angle = torch.outer(torch.arange(keys, dtype=torch.float32), shape.rope_theta**-half)
    return {"cos": angle.cos(), "sin": angle.sin()}


def causal_bias(workload: Workload) -> torch.Tensor:
    """[query, S]: 0 where key ≤ context + query position, the dtype's lowest value elsewhere."""
    bucket, dtype = workload.bucket, torch_dtype(workload.shard.dtype)
    bias = torch.full((bucket.query, bucket.key_tokens), torch.finfo(dtype).min, dtype=dtype)
    return bias.triu_(bucket.context + 1)

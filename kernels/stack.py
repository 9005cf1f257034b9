"""Drives chunks through a window of layers, stage by stage, in the order that `lag` asks for.

Wavefront: at step t, chunk i does its stage t - i·lag. A causal chunk of query tokens needs the K and V of earlier
chunks of the same layer only, and those are never behind it, so chunk 0 may be a layer ahead of chunk 1 even at batch
1. With `layers_per_graph`, every graph is a wavefront of its own and a fence lies between two graphs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from overlap.capture import region
from overlap.kernels.attention import Span, Tiling, attention
from overlap.kernels.inputs import Inputs
from overlap.kernels.layer import mlp_stage, out_stage, qkv_stage
from overlap.split import STAGES, Split, chunk_shape
from overlap.workload import Workload


def chunk_spans(workload: Workload, split: Split) -> list[Span]:
    """Where the chunks lie, in causal order."""
    bucket = workload.bucket
    batch, query = chunk_shape(split, workload)
    if split.chunk_axis == "batch":
        return [Span(b, b + batch, 0, query, bucket.context) for b in range(0, bucket.batch, batch)]
    return [Span(0, batch, q, q + query, bucket.context) for q in range(0, bucket.query, query)]


def schedule(workload: Workload, split: Split) -> Iterator[tuple[int, int, int, int]]:
    """(graph, layer, stage, chunk) in program order."""
    per_graph = split.layers_per_graph or workload.window_layers
    for graph, first in enumerate(range(0, workload.window_layers, per_graph)):
        layers = min(per_graph, workload.window_layers - first)
        steps = layers * len(STAGES)
        for step in range(steps + split.lag * (split.chunks - 1)):
            for chunk in range(split.chunks):
                mine = step - split.lag * chunk
                if 0 <= mine < steps:
                    yield graph, first + mine // len(STAGES), mine % len(STAGES), chunk


def run(inputs: Inputs, workload: Workload, split: Split) -> torch.Tensor:
    """Hidden states after the window [B, query, H]; K and V of the new tokens are written to the caches.

    Runs on real tensors as well as under a recorder.
    """
    spans = chunk_spans(workload, split)
    hidden = inputs.hidden
    output = hidden.new_empty(hidden.shape)
    state = [hidden[s.batch : s.batch_end, s.query : s.query_end] for s in spans]
    flowing: dict[int, torch.Tensor] = {}
    for graph, layer, stage, chunk in schedule(workload, split):
        name = STAGES[stage]
        with region(f"layer{layer}.chunk{chunk}.{name}", phase=name, layer=layer, chunk=chunk, graph=graph):
            _stage(inputs, workload, split, stage, layer, chunk, spans[chunk], state, flowing, output)
    return output


def _stage(
    inputs: Inputs,
    workload: Workload,
    split: Split,
    stage: int,
    layer: int,
    chunk: int,
    span: Span,
    state: list[torch.Tensor],
    flowing: dict[int, torch.Tensor],
    output: torch.Tensor,
) -> None:
    """One stage of one chunk; `state` holds the residual stream of each chunk, `flowing` what is between two stages."""
    weights, shape = inputs.layers[layer], workload.shard
    keys, values = inputs.key_caches[layer], inputs.value_caches[layer]
    fused = split.projections == "fused"
    name = STAGES[stage]
    if name == "qkv":
        flowing[chunk] = qkv_stage(state[chunk], weights, inputs.cos, inputs.sin, keys, values, shape, span, fused)
    elif name == "attn":
        flowing[chunk] = attention(flowing[chunk], keys, values, inputs.bias, span, Tiling.of(split))
    elif name == "out":
        state[chunk] = out_stage(state[chunk], flowing.pop(chunk), weights, workload.tensor_parallel)
    else:
        last = layer == workload.window_layers - 1
        into = output[span.batch : span.batch_end, span.query : span.query_end] if last else None
        state[chunk] = mlp_stage(state[chunk], weights, shape.norm_eps, fused, into, workload.tensor_parallel)

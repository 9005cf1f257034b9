"""Drives chunks through a window of layers, stage by stage, in the order that `lag` asks for.

Wavefront: at step t, chunk i has its turn t - i·lag. A causal chunk of query tokens needs the K and V of earlier
chunks of the same layer only, and those are never behind it, so chunk 0 may be a layer ahead of chunk 1 even at batch
1. With `layers_per_graph`, every graph is a wavefront of its own and a fence lies between two graphs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

from overlap.capture import region
from overlap.kernels.attention import Span, Tiling, attention
from overlap.kernels.inputs import Inputs
from overlap.kernels.layer import mlp_residual, mlp_stage, mlp_without_residual, out_stage, qkv_stage
from overlap.split import STAGES, TURNS, Split, chunk_shape
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
    turns = TURNS[split.turn]
    for graph, first in enumerate(range(0, workload.window_layers, per_graph)):
        layers = min(per_graph, workload.window_layers - first)
        steps = layers * len(turns)
        for step in range(steps + split.lag * (split.chunks - 1)):
            for chunk in range(split.chunks):
                mine = step - split.lag * chunk
                if 0 <= mine < steps:
                    for stage in turns[mine % len(turns)]:
                        yield graph, first + mine // len(turns), STAGES.index(stage), chunk


def run(inputs: Inputs, workload: Workload, split: Split) -> torch.Tensor:
    """Hidden states after the window [B, query, H]; K and V of the new tokens are written to the caches.

    Runs on real tensors as well as under a recorder.
    """
    flow = _Flow(inputs, workload, split)
    for graph, layer, stage, chunk in schedule(workload, split):
        flow.do(graph, layer, STAGES[stage], chunk)
    return flow.output


class _Flow:
    """The chunks on their way: the residual stream of each, and what lies between two stages."""

    def __init__(self, inputs: Inputs, workload: Workload, split: Split) -> None:
        self._inputs = inputs
        self._workload = workload
        self._split = split
        self._spans = chunk_spans(workload, split)
        hidden = inputs.hidden
        self.output = hidden.new_empty(hidden.shape)
        self._state = [hidden[s.batch : s.batch_end, s.query : s.query_end] for s in self._spans]
        self._flowing: dict[int, torch.Tensor] = {}
        # MLPs without their residual: (layer, output) by chunk.
        self._owed: dict[int, tuple[int, torch.Tensor]] = {}
        self._queries: torch.Tensor | None = None

    def do(self, graph: int, layer: int, name: str, chunk: int) -> None:
        """One stage of one chunk."""
        if chunk in self._owed:
            self._settle(graph, chunk)
        if name == "attn" and self._split.attend == "whole":
            if chunk < self._split.chunks - 1:
                return
            with self._region(graph, layer, name, 0):
                self._attend_whole(layer)
            return
        with self._region(graph, layer, name, chunk):
            getattr(self, f"_{name}")(layer, chunk)

    def _region(self, graph: int, layer: int, name: str, chunk: int) -> AbstractContextManager[None]:
        return region(f"layer{layer}.chunk{chunk}.{name}", phase=name, layer=layer, chunk=chunk, graph=graph)

    def _settle(self, graph: int, chunk: int) -> None:
        """Add the residual that the chunk's last MLP left out."""
        layer, down = self._owed.pop(chunk)
        with self._region(graph, layer, "mlp", chunk):
            self._state[chunk] = mlp_residual(self._state[chunk], down)

    def _qkv(self, layer: int, chunk: int) -> None:
        inputs, shape, span = self._inputs, self._workload.shard, self._spans[chunk]
        into = None
        if self._split.attend == "whole":
            if self._queries is None:
                batch, query = self._workload.bucket.batch, self._workload.bucket.query
                sizes = (batch, shape.kv_heads, query, shape.group, shape.head_dim)
                self._queries = inputs.hidden.new_empty(sizes)
            into = self._queries[span.batch : span.batch_end, :, span.query : span.query_end]
        weights, fused = inputs.layers[layer], self._split.projections == "fused"
        keys, values = inputs.key_caches[layer], inputs.value_caches[layer]
        state = self._state[chunk]
        if into is None:
            made = qkv_stage(state, weights, inputs.cos, inputs.sin, keys, values, shape, span, fused)
        else:
            made = qkv_stage(state, weights, inputs.cos, inputs.sin, keys, values, shape, span, fused, into)
        self._flowing[chunk] = made

    def _attn(self, layer: int, chunk: int) -> None:
        keys, values = self._inputs.key_caches[layer], self._inputs.value_caches[layer]
        query, span = self._flowing[chunk], self._spans[chunk]
        self._flowing[chunk] = attention(query, keys, values, self._inputs.bias, span, Tiling.of(self._split), 1)[0]

    def _attend_whole(self, layer: int) -> None:
        """One attention for all chunks; each takes its part of the result."""
        assert self._queries is not None
        bucket = self._workload.bucket
        span = Span(0, bucket.batch, 0, bucket.query, bucket.context)
        keys, values = self._inputs.key_caches[layer], self._inputs.value_caches[layer]
        by_query = self._split.chunk_axis == "query"
        parts = self._split.chunks if by_query else 1
        found = attention(self._queries, keys, values, self._inputs.bias, span, Tiling.of(self._split), parts)
        for chunk, part in enumerate(self._spans):
            self._flowing[chunk] = found[chunk] if by_query else found[0][part.batch : part.batch_end]
        self._queries = None

    def _out(self, layer: int, chunk: int) -> None:
        weights, cards = self._inputs.layers[layer], self._workload.tensor_parallel
        self._state[chunk] = out_stage(self._state[chunk], self._flowing.pop(chunk), weights, cards)

    def _mlp(self, layer: int, chunk: int) -> None:
        weights, cards, span = self._inputs.layers[layer], self._workload.tensor_parallel, self._spans[chunk]
        eps, fused = self._workload.shard.norm_eps, self._split.projections == "fused"
        per_graph = self._split.layers_per_graph or self._workload.window_layers
        is_last = layer == self._workload.window_layers - 1
        if self._split.turn == "block" and not is_last and (layer + 1) % per_graph:
            self._owed[chunk] = layer, mlp_without_residual(self._state[chunk], weights, eps, fused, cards)
            return
        into = self.output[span.batch : span.batch_end, span.query : span.query_end] if is_last else None
        self._state[chunk] = mlp_stage(self._state[chunk], weights, eps, fused, into, cards)

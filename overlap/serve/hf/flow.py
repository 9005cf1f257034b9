"""One pass of chunks through the layers of a Hugging Face model, in the order of a split's wavefront.

Terms
    slot: a layer's K and V of the whole bucket. Chunks write their rows and read what is there; when the last chunk
        has written, the new tokens go to the model's cache, once.

The order is that of `overlap.kernels.stack`, over all layers of the model instead of a window of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from overlap.kernels.attention import Span, Tiling, attention
from overlap.kernels.stack import chunk_spans, schedule
from overlap.serve.attend import Frame
from overlap.serve.hf.stages import mlp, project, project_out
from overlap.split import STAGES, Split
from overlap.workload import ModelShape, Workload

Rotate = Callable[..., tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Slot:
    """K and V of a layer [batch, K, key tokens, D], the queries of chunks that wait, and how many chunks were here."""

    keys: torch.Tensor
    values: torch.Tensor
    queries: list[torch.Tensor] = field(default_factory=list)
    written: int = 0
    attended: int = 0


class Flow:
    """The chunks on their way: the residual stream of each, and what lies between two stages.

    Args:
        model: shape of the model, for the wavefront.
        layers: its decoder layers, all of them.
        rotate: its own RoPE.
        split: how to cut; it has several chunks.
        frame: the shape of the pass and the bucket it runs at.
        cache: a plain dynamic or static cache, or None.
        bias: of the frame, see `Frame.bias`.
    """

    def __init__(
        self,
        model: ModelShape,
        layers: Sequence[Any],
        rotate: Rotate,
        split: Split,
        frame: Frame,
        cache: Any,
        bias: torch.Tensor | None,
    ) -> None:
        self._workload = Workload(model, frame.bucket, window_layers=len(layers))
        self._layers = layers
        self._rotate = rotate
        self._split = split
        self._frame = frame
        self._cache = cache
        self._bias = bias
        self._tiling = Tiling.of(split)
        self._spans = chunk_spans(self._workload, split)
        self._axis = 1 if split.chunk_axis == "query" else 0
        self._slots: dict[int, Slot] = {}
        self._owed: dict[int, torch.Tensor] = {}
        self._flowing: dict[int, torch.Tensor] = {}
        self._tables: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._state: list[torch.Tensor] = []

    def run(self, hidden: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Hidden states behind the last layer [B, T, H]; `tables` are cos and sin [B or 1, T, D]."""
        whole = self._frame.pad_rows(hidden)
        cos, sin = (self._frame.pad_rows(one.expand(hidden.shape[0], -1, -1)) for one in tables)
        self._tables = [(_part(cos, span), _part(sin, span)) for span in self._spans]
        self._state = [_part(whole, span) for span in self._spans]
        for _, layer, stage, chunk in schedule(self._workload, self._split):
            if chunk in self._owed:
                self._state[chunk] = self._state[chunk] + self._owed.pop(chunk)
            getattr(self, f"_{STAGES[stage]}")(layer, chunk)
        return torch.cat(self._state, dim=self._axis)[: self._frame.batch, : self._frame.query]

    def _qkv(self, layer: int, chunk: int) -> None:
        """Projections of a chunk; its K and V go to the slot, and with the last chunk's to the cache."""
        span = self._spans[chunk]
        query, key, value = project(self._layers[layer], self._state[chunk], *self._tables[chunk], self._rotate)
        slot = self._slots.get(layer) or self._open(layer, key)
        first = span.context + span.query
        rows = slice(span.batch, span.batch_end), slice(None), slice(first, first + span.tokens)
        slot.keys[rows], slot.values[rows] = key, value
        slot.written += 1
        if slot.written == len(self._spans):
            self._store(layer, slot)
        kv_heads = key.shape[1]
        grouped = query.unflatten(1, (kv_heads, query.shape[1] // kv_heads)).transpose(2, 3)
        if self._split.attend == "whole":
            slot.queries.append(grouped)
        else:
            self._flowing[chunk] = grouped

    def _open(self, layer: int, like: torch.Tensor) -> Slot:
        """A new slot with what the cache holds; zeros elsewhere, since masked blocks are read."""
        bucket, frame = self._frame.bucket, self._frame
        sizes = (bucket.batch, like.shape[1], bucket.key_tokens, like.shape[3])
        slot = self._slots[layer] = Slot(like.new_zeros(sizes), like.new_zeros(sizes))
        if frame.context:
            held = self._cache.layers[self._number(layer)]
            rows = slice(None, frame.batch), slice(None), slice(frame.first_key, bucket.context)
            # A static cache has places behind.
            slot.keys[rows] = held.keys[:, :, : frame.context]
            slot.values[rows] = held.values[:, :, : frame.context]
        return slot

    def _store(self, layer: int, slot: Slot) -> None:
        if self._cache is not None:
            frame, first = self._frame, self._frame.bucket.context
            rows = slice(None, frame.batch), slice(None), slice(first, first + frame.query)
            self._cache.update(slot.keys[rows], slot.values[rows], self._number(layer))

    def _number(self, layer: int) -> int:
        """The model's own number of a layer."""
        return int(self._layers[layer].self_attn.layer_idx)

    def _attn(self, layer: int, chunk: int) -> None:
        slot = self._slots[layer]
        slot.attended += 1
        last = slot.attended == len(self._spans)
        if self._split.attend == "whole":
            if last:
                self._attend_whole(slot)
        else:
            query, span = self._flowing[chunk], self._spans[chunk]
            self._flowing[chunk] = attention(query, slot.keys, slot.values, self._bias, span, self._tiling, 1)[0]
        if last:
            del self._slots[layer]

    def _attend_whole(self, slot: Slot) -> None:
        """One attention for all chunks; each takes its part of the result."""
        bucket = self._frame.bucket
        span = Span(0, bucket.batch, 0, bucket.query, bucket.context)
        by_query = self._split.chunk_axis == "query"
        query = torch.cat(slot.queries, dim=2 if by_query else 0)
        parts = len(self._spans) if by_query else 1
        found = attention(query, slot.keys, slot.values, self._bias, span, self._tiling, parts)
        for chunk, part in enumerate(self._spans):
            self._flowing[chunk] = found[chunk] if by_query else found[0][part.batch : part.batch_end]

    def _out(self, layer: int, chunk: int) -> None:
        self._state[chunk] = project_out(self._layers[layer], self._state[chunk], self._flowing.pop(chunk))

    def _mlp(self, layer: int, chunk: int) -> None:
        """The residual is left for the chunk's next turn where a turn is a block, as in the kernels."""
        made = mlp(self._layers[layer], self._state[chunk])
        per_graph = self._split.layers_per_graph or len(self._layers)
        is_last = layer == len(self._layers) - 1
        if self._split.turn == "block" and not is_last and (layer + 1) % per_graph:
            self._owed[chunk] = made
        else:
            self._state[chunk] = self._state[chunk] + made


def _part(whole: torch.Tensor, span: Span) -> torch.Tensor:
    """What of [batch, query, ...] belongs to a chunk."""
    return whole[span.batch : span.batch_end, span.query : span.query_end]

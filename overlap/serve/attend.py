"""Attention of a serving stack's tensors by a tuned split: layouts, masks, and padding to the tuned bucket.

Terms
    mask: as a stack has it: bool [B, 1, T, S], true where a query may look, or a float of that shape that is added; or
        None, which is causal for several query tokens and everything for one. Keys behind the new tokens are ignored.
    bias: what the kernels add: 0 or `lowest`, [T, S] where all sequences are alike, else [B, T, S].
    lowest: half of the dtype's lowest value: a row that sees nothing stays a row of numbers, whatever is added to it.
    frame: a bucket with a real shape in it. Queries lie at its beginning and keys so that the diagonal stays where it
        is: [masked | cached | new | masked] over the context and the query tokens of the bucket.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional

from overlap.kernels.attention import Span, Tiling, attention
from overlap.split import Split
from overlap.workload import Bucket

UNCUT = Split()
ATTENTION_AXES = ("head_groups", "query_tile", "kv_tile", "masked_blocks", "normalise", "softmax", "fused_sdpa")


@dataclass(frozen=True)
class Frame:
    """A shape of `batch` sequences, `query` new and `context` cached tokens, at the place it has in a bucket."""

    bucket: Bucket
    batch: int
    query: int
    context: int

    @property
    def first_key(self) -> int:
        """Where the cached tokens begin."""
        return self.bucket.context - self.context

    @property
    def is_exact(self) -> bool:
        """Whether nothing is padded."""
        bucket = self.bucket
        return (self.batch, self.query, self.context) == (bucket.batch, bucket.query, bucket.context)

    def pad_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """[B, T, ...] → [batch, query, ...] of the bucket, zeros behind."""
        if self.is_exact:
            return rows
        behind = (0, 0) * (rows.dim() - 2)
        return functional.pad(rows, (*behind, 0, self.bucket.query - self.query, 0, self.bucket.batch - rows.shape[0]))

    def pad_keys(self, keys: torch.Tensor) -> torch.Tensor:
        """[B, K, S, D] → [batch, K, key tokens, D] of the bucket, zeros around."""
        if self.is_exact:
            return keys
        after = self.bucket.query - self.query
        return functional.pad(keys, (0, 0, self.first_key, after, 0, 0, 0, self.bucket.batch - self.batch))

    def bias(self, mask: torch.Tensor | None, dtype: torch.dtype, device: torch.device) -> torch.Tensor | None:
        """The bias of the bucket, on `device`."""
        if mask is None and self.is_exact:
            return _causal(self.query, self.context, dtype, device) if self.query > 1 else None
        keys = self.context + self.query
        inner = (
            _added(mask[..., :keys], dtype) if mask is not None else _causal(self.query, self.context, dtype, device)
        )
        inner = inner.expand(self.batch, self.query, keys)
        if self.is_exact:
            return inner
        bucket = self.bucket
        sizes = (bucket.batch, bucket.query, bucket.key_tokens)
        bias = torch.full(sizes, lowest(dtype), dtype=dtype, device=device)
        bias[: self.batch, : self.query, self.first_key : bucket.context + self.query] = inner
        return bias


def lowest(dtype: torch.dtype) -> float:
    """What hides a key."""
    return torch.finfo(dtype).min / 2


def _causal(query: int, context: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """[query, context + query]; made of two ranges, for some devices have no triangles."""
    row = torch.arange(query, device=device).unsqueeze(1) + context
    above = torch.arange(context + query, device=device) > row
    return torch.zeros(above.shape, dtype=dtype, device=device).masked_fill_(above, lowest(dtype))


def _added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask [B, 1, T, S] as a bias [B, T, S]. Infinite entries become finite, so that a row of them stays a number."""
    mask = mask[:, 0]
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, lowest(dtype))
    return mask.to(dtype).clamp_min(lowest(dtype))


def is_cut(split: Split) -> bool:
    """Whether anything of `split` is done within a layer's attention; without, the stack's own attention is faster."""
    return any(getattr(split, axis) != getattr(UNCUT, axis) for axis in ATTENTION_AXES)


def within_layer(split: Split, query: int) -> Split:
    """What of `split` a single layer's attention can do: query chunks become query tiles, batch chunks nothing.

    Each row then sees the same keys in the same blocks as it does in its chunk.
    """
    tile = split.query_tile
    if not tile and split.chunks > 1 and split.chunk_axis == "query" and split.attend == "chunk":
        tile = query // split.chunks
    return replace(split, chunks=1, chunk_axis="query", lag=0, turn="stage", attend="chunk", query_tile=tile)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    split: Split,
    frame: Frame,
) -> torch.Tensor:
    """Attention of a whole layer by `split`, at the bucket of `frame`.

    Args:
        query: [B, K·G, T, D], rotated.
        key: [B, K, S, D].
        value: [B, K, S, D].
        bias: of the frame.
        split: cuts within the layer (`within_layer`).
        frame: the shape and its bucket.

    Returns:
        [B, T, K·G, D].
    """
    bucket = frame.bucket
    heads, head_dim, kv_heads = query.shape[1], query.shape[3], key.shape[1]
    rows = frame.pad_rows(query.transpose(1, 2)).unflatten(2, (kv_heads, heads // kv_heads)).transpose(1, 2)
    span = Span(0, bucket.batch, 0, bucket.query, bucket.context)
    made: torch.Tensor = attention(rows, frame.pad_keys(key), frame.pad_keys(value), bias, span, Tiling.of(split), 1)[0]
    result: torch.Tensor = made[: frame.batch, : frame.query].unflatten(-1, (heads, head_dim))
    return result

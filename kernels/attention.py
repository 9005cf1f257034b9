"""Attention of one chunk of query tokens, cut into tiles.

Terms
    rows: query tokens and their heads of a group, flattened: row t·G + g.
    block: one (query tile × kv tile) rectangle of scores. With `masked_blocks=skip`, blocks and columns that no row of
        the tile may see are left out; with `compute` all keys of the bucket are computed and masked, as a plain
        implementation does. Rows of the cache that later chunks will write are then read as they are, which must be
        finite; their weight is 0.

Ops of a block: `qk` (MME) → `softmax` (TPC) → `pv` (MME), and at the end of a query tile `merge` (TPC), which
brings the rows into token order and writes them to the chunk's output buffer.

One attention may also serve several chunks (`attend=whole`). Each then has an output buffer of its own, so that what
it reads lies together in memory; a tile that spans chunks is written to the buffers of all of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from overlap.capture import op, piece, region
from overlap.kernels.fused import fused_attention, fused_partial
from overlap.kernels.softmax import Partial, exponentials, merge, row_sums, scale_and_mask, softmax
from overlap.split import Split, blocks


class Span(NamedTuple):
    """Where a chunk lies: batch rows [batch, batch_end), query tokens [query, query_end), and the cached context."""

    batch: int
    batch_end: int
    query: int
    query_end: int
    context: int

    @property
    def tokens(self) -> int:
        """Query tokens of the chunk."""
        return self.query_end - self.query


class Tiling(NamedTuple):
    """The axes of a split that shape the attention of a chunk."""

    head_groups: int
    query_tile: int
    kv_tile: int
    skip: bool
    after: bool
    exact: bool
    fused: bool

    @classmethod
    def of(cls, split: Split) -> Tiling:
        """Pick the axes out of `split`."""
        return cls(
            head_groups=split.head_groups,
            query_tile=split.query_tile,
            kv_tile=split.kv_tile,
            skip=split.masked_blocks == "skip",
            after=split.normalise == "after",
            exact=split.softmax == "exact",
            fused=split.fused_sdpa,
        )


@piece
def attention(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    bias: torch.Tensor | None,
    span: Span,
    tiling: Tiling,
    parts: int,
) -> list[torch.Tensor]:
    """Attention of one chunk, or of several at once, whose query tokens are given back in equal parts.

    Args:
        query: [B, K, T, G, D], rotated.
        key_cache: [B', K, S, D] of the whole batch, filled up to the chunk's last token.
        value_cache: likewise.
        bias: [query, S] of the whole bucket, or None in decode; or [B', query, S] where sequences are padded, which
            may then mask keys before the diagonal too.
        span: where the chunk lies.
        tiling: how to cut it.
        parts: how many parts to give back.

    Returns:
        [B, T / parts, K·G·D] each, heads in order.
    """
    batch, kv_heads, tokens, group, head_dim = query.shape
    each = tokens // parts
    merged = [query.new_empty(batch, each, kv_heads, group, head_dim) for _ in range(parts)]
    per_group = kv_heads // tiling.head_groups
    for index, (head, head_end) in enumerate(blocks(0, kv_heads, per_group)):
        for row, row_end in blocks(0, tokens, tiling.query_tile):
            name = _tile_name(index, tiling.head_groups, row, tiling.query_tile)
            with region(name):
                tile = Tile(span, head, head_end, row, row_end)
                rows = query[:, head:head_end, row:row_end]
                keys = key_cache[span.batch : span.batch_end, head:head_end]
                values = value_cache[span.batch : span.batch_end, head:head_end]
                target = [
                    one[:, max(row - first, 0) : row_end - first, head:head_end]
                    for first, one in zip(range(0, tokens, each), merged, strict=True)
                    if first < row_end and row < first + each
                ]
                if tiling.fused:
                    _fused_tile(rows, keys, values, bias, tile, tiling, target)
                else:
                    _tile(rows, keys, values, bias, tile, tiling, target)
    return [one.view(batch, each, kv_heads * group * head_dim) for one in merged]


def _write(result: torch.Tensor, target: list[torch.Tensor]) -> None:
    """Copy [B, t, k, G, D] to where the chunks of its tokens want it."""
    if len(target) == 1:
        target[0].copy_(result)
        return
    for part, one in zip(result.split([one.shape[1] for one in target], dim=1), target, strict=True):
        one.copy_(part)


class Tile(NamedTuple):
    """One query tile: KV heads [head, head_end), chunk tokens [row, row_end)."""

    span: Span
    head: int
    head_end: int
    row: int
    row_end: int

    @property
    def first_key(self) -> int:
        """Position of the first row; keys up to it are visible to every row of the tile."""
        return self.span.context + self.span.query + self.row

    @property
    def end_key(self) -> int:
        """One past the last key that any row of the tile may see."""
        return self.span.context + self.span.query + self.row_end

    def bias(self, bias: torch.Tensor | None, key: int, key_end: int) -> torch.Tensor | None:
        """The tile's part of the bias over keys [key, key_end)."""
        if bias is None or key >= key_end:
            return None
        rows = slice(self.span.query + self.row, self.span.query + self.row_end)
        if bias.dim() == 2:
            return bias[rows, key:key_end]
        return bias[self.span.batch : self.span.batch_end, rows, key:key_end]


def _tile_name(group: int, groups: int, row: int, query_tile: int) -> str:
    parts = [f"g{group}"] if groups > 1 else []
    parts += [f"q{row // query_tile}"] if query_tile else []
    return ".".join(parts)


def _tile(
    rows: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
    tile: Tile,
    tiling: Tiling,
    target: list[torch.Tensor],
) -> None:
    """One query tile [B, k, t, G, D] against the keys it may see, into the parts of `target` [B, t', k, G, D]."""
    batch, heads, tokens, group, head_dim = rows.shape
    flat = rows.reshape(batch, heads, tokens * group, head_dim)
    scale = head_dim**-0.5
    end = tile.end_key if tiling.skip else keys.shape[2]
    partials = []
    for index, (key, key_end) in enumerate(blocks(0, end, tiling.kv_tile)):
        name = f"k{index}" if tiling.kv_tile else ""
        with region(name):
            # Without skipping, a plain implementation adds the bias everywhere; with it, only from the diagonal on,
            # unless padding may lie before it.
            first_masked = max(key, tile.first_key) if tiling.skip and not _padded(bias) else key
            masked = tile.bias(bias, first_masked, key_end)
            with op("qk"):
                scores = batched_matmul(flat, keys[:, :, key:key_end].transpose(-1, -2))
            partials.append(_block(scores, values[:, :, key:key_end], scale, masked, first_masked - key, tiling))
    normalised = not tiling.after
    with op("merge"):
        result = partials[0].output if _is_plain(tiling) else merge(partials, normalised)
        _write(result.unflatten(2, (tokens, group)).transpose(1, 2), target)


def _padded(bias: torch.Tensor | None) -> bool:
    """Whether the bias is one of each sequence."""
    return bias is not None and bias.dim() == 3


def _is_plain(tiling: Tiling) -> bool:
    """One softmax over whole rows: nothing to merge, nothing left to divide."""
    return not tiling.kv_tile and not tiling.after


def _block(
    scores: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    bias: torch.Tensor | None,
    first_masked: int,
    tiling: Tiling,
) -> Partial:
    """Softmax and PV of one block of scores [B, k, rows, S']."""
    if _is_plain(tiling):
        with op("softmax"):
            weights = softmax(scale_and_mask(scores, scale, bias, first_masked), tiling.exact)
        with op("pv"):
            output = batched_matmul(weights, values)
        return Partial(output, output, output)
    with op("softmax"):
        weights, maximum = exponentials(scale_and_mask(scores, scale, bias, first_masked), tiling.exact)
        if not tiling.after:
            total = row_sums(weights)
            weights = weights.div_(total)
    if tiling.after:
        # An op of its own: PV needs only the exponentials and can run beside it.
        with op("row_sum"):
            total = row_sums(weights)
    with op("pv"):
        output = batched_matmul(weights, values)
    return Partial(output, maximum, total)


def _fused_tile(
    rows: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
    tile: Tile,
    tiling: Tiling,
    target: list[torch.Tensor],
) -> None:
    """One query tile through the device's own fused attention."""
    if tiling.kv_tile and tile.first_key > 0:
        _sliced_tile(rows, keys, values, bias, tile, tiling, target)
        return
    end = tile.end_key if tiling.skip else keys.shape[2]
    causal = tiling.skip and tile.first_key == 0 and not _padded(bias)
    with op("fused"):
        result = fused_attention(
            rows,
            keys[:, :, :end],
            values[:, :, :end],
            None if causal else tile.bias(bias, 0, end),
            causal and bias is not None,
        )
    with op("merge"):
        _write(result.transpose(1, 2), target)


def _sliced_tile(
    rows: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
    tile: Tile,
    tiling: Tiling,
    target: list[torch.Tensor],
) -> None:
    """One query tile in slices of keys, merged by online softmax.

    Keys before the tile are seen by every row and need no mask. The diagonal slice is masked by the bias, never by the
    kernel's own causal mode, whose statistics need not be those that a merge wants.
    """
    tokens, group = rows.shape[2:4]
    first = 0 if _padded(bias) else tile.first_key if bias is not None else tile.end_key
    diagonal = tile.first_key if bias is not None else tile.end_key
    slices = list(blocks(0, diagonal, tiling.kv_tile))
    if diagonal < tile.end_key:
        slices.append((diagonal, tile.end_key))
    partials = []
    for index, (key, key_end) in enumerate(slices):
        with region(f"k{index}"), op("fused"):
            masked = tile.bias(bias, key, key_end) if key >= first else None
            partials.append(Partial(*fused_partial(rows, keys[:, :, key:key_end], values[:, :, key:key_end], masked)))
    with op("merge"):
        _write(merge(partials, True).unflatten(2, (tokens, group)).transpose(1, 2), target)


def batched_matmul(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """[B, k, m, n] x [B, k, n, p] → [B, k, m, p] without copying an operand.

    A slice of the heads of a batch has two batch strides, which one batched GEMM cannot take; it then runs row by row
    of the batch, where `torch.matmul` would copy the whole cache.
    """
    if _mergeable(left) and _mergeable(right):
        return torch.bmm(_merge(left), _merge(right)).view(*left.shape[:2], left.shape[2], right.shape[3])
    result = left.new_empty(*left.shape[:3], right.shape[3])
    for row in range(left.shape[0]):
        torch.bmm(left[row], right[row], out=result[row])
    return result


def _mergeable(tensor: torch.Tensor) -> bool:
    batch, heads = tensor.shape[:2]
    return batch == 1 or heads == 1 or tensor.stride(0) == heads * tensor.stride(1)


def _merge(tensor: torch.Tensor) -> torch.Tensor:
    batch, heads = tensor.shape[:2]
    if batch == 1:
        return tensor[0]
    if heads == 1:
        return tensor[:, 0]
    return tensor.flatten(0, 1)

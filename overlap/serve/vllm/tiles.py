"""The stack's own fused attention in tiles: per group of heads and per query tile one call of it.

Terms
    stock: the untuned forward, which takes the arguments of `Call`.
    triangle: the bias that lets each row see the keys up to its own.

The kernel's causal mode is asked for only where a tile's first row sees just the first key; anywhere else it would put
the diagonal in the wrong place, so those tiles get their part of the mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from overlap.serve.vllm.call import Call
from overlap.split import Split, blocks

Stock = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Heads:
    """The tensors of one group of heads."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


def fused_tiles(stock: Stock, call: Call, split: Split) -> torch.Tensor:
    """[B, H, T, D] of a call that a plan found nothing against."""
    heads, kv_heads = call.query.shape[1], call.key.shape[1]
    group = heads // kv_heads
    parts = []
    for head, head_end in blocks(0, kv_heads, kv_heads // split.head_groups):
        rows = call.query[:, head * group : head_end * group]
        parts.append(_rows(stock, call, Heads(rows, call.key[:, head:head_end], call.value[:, head:head_end]), split))
    return torch.cat(parts, dim=1)


def _rows(stock: Stock, call: Call, heads: Heads, split: Split) -> torch.Tensor:
    """One group of heads."""
    if not split.query_tile:
        return _run(stock, call, heads, call.attn_mask, call.is_causal, call.valid_sequence_lengths)
    skip = split.masked_blocks == "skip"
    tiles = [
        _tile(stock, call, heads, row, row_end, skip)
        for row, row_end in blocks(0, call.query.shape[2], split.query_tile)
    ]
    return torch.cat(tiles, dim=2)


def _tile(stock: Stock, call: Call, heads: Heads, row: int, row_end: int, skip: bool) -> torch.Tensor:
    """Rows [row, row_end), against the keys that they may see or against all of them."""
    keys = heads.key.shape[2]
    first = keys - heads.query.shape[2] + row
    end = first + row_end - row if skip else keys
    causal = call.attn_mask is None and first == 0 and skip
    mask = None if causal else _mask(call, row, row_end, first, end)
    part = Heads(heads.query[:, :, row:row_end], heads.key[:, :, :end], heads.value[:, :, :end])
    # Lengths are those of whole sequences, and say nothing that the mask does not.
    return _run(stock, call, part, mask, causal, None)


def _mask(call: Call, row: int, row_end: int, first: int, end: int) -> torch.Tensor:
    """What of the mask belongs to rows [row, row_end) and keys [0, end)."""
    if call.attn_mask is not None:
        return call.attn_mask[:, :, row:row_end, :end]
    query = call.query
    last = torch.arange(first, first + row_end - row, device=query.device).unsqueeze(1)
    behind = torch.arange(end, device=query.device) > last
    lowest = torch.finfo(query.dtype).min
    return torch.zeros(behind.shape, dtype=query.dtype, device=query.device).masked_fill(behind, lowest)[None, None]


def _run(
    stock: Stock, call: Call, part: Heads, mask: torch.Tensor | None, causal: bool, lengths: torch.Tensor | None
) -> torch.Tensor:
    """The stock on a part, with the arguments that every version of it has."""
    return stock(
        part.query,
        part.key,
        part.value,
        mask,
        call.dropout_p,
        causal,
        call.scale,
        call.softmax_mode,
        call.recompute_mode,
        lengths,
        call.padding_side,
    )

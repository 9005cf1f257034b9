"""The arithmetic between QK^T and PV, for whole rows and for tiles of rows.

Terms
    exact: exponent and normalisation in fp32, the result rounded once, as eager attention of the field's models does.
    fast: all of it in the model's dtype.
    partial: what one kv tile knows of its rows: the row maximum m and the row sum l = Σ exp(s - m), both fp32.

Merging partials (Milakov & Gimelshein, arXiv 1805.02867): with M = max m_j and c_j = exp(m_j - M), the result is
Σ c_j o_j / Σ c_j l_j for un-normalised o_j, and Σ c_j l_j o_j / Σ c_j l_j where each o_j is already divided by l_j.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Partial(NamedTuple):
    """One kv tile: output o [.., rows, D], maximum m and sum l [.., rows, 1] (fp32)."""

    output: torch.Tensor
    maximum: torch.Tensor
    total: torch.Tensor


def scale_and_mask(scores: torch.Tensor, scale: float, bias: torch.Tensor | None, first_masked: int) -> torch.Tensor:
    """Scale scores [B, K, T·G, S'] in place and add bias [(B,) T, S' - first_masked] to their last columns."""
    scores.mul_(scale)
    if bias is not None:
        masked = scores[..., first_masked:].unflatten(-2, (bias.shape[-2], -1))
        per_row = bias.unsqueeze(-2)
        masked.add_(per_row if bias.dim() == 2 else per_row.unsqueeze(1))
    return scores


def softmax(scores: torch.Tensor, exact: bool) -> torch.Tensor:
    """Rows that sum to 1, in the dtype of `scores`."""
    if exact:
        return torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
    return torch.softmax(scores, dim=-1)


def exponentials(scores: torch.Tensor, exact: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """exp(s - m) in the dtype of `scores` (which it may overwrite) and m in fp32 [.., rows, 1]."""
    maximum = scores.amax(dim=-1, keepdim=True)
    if exact:
        return (scores.float() - maximum).exp_().to(scores.dtype), maximum.float()
    return scores.sub_(maximum).exp_(), maximum.float()


def row_sums(weights: torch.Tensor) -> torch.Tensor:
    """fp32 sums [.., rows, 1] of exponentials. Taken after rounding, so that they divide what PV really adds up."""
    return weights.sum(dim=-1, keepdim=True, dtype=torch.float32)


def merge(partials: list[Partial], normalised: bool) -> torch.Tensor:
    """The softmax-weighted sum over all tiles in fp32 [.., rows, D]; formula in the module's text."""
    if len(partials) == 1:
        output, _, total = partials[0]
        return output.float() if normalised else output / total
    maxima = torch.cat([partial.maximum for partial in partials], dim=-1)
    totals = torch.cat([partial.total for partial in partials], dim=-1)
    factors = (maxima - maxima.amax(dim=-1, keepdim=True)).exp_()
    weights = factors * totals
    denominator = weights.sum(dim=-1, keepdim=True)
    weights = (weights if normalised else factors) / denominator
    merged = partials[0].output * weights[..., 0:1]
    for position, partial in enumerate(partials[1:], start=1):
        merged.addcmul_(partial.output, weights[..., position : position + 1])
    return merged

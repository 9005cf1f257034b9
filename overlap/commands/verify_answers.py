"""Whether two ways of running a model gave the same answers, and if not, whether it was a tie."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from overlap.serve.verdict import Answers


@dataclass(frozen=True)
class Generated:
    """Greedy tokens [B, N], and per step the logits [B, V] that they were chosen by."""

    tokens: torch.Tensor
    logits: list[torch.Tensor]


@dataclass(frozen=True)
class Distance:
    """How far logits are apart: relative L2, and the largest difference of any."""

    rel_l2: float
    largest: float


def compare(one: torch.Tensor, other: torch.Tensor) -> Distance:
    """The distance of `one` from `other`."""
    difference = one.float() - other.float()
    norm = float(other.float().norm())
    rel_l2 = float(difference.norm()) / norm if norm else float(difference.norm())
    return Distance(rel_l2, float(difference.abs().max()))


def answers(untouched: Generated, tuned: Generated, error: Distance, own: Distance) -> Answers:
    """What both generated; `error` is that of the tuned logits, `own` that of the stack's own attentions."""
    differ = (untouched.tokens != tuned.tokens).any(dim=0).nonzero()
    if not len(differ):
        return Answers(untouched.tokens.shape[1], None, False, error.rel_l2, own.rel_l2)
    ties = []
    for row in range(untouched.tokens.shape[0]):
        steps = (untouched.tokens[row] != tuned.tokens[row]).nonzero()
        if len(steps):
            # Behind the first difference the two go on with different texts, which says nothing more.
            ties.append(_is_tie(untouched.logits[int(steps[0])][row], own.largest))
    return Answers(untouched.tokens.shape[1], int(differ[0]), all(ties), error.rel_l2, own.rel_l2)


def _is_tie(logits: torch.Tensor, apart: float) -> bool:
    """Whether the two best lie closer together than each may move."""
    best = logits.topk(2).values
    return float(best[0] - best[1]) <= 2 * apart

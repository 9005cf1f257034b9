"""What an A/B of tuned against untouched comes to, in one word and one sentence.

Terms
    block: the window of layers on the device's engines, kept split against baseline: what a sweep measures.
    model: the whole model in its stack, tuned against untouched.
    own error: how far the stack's own attentions are apart from each other, in relative L2 of the logits.
    tie: a step of greedy decoding at which the two best logits of the untouched model lie closer together than its
        own attentions lie apart, so that either token is as right as the other.

A kernel that is faster while the model is not is no gain for whoever serves the model, and is called so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from overlap.serve.counts import Counts
from overlap.stats import Interval

GAIN, BLOCK_ONLY, NO_GAIN, WRONG = VERDICTS = ("gain", "block only", "no gain", "wrong")
MARGIN = 0.01
# How much further than the own error the logits may be, and what is never called an error: a few roundings of fp32.
WITHIN, FLOOR = 2.0, 1e-5


@dataclass(frozen=True)
class Answers:
    """What both computed: `first_difference` is the first step of greedy decoding that differs, none if none does."""

    tokens: int
    first_difference: int | None
    tie: bool
    logits_rel_l2: float
    own_rel_l2: float

    @property
    def wrong(self) -> str:
        """Why the tuned model is not the same model; empty if it is."""
        allowed = max(FLOOR, WITHIN * self.own_rel_l2)
        if not self.logits_rel_l2 <= allowed:
            return f"its logits are {self.logits_rel_l2:.1e} off, more than {allowed:.1e}"
        if self.first_difference is not None and not self.tie:
            return f"greedy token {self.first_difference + 1} differs, and it was no tie"
        return ""


def judge(block: Interval | None, model: Interval, answers: Answers, ran: Counts) -> tuple[str, str]:
    """The verdict, one of `VERDICTS`, and the reason for it.

    Args:
        block: speed-up of the kept split over the baseline, if it was timed.
        model: speed-up of the tuned model over the untouched one.
        answers: what both computed.
        ran: the calls of a tuned step; a step in which nothing ran tuned gains nothing, whatever the clock says.
    """
    why = "; ".join(ran.passed)
    if not ran.tuned:
        return NO_GAIN, f"nothing ran tuned: {why}"
    verdict, reason = _judged(block, model, answers)
    return verdict, f"{reason}; {why}" if why else reason


def _judged(block: Interval | None, model: Interval, answers: Answers) -> tuple[str, str]:
    if not math.isfinite(answers.own_rel_l2):
        return NO_GAIN, "the logits of the untouched model are no numbers, so nothing can be compared"
    if wrong := answers.wrong:
        return WRONG, f"the tuned model does not compute the same: {wrong}"
    shown = f"{model.median:.3f}x [{model.low:.3f}, {model.high:.3f}]"
    if model.low >= 1 + MARGIN:
        return GAIN, f"the model is faster, {shown}"
    slower = "slower" if model.high < 1 else "not faster for sure"
    if block is not None and block.low >= 1 + MARGIN:
        return BLOCK_ONLY, f"the block is {block.median:.3f}x, but the model is {slower}, {shown}"
    return NO_GAIN, f"the model is {slower}, {shown}"

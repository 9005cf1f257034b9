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

from dataclasses import dataclass

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


def judge(block: Interval | None, model: Interval, answers: Answers) -> tuple[str, str]:
    """The verdict, one of `VERDICTS`, and the reason for it; speed-ups are tuned over untouched."""
    if wrong := answers.wrong:
        return WRONG, f"the tuned model does not compute the same: {wrong}"
    shown = f"{model.median:.3f}x [{model.low:.3f}, {model.high:.3f}]"
    if model.low >= 1 + MARGIN:
        return GAIN, f"the model is faster, {shown}"
    slower = "slower" if model.high < 1 else "not faster for sure"
    if block is not None and block.low >= 1 + MARGIN:
        return BLOCK_ONLY, f"the block is {block.median:.3f}x, but the model is {slower}, {shown}"
    return NO_GAIN, f"the model is {slower}, {shown}"

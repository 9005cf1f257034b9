"""Deciding: keep a variant only if it is faster beyond doubt, right, and fits; otherwise the baseline stays.

1. Only samples of the final stage count. They were taken after the finalists had been chosen, so the luck that made a
   candidate a finalist is not in them.
2. The confidence is divided by the number of finalists (Bonferroni): with three finalists at 95 % each interval is at
   98.3 %, and the chance that any wrong one is kept stays below 5 %.
3. A variant passes if the lower bound of its paired speed-up reaches 1 + margin, no check failed and none of its runs
   in the final did.
   A device that measures gives an interval of samples; a model gives the same time every time, and the interval is
   what the constants leave open that nobody knows exactly.
4. Of those that pass, the fastest is kept, unless a simpler one cannot be told apart from it: its paired times are
   not slower for sure, and by less than half the margin in the median.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from overlap.search.candidate import BASELINE, Candidate
from overlap.search.check import Checked
from overlap.search.journal import Journal
from overlap.search.race import failure_of, paired_ratios, speedup
from overlap.stats import Interval, median_interval

FINAL = "final"


@dataclass(frozen=True)
class Considered:
    """A finalist and why it could not be kept (empty if it could)."""

    candidate: Candidate
    speedup: Interval
    reason: str


@dataclass(frozen=True)
class Verdict:
    """The kept candidate (the baseline if nothing passed) and all that were considered."""

    kept: Candidate
    speedup: Interval
    considered: tuple[Considered, ...]
    reason: str


# The speed-up of a candidate over the baseline as a model gives it; None where samples tell.
Modelled = Callable[[Candidate], Interval | None]


def decide(
    journal: Journal,
    finalists: Sequence[Checked],
    confidence: float,
    margin: float,
    modelled: Modelled = lambda candidate: None,
) -> Verdict:
    """Apply the rules of the module's text to the samples of the final stage."""
    each = 1.0 - (1.0 - confidence) / max(1, len(finalists))
    considered = tuple(_consider(journal, one, each, margin, modelled) for one in finalists)
    passed = [one for one in considered if not one.reason]
    if not passed:
        reason = "; ".join(f"{one.candidate.key}: {one.reason}" for one in considered) or "no candidate could run"
        return Verdict(BASELINE, Interval(1.0, 1.0, 1.0, 0), considered, reason)
    fastest = max(passed, key=lambda one: one.speedup.median)
    ties = [one for one in passed if one is fastest or _tied(journal, fastest, one, each, margin)]
    kept = min(ties, key=lambda one: (one.candidate.split.complexity, -one.speedup.median))
    reason = "fastest" if kept is fastest else f"as fast as {fastest.candidate.key}, and simpler"
    return Verdict(kept.candidate, kept.speedup, considered, reason)


def _consider(journal: Journal, one: Checked, confidence: float, margin: float, modelled: Modelled) -> Considered:
    found = speedup(journal, FINAL, BASELINE.key, one.candidate.key, confidence)
    if found is not None and not one.failure:
        found = modelled(one.candidate) or found
    failure = one.failure or failure_of(journal, FINAL, one.candidate.key)
    if found is None:
        return Considered(one.candidate, Interval(0.0, 0.0, 0.0, 0), failure or "no complete round in the final")
    if failure:
        return Considered(one.candidate, found, failure)
    if not found.low >= 1.0 + margin:
        text = (
            f"speed-up {found.median:.3f} [{found.low:.3f}, {found.high:.3f}] does not reach {1 + margin:.3f} for sure"
        )
        return Considered(one.candidate, found, text)
    return Considered(one.candidate, found, "")


def _tied(journal: Journal, fastest: Considered, other: Considered, confidence: float, margin: float) -> bool:
    """Whether `other` cannot be told apart from the fastest."""
    ratios = paired_ratios(journal, FINAL, other.candidate.key, fastest.candidate.key)
    if not ratios:
        return False
    slower = median_interval(ratios, confidence)
    return slower.low <= 1.0 and slower.median <= 1.0 + margin / 2

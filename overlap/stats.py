"""Statistics that stay true for small, skewed, drifting samples: order statistics, no normal distribution anywhere.

Terms
    interval: median with a distribution-free confidence interval from order statistics (binomial, exact).
    paired: sample i of the candidate was taken in the same round as sample i of the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A median and the confidence interval around it, in the unit of the samples.

    `low`/`high` are infinite (0 and inf) where there are too few samples for the confidence that was asked for.
    """

    median: float
    low: float
    high: float
    samples: int


def finite(interval: Interval) -> dict[str, float | None]:
    """The fields of an interval for JSON; bounds that too few samples leave open are None."""
    low, high = interval.low or None, interval.high if math.isfinite(interval.high) else None
    return {"median": interval.median, "low": low, "high": high, "samples": interval.samples}


def median(values: Sequence[float]) -> float:
    """Median of a non-empty sequence; the mean of the middle two for an even count."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def rank_for(samples: int, tail: float) -> int:
    """Largest k ≥ 1 with P(Binomial(samples, ½) < k) ≤ tail, or 0 if even the extreme sample does not reach it.

    The k-th smallest sample is then a lower confidence bound of the median at level 1 - tail (Conover, Practical
    Nonparametric Statistics, ch. 3: the sign-test interval).
    """
    below, rank = 0.0, 0
    for k in range(samples // 2 + 1):
        below += math.comb(samples, k) / 2.0**samples
        if below > tail:
            break
        rank = k + 1
    return rank


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Median of positive `values` with a two-sided, distribution-free interval at `confidence`."""
    ordered = sorted(values)
    rank = rank_for(len(ordered), (1.0 - confidence) / 2.0)
    if rank == 0:
        return Interval(median(ordered), 0.0, math.inf, len(ordered))
    return Interval(median(ordered), ordered[rank - 1], ordered[-rank], len(ordered))


def samples_needed(confidence: float) -> int:
    """Fewest samples for which `median_interval` is finite at `confidence`."""
    needed = 1
    while rank_for(needed, (1.0 - confidence) / 2.0) == 0:
        needed += 1
    return needed

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.stats import median, median_interval, rank_for, samples_needed

positive = st.floats(1e-3, 1e9)


def exact_tail(samples: int, below: int) -> Fraction:
    """P(Binomial(samples, ½) < below)."""
    return Fraction(sum(math.comb(samples, k) for k in range(below)), 2**samples)


@given(st.integers(1, 80), st.sampled_from([0.25, 0.05, 0.025, 0.005]))
def test_rank_is_the_largest_within_the_tail(samples: int, tail: float) -> None:
    rank = rank_for(samples, tail)
    assert rank == 0 or exact_tail(samples, rank) <= Fraction(tail)
    assert exact_tail(samples, rank + 1) > Fraction(tail)


def test_ranks_of_the_textbook() -> None:
    # Conover, Practical Nonparametric Statistics: 95 % needs 6 samples; of 15 the 4th, of 20 the 6th.
    assert [rank_for(n, 0.025) for n in (5, 6, 15, 20)] == [0, 1, 4, 6]


@given(st.lists(positive, min_size=1, max_size=40))
def test_median_splits_the_samples(values: list[float]) -> None:
    middle = median(values)
    assert sum(one < middle for one in values) <= len(values) / 2
    assert sum(one > middle for one in values) <= len(values) / 2


@given(st.lists(positive, min_size=1, max_size=40), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_interval_holds_the_median(values: list[float], confidence: float) -> None:
    found = median_interval(values, confidence)
    assert found.low <= found.median <= found.high
    assert found.samples == len(values)
    assert math.isinf(found.high) == (len(values) < samples_needed(confidence))


@given(st.lists(positive, min_size=6, max_size=20), st.randoms())
def test_order_of_samples_does_not_matter(values: list[float], source: random.Random) -> None:
    mixed = list(values)
    source.shuffle(mixed)
    assert median_interval(values) == median_interval(mixed)


@given(st.lists(positive, min_size=6, max_size=30))
def test_more_confidence_is_wider(values: list[float]) -> None:
    narrow, wide = median_interval(values, 0.8), median_interval(values, 0.99)
    assert wide.low <= narrow.low
    assert wide.high >= narrow.high


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("samples", [6, 15])
def test_interval_covers_the_true_median_of_skewed_samples(samples: int, confidence: float) -> None:
    # Log-normal, heavy to the right like times on a shared machine; its median is 1.
    source, trials, covered = random.Random(7), 3000, 0
    for _ in range(trials):
        values = [math.exp(source.gauss(0.0, 1.0)) for _ in range(samples)]
        found = median_interval(values, confidence)
        covered += found.low <= 1.0 <= found.high
    # Three standard errors of the simulation itself.
    assert covered / trials >= confidence - 3 * math.sqrt(confidence * (1 - confidence) / trials)


def test_samples_needed() -> None:
    assert samples_needed(0.95) == 6
    assert samples_needed(0.5) == 2

"""Races: random but repeatable turns, every sample kept, failures that cost only themselves, resumption, no drift."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NoReturn

import pytest

from overlap.errors import DeviceError, OpFailedError
from overlap.search.candidate import BASELINE
from overlap.search.race import (
    Entrant,
    best_so_far,
    failure_of,
    hopeless,
    paired_ratios,
    race,
    speedup,
    times_of,
)
from overlap.stats import median
from tests.sweeps import MemoryJournal, Silent, samples

NAMES = ("a", "b", "c", BASELINE.key)


def constant(**times: int) -> dict[str, Entrant]:
    """Entrants that always take the same time."""
    return {name: (lambda ns=ns: ns) for name, ns in times.items()}  # type: ignore[misc]


def run(
    journal: MemoryJournal,
    entrants: dict[str, Entrant],
    rounds: int,
    seed: int = 0,
    keep: Callable[[str, int], bool] = lambda name, number: True,
) -> None:
    """A race of the stage `x`."""
    race(journal, "x", entrants, rounds, seed, Silent(), keep)


def turns(seed: int, rounds: int = 20) -> list[list[str]]:
    """Order of the entrants by round."""
    journal = MemoryJournal()
    run(journal, {name: lambda: 1 for name in NAMES}, rounds, seed)
    taken = [name for _, _, name in samples(journal.records)]
    return [taken[at : at + len(NAMES)] for at in range(0, len(taken), len(NAMES))]


def test_every_round_has_a_random_order_from_the_seed() -> None:
    """Everybody once per round, everybody first now and then, the same again for the same seed."""
    rounds = turns(7)
    assert all(sorted(one) == sorted(NAMES) for one in rounds)
    assert {one[0] for one in rounds} == set(NAMES)
    assert rounds == turns(7)
    assert rounds != turns(8)


def test_every_sample_is_recorded() -> None:
    journal = MemoryJournal()
    counter = iter(range(1, 100))
    run(journal, {name: lambda: next(counter) for name in NAMES}, 5)
    taken = [record["time_ns"] for record in journal.of_kind("sample")]
    assert taken == list(range(1, 21))
    assert sorted(ns for name in NAMES for ns in times_of(journal, "x", name)) == taken
    assert all(record["session"] == "first" for record in journal.records)
    assert len(set(samples(journal.records))) == 20


def test_one_that_fails_is_dropped_and_the_others_go_on() -> None:
    journal = MemoryJournal()
    calls = iter(range(100))

    def third_time_unlucky() -> int:
        if next(calls) == 2:
            raise OpFailedError("op x failed: boom")
        return 5

    run(journal, {**constant(a=1, baseline=2), "bad": third_time_unlucky}, 6)
    assert [len(times_of(journal, "x", name)) for name in ("a", "baseline", "bad")] == [6, 6, 2]
    assert failure_of(journal, "x", "bad") == "op x failed: boom"
    assert failure_of(journal, "x", "a") == failure_of(journal, "y", "bad") == ""
    assert next(calls) == 3
    journal.session = "second"
    run(journal, {**constant(a=1, baseline=2), "bad": third_time_unlucky}, 7)
    assert next(calls) == 4, "it stays dropped when the sweep goes on"


def test_a_failing_baseline_ends_the_race() -> None:
    """Without it nothing can be compared; it is not noted as dropped, so a later session tries again."""
    journal = MemoryJournal()

    def fail() -> int:
        raise DeviceError("gone")

    with pytest.raises(DeviceError, match="gone"):
        run(journal, {"a": lambda: 1, BASELINE.key: fail}, 3)
    assert not list(journal.of_kind("failure"))


def interrupted(entrants: dict[str, Entrant], at: int) -> dict[str, Entrant]:
    """The same entrants, killed at the `at`-th sample."""
    taken = iter(range(10**6))

    def cut(entrant: Entrant) -> int:
        if next(taken) == at:
            raise KeyboardInterrupt
        return entrant()

    return {name: (lambda one=one: cut(one)) for name, one in entrants.items()}  # type: ignore[misc]


@pytest.mark.parametrize("at", range(12))
def test_half_a_round_is_completed_but_never_paired(at: int) -> None:
    """After the kill the machine is twice as slow; ratios must not see it."""
    journal = MemoryJournal()
    with pytest.raises(KeyboardInterrupt):
        run(journal, interrupted(constant(a=100, b=50, baseline=200), at), 4)
    journal.session = "second"
    run(journal, constant(a=200, b=100, baseline=400), 4)
    cut = at % 3 != 0
    assert len(samples(journal.records)) == len(set(samples(journal.records))) == 12 + 3 * cut
    ratios = paired_ratios(journal, "x", "baseline", "a")
    assert set(ratios) == {2.0}
    assert len(ratios) >= 4
    run(journal, {}, 4)


def noisy(seed: int, noise: float, **times: float) -> dict[str, Entrant]:
    """Entrants with Gaussian noise, a fraction of their time."""
    rng = random.Random(seed)
    return {name: (lambda ns=ns: int(ns * rng.gauss(1, noise))) for name, ns in times.items()}  # type: ignore[misc]


def test_only_clear_losers_are_hopeless() -> None:
    names = ["good", "near", "bad"]
    journal = MemoryJournal()
    run(journal, noisy(1, 0.02, baseline=1e6, good=0.9e6, near=0.905e6, bad=1.3e6), 5)
    assert hopeless(journal, "x", "baseline", names, 0.95) == set(), "five rounds cannot tell at 95 %"
    run(journal, noisy(2, 0.02, baseline=1e6, good=0.9e6, near=0.905e6, bad=1.3e6), 9)
    assert hopeless(journal, "x", "baseline", names, 0.95) == {"bad"}
    assert hopeless(journal, "x", "baseline", names, 0.95, before=5) == set()
    assert hopeless(MemoryJournal(), "x", "baseline", names, 0.95) == set()


def test_equals_are_rarely_dropped() -> None:
    """Three that are equally fast at 10 % noise: two intervals at 95 % that do not meet are rare."""
    dropped = 0
    for seed in range(100):
        journal = MemoryJournal()
        run(journal, noisy(seed, 0.1, baseline=1e6, a=1e6, b=1e6, c=1e6), 8, seed)
        dropped += len(hopeless(journal, "x", "baseline", ["a", "b", "c"], 0.95))
    assert dropped <= 3


@pytest.mark.parametrize("seed", range(10))
def test_a_race_gone_through_again_drops_the_same_and_measures_nothing(seed: int) -> None:
    """Whom a round drops follows from the rounds before it, not from what came later."""
    journal = MemoryJournal()

    def keep(name: str, number: int) -> bool:
        return name not in hopeless(journal, "x", "baseline", ["a", "b", "c"], 0.8, number)

    def refuse() -> NoReturn:
        raise AssertionError("nothing is left to measure")

    run(journal, noisy(seed, 0.1, baseline=1e6, a=1e6, b=1.25e6, c=1.3e6), 14, seed, keep)
    count = len(journal.records)
    assert count < 4 * 14, "somebody was dropped"
    run(journal, dict.fromkeys(["baseline", "a", "b", "c"], refuse), 14, seed, keep)
    assert len(journal.records) == count


@pytest.mark.parametrize("slope", [-0.9, 3.0])
def test_drift_cancels(slope: float) -> None:
    """The machine gets four times slower (or ten times faster) on the way; 4 % are still told apart."""
    rounds, taken, rng = 25, iter(range(10**6)), random.Random(3)
    total = rounds * 3

    def drifting(ns: float) -> Entrant:
        return lambda: int(ns * (1 + slope * next(taken) / total) * rng.gauss(1, 0.01))

    journal = MemoryJournal()
    run(journal, {"baseline": drifting(1e6), "fast": drifting(0.9e6), "faster": drifting(0.86e6)}, rounds)
    fast, faster = (speedup(journal, "x", "baseline", name, 0.95) for name in ("fast", "faster"))
    assert fast is not None
    assert faster is not None
    assert fast.median == pytest.approx(1 / 0.9, rel=0.03)
    assert faster.median == pytest.approx(1 / 0.86, rel=0.03)
    assert fast.low > 1.0
    assert median(paired_ratios(journal, "x", "fast", "faster")) > 1.0


def test_best_so_far_names_the_lowest_median() -> None:
    journal = MemoryJournal()
    assert best_so_far(journal, "x") == ""
    run(journal, constant(a=3_000_000, b=2_000_000, stack=1), 3)
    assert best_so_far(journal, "x") == "best so far 2 ms: b"
    assert speedup(journal, "x", "a", "nobody", 0.95) is None

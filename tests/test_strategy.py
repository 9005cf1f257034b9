"""Strategies: every candidate at most once, the same questions for the same seed, and what each is there for."""

from __future__ import annotations

import builtins
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.errors import ConfigError
from overlap.search.candidate import Candidate
from overlap.search.optuna_strategy import Tpe
from overlap.search.strategy import STRUCTURE, Grid, ModelGuided, Random, Strategy, drive, features, varying
from overlap.split import Split

SPACE = [
    Candidate(Split(chunks=chunks, lag=lag, query_tile=tile, projections=projections, masked_blocks="skip"), order)
    for chunks in (1, 2, 4, 8)
    for lag in ((0,) if chunks == 1 else (0, 1))
    for tile in (0, 128)
    for projections in ("fused", "split")
    for order in ("program", "list")
]


def true_ns(one: Candidate) -> int:
    """A made-up device: four chunks with tiles and a lag are the best."""
    split = one.split
    chunks = {1: 1.3, 2: 1.1, 4: 1.0, 8: 1.2}[split.chunks]
    return int(
        1e6
        * chunks
        * (1 if split.query_tile else 1.1)
        * (1 if split.lag else 1.05)
        * (1 if one.order == "list" else 1.04)
    )


def predicted(wrong: Mapping[int, float] | None = None) -> dict[Candidate, int]:
    """Predictions that are off by a factor per number of chunks."""
    return {one: int(true_ns(one) * (wrong or {}).get(one.split.chunks, 1.0)) for one in SPACE}


def tpe(candidates: list[Candidate], seed: int) -> Strategy:
    """TPE, where Optuna is installed."""
    pytest.importorskip("optuna")
    return Tpe(candidates, seed)


MAKERS: dict[str, Callable[[list[Candidate], int], Strategy]] = {
    "grid": lambda candidates, _: Grid(candidates),
    "random": Random,
    "guided": lambda candidates, _: ModelGuided({one: true_ns(one) for one in candidates}),
    "tpe": tpe,
}


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(0, 20), failing=st.floats(0, 1))
def test_everything_is_asked_for_once_then_nothing(name: str, seed: int, count: int, failing: float) -> None:
    """Whatever fails, whatever is listed twice, and whether the answers come one by one or late."""
    rng = random.Random(seed)
    candidates = rng.sample(SPACE, count)
    strategy = MAKERS[name]([*candidates, *candidates[:3]], seed)
    asked: list[Candidate] = []
    waiting: list[Candidate] = []
    while (one := strategy.ask()) is not None:
        asked.append(one)
        waiting.append(one)
        while waiting and rng.random() < 0.7:
            told = waiting.pop(rng.randrange(len(waiting)))
            strategy.tell(told, None if rng.random() < failing else true_ns(told))
    assert len(asked) == len(set(asked)) == count
    assert set(asked) == set(candidates)
    assert strategy.ask() is None


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_seed_asks_the_same(name: str) -> None:
    runs = [drive(MAKERS[name](SPACE, seed), true_ns, 12) for seed in (3, 3, 4)]
    assert runs[0] == runs[1]
    assert (runs[0] != runs[2]) == (name in ("random", "tpe"))


@pytest.mark.parametrize("name", MAKERS)
def test_what_an_earlier_session_measured_is_not_asked_for(name: str) -> None:
    strategy = MAKERS[name](SPACE, 0)
    earlier = random.Random(1).sample(SPACE, 10)
    for one in earlier:
        strategy.tell(one, true_ns(one))
    strategy.tell(Candidate(Split(chunks=64)), 1)
    asked = [one for one, _ in drive(strategy, true_ns, len(SPACE))]
    assert set(asked) == set(SPACE) - set(earlier)


def test_drive_stops_at_the_limit_and_leaves_failures_out() -> None:
    found = drive(Grid(SPACE), lambda one: None if one.split.query_tile else true_ns(one), 6)
    assert [one for one, _ in found] == [one for one in SPACE[:6] if not one.split.query_tile]
    assert drive(Grid([]), true_ns, 5) == []


def test_a_grid_keeps_its_order_and_random_does_not() -> None:
    assert [one for one, _ in drive(Grid(SPACE), true_ns, 99)] == SPACE
    assert [one for one, _ in drive(Random(SPACE, 0), true_ns, 99)] != SPACE


def best() -> int:
    """The best time there is."""
    return min(true_ns(one) for one in SPACE)


def asked_until_best(strategy: Strategy) -> int:
    """Measurements until the best one is among them."""
    times = [time_ns for _, time_ns in drive(strategy, true_ns, len(SPACE))]
    return times.index(best()) + 1


def test_a_right_prediction_needs_one_measurement() -> None:
    assert asked_until_best(ModelGuided(predicted())) == 1


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_a_factor_that_is_wrong_everywhere_does_not_matter(scale: float) -> None:
    assert asked_until_best(ModelGuided(predicted(dict.fromkeys((1, 2, 4, 8), scale)))) == 1


def test_what_is_wrong_for_one_value_of_an_axis_is_corrected() -> None:
    """Eight chunks look twice as good as they are: 16 of 56 candidates come first, unless one learns from the first."""
    wrong = predicted({8: 0.5})
    by_prediction = asked_until_best(Grid(sorted(SPACE, key=lambda one: wrong[one])))
    assert by_prediction > 16
    assert asked_until_best(ModelGuided(wrong)) <= by_prediction / 2


def test_a_single_disturbed_measurement_does_not_mislead_for_long() -> None:
    """The first one measured takes ten times as long as it should, as under a neighbour's load."""
    first = ModelGuided(predicted({8: 0.5})).ask()
    assert first is not None
    strategy = ModelGuided(predicted({8: 0.5}))
    times = drive(strategy, lambda one: true_ns(one) * (10 if one == first else 1), len(SPACE))
    assert [time_ns for _, time_ns in times].index(best()) < len(SPACE) / 3


@pytest.mark.parametrize("spread", [1, 3, 5])
def test_the_first_few_differ_in_structure(spread: int) -> None:
    """Two orders or two projections of one structure teach less than two structures."""
    strategy = ModelGuided(predicted(), spread=spread)
    asked = [one for one, _ in drive(strategy, true_ns, spread)]
    shapes = {tuple(features(one)[axis] for axis in STRUCTURE) for one in asked}
    assert len(shapes) == spread
    assert asked[0] == ModelGuided(predicted()).ask()


def test_a_space_of_one_structure_is_still_asked_for() -> None:
    few = [one for one in SPACE if one.split.chunks == 4 and one.split.lag and one.split.query_tile]
    assert len(drive(ModelGuided({one: true_ns(one) for one in few}), true_ns, 99)) == len(few) == 4


def test_only_axes_that_differ_are_features_to_learn_from() -> None:
    assert varying(SPACE) == {
        "chunks": [1, 2, 4, 8],
        "lag": [0, 1],
        "query_tile": [0, 128],
        "projections": ["fused", "split"],
        "order": ["list", "program"],
    }
    assert varying(SPACE[:1]) == varying([]) == {}


def test_tpe_finds_the_best_sooner_than_chance() -> None:
    """Median over seeds; 3 of 56 candidates are the best."""
    pytest.importorskip("optuna")
    close = [one for one in SPACE if true_ns(one) == best()]
    needed = sorted(asked_until_best(Tpe(SPACE, seed)) for seed in range(9))
    assert needed[4] < (len(SPACE) + 1) / (len(close) + 1)


def test_tpe_says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "optuna":
            raise ImportError(name)
        return honest(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"overlap\[optuna\]"):
        Tpe(SPACE, 0)

"""The tuner on machines with bad habits: what it may keep, what it must find, and that each of its guards is needed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from overlap.errors import OpFailedError
from overlap.search import decide as deciding
from overlap.search import race as racing
from overlap.search.candidate import BASELINE, Candidate
from overlap.search.check import Checked
from overlap.search.decide import FINAL, Verdict
from overlap.search.journal import Journal
from overlap.search.race import Entrant, times_of
from overlap.search.sweep import SweepResult
from overlap.stats import Interval, median
from tests import noise, sweeps
from tests.fakes import FakeDevice, FakeRunnable
from tests.noise import BASE_NS, CANDIDATES, HABITS, SEARCH, Decide, Habit, lucky, nothing_faster, simulated
from tests.sweeps import Untouchable, candidate

SWEEPS = 300
FASTER, SLOWER = CANDIDATES[2], CANDIDATES[1]
ONE_FASTER = {FASTER.key: BASE_NS / 1.1, SLOWER.key: BASE_NS * 1.1}
# Least share of sweeps in which a true 10 % are found with 19 rounds. Where runs differ by half their time, 19 rounds
# are few; what differs tenfold hides 10 % altogether.
POWER = dict.fromkeys(HABITS, 0.75) | {
    "log-normal": 0.25,
    "throttled": 0.15,
    "in step": 0.0,
    "neighbours": 0.4,
    "coarse clock": 0.5,
    "random": 0.0,
}


def chance_of_at_most(hits: int, trials: int, rate: float) -> float:
    """P(Binomial(trials, rate) ≤ hits)."""
    return sum(math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(hits + 1))


@cache
def false_keeps(habit: str) -> int:
    """Sweeps of `SWEEPS` that keep something although nothing is faster."""
    return kept_though_equal(HABITS[habit], range(SWEEPS))


def kept_though_equal(habit: Habit, seeds: Sequence[int], decided: Decide = deciding.decide) -> int:
    """Sweeps that keep something although nothing is faster."""
    return sum(simulated(seed, habit, nothing_faster(seed), decided).kept != BASELINE for seed in seeds)


# -- nothing is faster -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("habit", HABITS)
def test_where_nothing_is_faster_nothing_is_kept(habit: str) -> None:
    """If the true rate were 5 % or more, as few hits as these would be seen in less than 1 % of such tests."""
    kept = false_keeps(habit)
    assert chance_of_at_most(kept, SWEEPS, 0.05) < 0.01, f"{kept} of {SWEEPS} kept"


def test_over_all_habits_the_rate_is_far_below() -> None:
    """By design at most 2.5 %, since the intervals are two-sided; the margin takes most of that."""
    total = SWEEPS * len(HABITS)
    kept = sum(false_keeps(habit) for habit in HABITS)
    assert total >= 500
    assert chance_of_at_most(kept, total, 0.025) < 0.001, f"{kept} of {total} kept"


# -- something is faster ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("habit", HABITS)
def test_a_true_gain_is_found_and_nothing_slower_is_kept(habit: str) -> None:
    """One is 10 % faster, one 10 % slower, three are equal."""
    found = [simulated(seed, HABITS[habit], ONE_FASTER).kept for seed in range(60)]
    assert found.count(FASTER) >= POWER[habit] * len(found)
    assert found.count(SLOWER) == 0
    assert len(found) - found.count(FASTER) - found.count(BASELINE) <= 0.05 * len(found)


@pytest.mark.parametrize("habit", ["log-normal", "throttled", "neighbours"])
def test_more_rounds_find_what_few_cannot(habit: str) -> None:
    """Four times the rounds, so that the limits above are those of the samples and not of the method."""
    search = replace(SEARCH, final_rounds=4 * SEARCH.final_rounds)
    found = [simulated(seed, HABITS[habit], ONE_FASTER, search=search).kept for seed in range(20)]
    assert found.count(FASTER) >= 0.6 * len(found)


def test_luck_that_lasts_as_long_as_a_process_is_beyond_any_interval() -> None:
    """The limit of measuring in one process, on record: ±3 % by where memory lies look like a true gain.

    The interval is right about this process; whether another one would be as lucky it cannot know.
    """
    assert kept_though_equal(lucky, range(60)) > 0.2 * 60


# -- the tests above can fail: each guard taken away -----------------------------------------------------------------


def assert_fooled(habit: str, decided: Decide = deciding.decide) -> None:
    """More than one sweep in ten keeps something although nothing is faster."""
    kept = kept_though_equal(HABITS[habit], range(60), decided)
    assert kept > 0.1 * 60, f"only {kept} of 60"


def _lowest(statistic: Callable[[Sequence[float]], float]) -> Decide:
    """The rule of most tuners: whichever has the lowest number."""

    def decided(journal: Journal, finalists: Sequence[Checked], confidence: float, margin: float) -> Verdict:
        all_of_them = [BASELINE, *(one.candidate for one in finalists)]
        kept = min(all_of_them, key=lambda one: statistic(times_of(journal, FINAL, one.key)))
        return Verdict(kept, Interval(1, 1, 1, 0), (), "lowest")

    return decided


@pytest.mark.parametrize("habit", HABITS)
def test_the_lowest_mean_would_be_fooled(habit: str) -> None:
    assert_fooled(habit, _lowest(lambda times: sum(times) / len(times)))


@pytest.mark.parametrize("habit", ["log-normal", "heavy tail", "two clocks", "neighbours"])
def test_so_would_be_the_lowest_minimum_and_the_lowest_median(habit: str) -> None:
    assert_fooled(habit, _lowest(min))
    assert_fooled(habit, _lowest(median))


@pytest.mark.parametrize("habit", ["log-normal", "correlated", "random"])
def test_without_the_interval_the_margin_alone_is_fooled(monkeypatch: pytest.MonkeyPatch, habit: str) -> None:
    honest = racing.speedup

    def sure(*args: object) -> Interval | None:
        found = honest(*args)  # type: ignore[arg-type]
        return found and replace(found, low=found.median, high=found.median)

    monkeypatch.setattr(deciding, "speedup", sure)
    assert_fooled(habit)


def test_without_turns_drift_is_taken_for_a_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as a benchmark script would: whoever runs while the machine is fast wins."""

    def one_by_one(journal: Journal, stage: str, entrants: Mapping[str, Entrant], rounds: int, *_: object) -> None:
        for name, entrant in entrants.items():
            for number in range(rounds):
                fields = {"round": number, "entrant": name, "session": "first", "time_ns": entrant()}
                journal.append("sample", stage=stage, **fields)

    monkeypatch.setattr(noise, "race", one_by_one)
    assert_fooled("drift")


def test_without_a_drawn_order_a_rhythm_is_taken_for_a_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the clock falls once per round, and rounds are all alike, it falls for the same one every time."""

    class Stubborn(random.Random):
        def shuffle(self, x: object) -> None:
            """No."""

    monkeypatch.setattr(racing.random, "Random", Stubborn)
    assert_fooled("in step")


def test_with_the_samples_that_chose_them_finalists_look_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """The winner's curse: the best of five in the race is ahead by its luck; re-timed it is not."""
    ahead = {"race": 0.0, FINAL: 0.0}
    for stage in ahead:
        monkeypatch.setattr(deciding, "FINAL", stage)
        found = [simulated(seed, HABITS["log-normal"], {}).considered[0].speedup.median for seed in range(60)]
        ahead[stage] = median(found)
    assert ahead["race"] > 1.02
    assert abs(ahead[FINAL] - 1) < 0.01


# -- wrong, broken, stuck: whole sweeps on the fake device -----------------------------------------------------------

BEST, SECOND = candidate(4), candidate(2)
TWO_ORDERS = replace(sweeps.SEARCH, orders=["program", "list"])


def sweep(run_dir: Path, device: FakeDevice) -> SweepResult:
    """A small sweep."""
    return sweeps.sweep(run_dir, device, TWO_ORDERS)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The tensors are so small that a thread pool only costs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


Spoil = Callable[[dict[str, torch.Tensor]], None]


class _Spoilt(FakeRunnable):
    """Computes something else."""

    spoil: Spoil

    def outputs(self) -> dict[str, torch.Tensor]:
        """Spoilt."""
        found = super().outputs()
        self.spoil(found)
        return found


class Wrong(FakeDevice):
    """A device on which the programs with `word` in their label compute what `spoil` leaves, and 100 times as fast."""

    def __init__(self, word: str, spoil: Spoil) -> None:
        super().__init__(lambda one: one.makespan_ns // (100 if word in one.program.label else 1))
        self._word, self._spoil = word, spoil

    def prepare(self, program, order, inputs, *, serial=False):  # type: ignore[no-untyped-def]
        """Spoil the ones that were named."""
        if self._word not in program.label:
            return super().prepare(program, order, inputs, serial=serial)
        found = _Spoilt(self, program, order, inputs, serial)
        found.spoil = self._spoil
        return found


def _all_nan(outputs: dict[str, torch.Tensor]) -> None:
    outputs["hidden"].fill_(float("nan"))


def _one_nan(outputs: dict[str, torch.Tensor]) -> None:
    outputs["hidden"].view(-1)[-1] = float("nan")


def _one_infinite(outputs: dict[str, torch.Tensor]) -> None:
    outputs["hidden"].view(-1)[0] = float("inf")


def _half_unwritten(outputs: dict[str, torch.Tensor]) -> None:
    """What two candidates left that each wrote half of one buffer."""
    hidden = outputs["hidden"].view(-1)
    hidden[: len(hidden) // 2] = 0


def _stale_cache(outputs: dict[str, torch.Tensor]) -> None:
    """The result is right; what the next token would read is not."""
    name = next(name for name in outputs if name != "hidden")
    outputs[name].mul_(1.01)


@pytest.mark.parametrize("spoil", [_all_nan, _one_nan, _one_infinite, _half_unwritten, _stale_cache])
def test_a_wrong_one_is_not_kept_though_it_is_a_hundred_times_as_fast(tmp_path: Path, spoil: Spoil) -> None:
    result = sweep(tmp_path, Wrong("chunks=4", spoil))
    assert result.verdict.kept == SECOND
    failures = {one.candidate: one.failure for one in result.checked if one.failure}
    assert list(failures) == [BEST]
    assert "is off by" in failures[BEST]
    assert not math.isfinite(result.checked[1].worst_error) or result.checked[1].worst_error > 1e-3
    assert sweep(tmp_path, Untouchable()).verdict == result.verdict, "the journal holds NaN and infinity, too"


@pytest.mark.parametrize("at", [0, 2, 6])
@pytest.mark.parametrize("message", ["op x failed: segmentation fault", "op x did not finish within 600 s"])
def test_a_crash_or_a_hang_costs_only_the_one(tmp_path: Path, at: int, message: str) -> None:
    """In its warm-up, in the race, in the final."""
    calls = iter(range(10**6))

    def clock(runnable: FakeRunnable) -> int:
        if "chunks=4" in runnable.program.label and next(calls) == at:
            raise OpFailedError(message)
        return runnable.makespan_ns

    result = sweep(tmp_path, FakeDevice(clock))
    assert result.verdict.kept == SECOND
    lost = {str(r["entrant"]) for r in result.records if r["kind"] == "failure"}
    lost |= {one.candidate.key for one in result.checked if one.failure}
    assert lost == {BEST.key}


@pytest.mark.parametrize("timings", ["inverted", "random", "constant", "falling"])
@pytest.mark.parametrize("wrong", [BEST, SECOND], ids=lambda one: f"chunks{one.split.chunks}")
def test_no_clock_makes_a_wrong_one_kept(tmp_path: Path, timings: str, wrong: Candidate) -> None:
    """Distorted timings may cost speed, never values."""
    rng, left = random.Random(timings), iter(range(10**9, 0, -(10**5)))
    clocks: dict[str, Callable[[FakeRunnable], int]] = {
        "inverted": lambda runnable: 10**12 // runnable.makespan_ns,
        "random": lambda _: rng.randint(1, 10**6),
        "constant": lambda _: 1000,
        "falling": lambda _: next(left),
    }
    device = Wrong(f"chunks={wrong.split.chunks}", _half_unwritten)
    device.clock = clocks[timings]
    result = sweep(tmp_path, device)
    assert result.verdict.kept != wrong
    assert result.kept.error <= max(2 * result.baseline.error, 1e-6)

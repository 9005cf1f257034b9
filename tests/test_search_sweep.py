"""Whole sweeps on the fake device: what is kept and why, what is not; a kill neither loses nor repeats anything."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from overlap.devices.base import DeviceInfo
from overlap.errors import DeviceError, MemoryLimitError, OpFailedError, RunDirError, SplitError
from overlap.search.attribute import FACTORS, chain
from overlap.search.candidate import BASELINE, Candidate
from overlap.search.journal import Journal
from overlap.search.sweep import SweepResult
from overlap.split import Split, violations
from tests.fakes import FakeDevice, FakeRunnable, small_workload
from tests.sweeps import SEARCH, SPACE, Untouchable, candidate, samples, sweep

BEST, SECOND = candidate(4), candidate(2)
# Records of one undisturbed sweep; it is killed at each of them.
RECORDS = 65


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The tensors are so small that a thread pool only costs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def summary(result: SweepResult) -> tuple[Any, ...]:
    """What a deterministic clock must give again, whatever happened on the way."""
    verdict = result.verdict
    considered = [(one.candidate, one.speedup.median, one.reason) for one in verdict.considered]
    return (
        (verdict.kept, verdict.reason, verdict.speedup.median, verdict.speedup.low, considered),
        (result.attribution, result.kept.bound, result.kept.peak_bytes, result.kept.error, result.kept_order),
        (result.screened, result.rejected, result.checked, result.stack and result.stack.median),
    )


# -- what is kept ----------------------------------------------------------------------------------------------------


def test_the_fastest_variant_is_kept_and_explained(tmp_path: Path) -> None:
    """The clock is the makespan, so the screening predicts it and the factors multiply to the whole gain."""
    result = sweep(tmp_path, FakeDevice())
    predicted = {one.candidate: one.predicted_ns for one in result.screened}
    gain = predicted[BASELINE] / predicted[BEST]
    assert gain > 1.2
    assert result.verdict.kept == result.kept.candidate == BEST
    assert result.verdict.speedup.median == pytest.approx(gain)
    assert [one.candidate for one in result.verdict.considered] == [BEST, SECOND]
    assert result.kept.latency.median == predicted[BEST]
    assert result.baseline.latency.median == predicted[BASELINE]
    product = 1.0
    for name in FACTORS:
        product *= result.attribution[name]
    assert product == pytest.approx(result.attribution["total"]) == pytest.approx(gain)
    assert result.attribution["overlap"] > 1.0
    assert (
        result.attribution["order"] == 1.0
    )  # one queue at a time, an order changes nothing on a device without caches


@pytest.mark.parametrize(
    "split",
    [Split(chunks=2, masked_blocks="skip"), Split(fused_sdpa=True, query_tile=4, kv_tile=4, masked_blocks="skip")],
)
def test_every_run_of_the_factors_can_run(split: Split) -> None:
    workload = small_workload(query=8, context=8)
    runs = chain(Candidate(split, "list"), workload)
    assert [violations(run.split, workload) for run in runs] == [[]] * 5
    # Slices of a fused attention cannot do without skipping, so nothing is told apart there.
    assert (runs[1] == runs[2]) == split.fused_sdpa
    assert (runs[0], runs[-1]) == (BASELINE, Candidate(split, "list"))


def test_the_result_holds_everything_behind_it(tmp_path: Path) -> None:
    result = sweep(tmp_path, FakeDevice())
    assert result.sessions == 1
    assert result.kept.gap >= 0.0
    assert result.kept.peak_bytes < result.baseline.peak_bytes
    assert result.stack is not None
    assert result.stack.median == 1e6
    assert result.speedup_vs_stack is not None
    assert sorted(result.kept_order) == sorted(result.kept.events["name"].to_list())
    for name, variant in (("baseline", result.baseline), ("kept", result.kept)):
        assert pl.read_parquet(tmp_path / "traces" / f"{name}.parquet").equals(variant.events)
    assert len(list((tmp_path / "traces").iterdir())) == 2
    per_round = {"race": 3, "final": 4, "attribution": 5}
    for stage, rounds in (("race", 3), ("final", 8), ("attribution", 2)):
        assert len(samples(result.records, stage)) == rounds * per_round[stage]


def test_the_baseline_stays_if_nothing_is_faster(tmp_path: Path) -> None:
    """An explicit pass-through: all were considered, each with its reason, and there is no gain to explain."""
    result = sweep(tmp_path, FakeDevice(clock=lambda runnable: 1000))
    assert result.verdict.kept == BASELINE
    assert result.kept is result.baseline
    assert result.attribution == {}
    assert {one.candidate for one in result.verdict.considered} == {BEST, SECOND}
    assert all("does not reach 1.010 for sure" in one.reason for one in result.verdict.considered)
    assert result.verdict.speedup.median == 1.0


def test_the_baseline_stays_if_the_space_holds_nothing_else(tmp_path: Path) -> None:
    result = sweep(tmp_path, FakeDevice(), space=replace(SPACE, chunks=[1]))
    assert result.verdict.kept == BASELINE
    assert result.verdict.reason == "no candidate could run"


def test_a_space_in_which_nothing_can_run_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="rules took chunks: 1 of 1, as in chunks=3 does not divide"):
        sweep(tmp_path, FakeDevice(), space=replace(SPACE, chunks=[1, 3]))


def test_a_leftover_profile_of_something_else_is_not_trusted(tmp_path: Path) -> None:
    expected = sweep(tmp_path, FakeDevice())
    for name in ("baseline", "kept"):
        (tmp_path / "traces" / f"{name}.parquet").write_bytes(b"junk")
    again = sweep(tmp_path, FakeDevice())
    assert again.kept.events.equals(expected.kept.events)


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunDirError, match=r"holds thesis\.tex but no journal"):
        sweep(tmp_path, FakeDevice())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


# -- what is not kept ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("spoils", "hidden is off by"),
        ("fails_gate", "gate memory: told so"),
        ("crashes", "op x failed: told so"),
    ],
)
def test_a_bad_candidate_costs_only_itself(tmp_path: Path, fault: str, reason: str) -> None:
    """The fastest one is wrong, does not fit or crashes: it is never timed, and the second best is kept."""
    device = FakeDevice()
    setattr(device, fault, "chunks=4")
    result = sweep(tmp_path, device)
    assert result.verdict.kept == SECOND
    assert {one.candidate: one.failure.startswith(reason) for one in result.checked if one.failure} == {BEST: True}
    assert BEST.key not in {entrant for _, _, entrant in samples(result.records)}
    assert summary(sweep(tmp_path, Untouchable())) == summary(result)


def failing(at: int, word: str = "chunks=4") -> FakeDevice:
    """A device on which the `at`-th timed run of the programs with `word` in their label fails."""
    calls = iter(range(10**6))

    def clock(runnable: FakeRunnable) -> int:
        if word in runnable.program.label and next(calls) == at:
            raise OpFailedError("op y failed: at last")
        return runnable.makespan_ns

    return FakeDevice(clock)


# Run 0 is the warm-up, 1..3 the race, 4..11 the final.
@pytest.mark.parametrize("at", [0, 1, 3, 4, 11])
def test_one_that_fails_while_it_is_timed_is_not_kept(tmp_path: Path, at: int) -> None:
    """However late: a variant that crashed once will crash in serving."""
    result = sweep(tmp_path, failing(at))
    assert result.verdict.kept == SECOND
    failures = [record for record in result.records if record["kind"] == "failure"]
    assert [record["reason"] for record in failures] == ["op y failed: at last"] * (at > 0)
    reasons = {one.candidate: one.reason for one in result.verdict.considered}
    assert reasons.get(BEST) == ("op y failed: at last" if at >= 4 else None)
    assert summary(sweep(tmp_path, Untouchable())) == summary(result)


def test_an_attribution_that_cannot_be_timed_is_left_out(tmp_path: Path) -> None:
    """The chain has a run with masked blocks computed, which may not work although the kept variant does."""
    result = sweep(tmp_path, failing(0, "[chunks=4]"))
    assert result.verdict.kept == BEST
    assert result.attribution == {}


def test_a_baseline_that_fails_ends_the_sweep_and_may_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="at last"):
        sweep(tmp_path, failing(2, "[baseline]"))
    assert sweep(tmp_path, FakeDevice()).verdict.kept == BEST


@pytest.mark.parametrize("clock", ["inverted", "random"])
def test_wrong_outputs_are_not_kept_whatever_the_clock_says(tmp_path: Path, clock: str) -> None:
    """A distorted clock may make the tuner keep a slow variant, but never a wrong one."""
    rng = random.Random(0)
    clocks = {"inverted": lambda runnable: 10**10 // runnable.makespan_ns, "random": lambda _: rng.randint(1, 10**6)}
    device = FakeDevice(clocks[clock])
    device.spoils = "chunks=2"
    for number in range(3):
        result = sweep(tmp_path / str(number), device)
        kept = next(one for one in result.checked if one.candidate == result.verdict.kept)
        assert not kept.failure
        assert result.kept.error <= max(2 * result.baseline.error, 1e-6)


def test_a_workload_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    device = FakeDevice()
    device.info = replace(device.info, memory_bytes=1000)
    with pytest.raises(MemoryLimitError, match="needs"):
        sweep(tmp_path, device)


# -- kill and resume -------------------------------------------------------------------------------------------------


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int, written: bool) -> None:
    """Make the `number`-th append from now on raise KeyboardInterrupt, before or after its line is written."""
    append, count = Journal.append, iter(range(10**6))

    def killed(journal: Journal, kind: str, **fields: Any) -> dict[str, Any]:
        last = next(count) == number
        if last and not written:
            raise KeyboardInterrupt
        record = append(journal, kind, **fields)
        if last:
            raise KeyboardInterrupt
        return record

    monkeypatch.setattr(Journal, "append", killed)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    """The sweep that all others must equal."""
    result = sweep(tmp_path_factory.mktemp("undisturbed"), FakeDevice())
    assert len(result.records) == RECORDS, "adapt RECORDS, so that every one of them is tried"
    return result


def assert_same_sweep(result: SweepResult, expected: SweepResult) -> None:
    """Every fact is there once, and leads to the same verdict."""
    taken = samples(result.records)
    assert len(set(taken)) == len(taken)
    # Another round for the one that the kill cut in two.
    more = set(taken) - set(samples(expected.records))
    assert set(taken) >= set(samples(expected.records))
    assert len({(stage, number) for stage, number, _ in more}) <= result.sessions - 1
    for kind, name in (
        ("screen", "split"),
        ("check", "entrant"),
        ("bound", "entrant"),
        ("profile", "entrant"),
        ("header", "schema"),
    ):
        facts = [[r[name] for r in one.records if r["kind"] == kind] for one in (result, expected)]
        assert facts[0] == facts[1]
    assert summary(result) == summary(expected)


@pytest.mark.parametrize("number", range(RECORDS))
def test_a_killed_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: SweepResult, number: int
) -> None:
    """Killed at any record, before or after it is written: nothing is lost or repeated, the verdict is the same."""
    written = number % 2 == 1
    with monkeypatch.context() as patch:
        kill_at(patch, number, written)
        with pytest.raises(KeyboardInterrupt):
            sweep(tmp_path, FakeDevice())
    result = sweep(tmp_path, FakeDevice())
    assert result.sessions in (1, 2)
    assert_same_sweep(result, undisturbed)


def test_a_sweep_killed_again_and_again_gets_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: SweepResult
) -> None:
    """Seven records per session; samples are not lost, and pairs that are lost are replaced."""
    for _ in range(len(undisturbed.records)):
        with monkeypatch.context() as patch:
            kill_at(patch, 7, True)
            try:
                result = sweep(tmp_path, FakeDevice())
                break
            except KeyboardInterrupt:
                continue
    for stage in ("race", "final"):
        assert set(samples(result.records, stage)) >= set(samples(undisturbed.records, stage))
    assert result.verdict.kept == undisturbed.verdict.kept
    assert result.verdict.speedup.samples >= undisturbed.verdict.speedup.samples


def test_a_kill_while_a_profile_is_written_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: SweepResult
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep(tmp_path, FakeDevice())
    assert not list((tmp_path / "traces").iterdir())
    assert_same_sweep(sweep(tmp_path, FakeDevice()), undisturbed)


def noisy_device(seed: int) -> FakeDevice:
    """Nearly equal variants and 10 % noise: who is dropped from the race hangs by a hair."""
    rng, times_ns = random.Random(seed), {"chunks=2": 1.0e6, "chunks=4": 1.05e6, "chunks=8": 1.1e6}

    def clock(runnable: FakeRunnable) -> int:
        true_ns = next((ns for words, ns in times_ns.items() if words in runnable.program.label), 1.2e6)
        return int(true_ns * rng.gauss(1, 0.1))

    return FakeDevice(clock)


@pytest.mark.parametrize("seed", [2, 11, 21, 38])
def test_a_finished_sweep_measures_nothing_and_says_the_same(tmp_path: Path, seed: int) -> None:
    """Also where a dropped entrant would have a chance again, judged by what came after it was dropped."""
    search = replace(SEARCH, race_rounds=14, race_candidates=3, finalists=1, confidence=0.7)
    space = replace(SPACE, chunks=[1, 2, 4, 8])
    first = sweep(tmp_path, noisy_device(seed), search, space)
    assert len(samples(first.records, "race")) < 14 * 4, "somebody was dropped"
    again = sweep(tmp_path, Untouchable(), search, space)
    assert again.sessions == 1
    assert again.records == first.records
    assert again.verdict == first.verdict
    assert summary(again) == summary(first)


@pytest.mark.parametrize("what", ["search", "space", "device"])
def test_a_directory_of_another_sweep_is_refused(tmp_path: Path, undisturbed: SweepResult, what: str) -> None:
    sweep(tmp_path, FakeDevice())
    before = (tmp_path / "journal.jsonl").read_bytes()
    device = FakeDevice()
    search = replace(SEARCH, seed=1) if what == "search" else SEARCH
    space = replace(SPACE, chunks=[1, 2]) if what == "space" else SPACE
    if what == "device":
        device.info = DeviceInfo("fake", "another", "simulated", 2**40, {"fake": "1"})
    with pytest.raises(RunDirError, match=f"another {what}"):
        sweep(tmp_path, device, search, space)
    assert (tmp_path / "journal.jsonl").read_bytes() == before

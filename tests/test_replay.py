"""Replays: a recorded sweep is decided again without its device, and what nobody measured is refused by name."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from overlap.devices.replay import UNRECORDED
from overlap.errors import ReplayError, RunDirError
from overlap.search.candidate import BASELINE
from overlap.search.config import SearchConfig
from overlap.search.replay import parse_split, read_recording, replay
from overlap.search.sweep import SweepResult
from overlap.split import Split
from tests.fakes import FakeDevice, FakeRunnable
from tests.sweeps import SEARCH, SPACE, Untouchable, candidate, samples, sweep

SPACE_OF_THREE = replace(SPACE, chunks=[1, 2, 4, 8])
SEARCH_OF_THREE = replace(SEARCH, orders=["program", "list"], race_candidates=3, race_rounds=9, final_rounds=20)
TIMES_NS = {"chunks=2": 1.0e6, "chunks=4": 1.02e6, "chunks=8": 1.6e6}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The tensors are so small that a thread pool only costs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noisy(seed: int) -> FakeDevice:
    """Two that are 20 % faster than the baseline and nearly equal, one that is slower; 3 % noise."""
    rng = random.Random(seed)

    def clock(runnable: FakeRunnable) -> int:
        true_ns = next((ns for words, ns in TIMES_NS.items() if words in runnable.program.label), 1.2e6)
        return int(true_ns * rng.lognormvariate(0, 0.03))

    return FakeDevice(clock)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepResult]:
    """One sweep with a noisy clock, and where its records are."""
    place = tmp_path_factory.mktemp("recorded")
    return place, sweep(place, noisy(1), SEARCH_OF_THREE, SPACE_OF_THREE)


def files(place: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_a_replay_decides_what_the_sweep_decided(recorded: tuple[Path, SweepResult]) -> None:
    place, original = recorded
    before = files(place)
    again = replay(place)
    assert again.verdict == original.verdict
    assert again.verdict.kept == candidate(2)
    assert again.attribution == original.attribution != {}
    assert again.kept.latency == original.kept.latency
    assert again.kept.bound == original.kept.bound
    assert again.kept.events.equals(original.kept.events)
    assert again.kept_order == original.kept_order
    assert (again.stack, again.speedup_vs_stack) == (original.stack, original.speedup_vs_stack)
    assert (again.screened, again.checked, again.rejected) == (original.screened, original.checked, original.rejected)
    assert again.records[1:] == original.records[1:], "nothing was added"
    assert (again.device.name, again.device.evidence, again.device.computes) == ("fake", "measured", True)
    assert files(place) == before, "a replay leaves the records alone"


@pytest.mark.parametrize(("margin", "kept"), [(0.0, True), (0.05, True), (0.1, True), (0.25, False), (1.0, False)])
def test_another_margin_is_decided_from_the_same_samples(
    recorded: tuple[Path, SweepResult], margin: float, kept: bool
) -> None:
    place, original = recorded
    again = replay(place, replace(SEARCH_OF_THREE, margin=margin))
    assert (again.verdict.kept != BASELINE) == kept
    speeds = [(one.candidate, one.speedup) for one in original.verdict.considered]
    assert [(one.candidate, one.speedup) for one in again.verdict.considered] == speeds
    assert samples(again.records, "final") == samples(original.records, "final")


def test_a_confidence_that_20_rounds_cannot_give_keeps_nothing(recorded: tuple[Path, SweepResult]) -> None:
    """Wider intervals at more confidence, from the same samples."""
    place, original = recorded
    again = replay(place, replace(SEARCH_OF_THREE, confidence=0.9999))
    assert again.verdict.kept == candidate(2)
    for wide, narrow in zip(again.verdict.considered, original.verdict.considered, strict=True):
        assert wide.speedup.low < narrow.speedup.low
        assert wide.speedup.high > narrow.speedup.high


def test_fewer_rounds_and_finalists_are_cut_out_of_the_record(recorded: tuple[Path, SweepResult]) -> None:
    """As a sweep of that size would have been: the same samples, as far as they go."""
    place, original = recorded
    search = replace(SEARCH_OF_THREE, final_rounds=10, race_rounds=5, finalists=1, attribution_rounds=1)
    again = replay(place, search)
    taken = samples(again.records)
    assert taken == [one for one in samples(original.records) if one in taken]
    rounds = {stage: {number for one, number, _ in taken if one == stage} for stage in ("race", "final", "attribution")}
    assert [len(found) for found in rounds.values()] == [5, 10, 1]
    assert len(again.verdict.considered) == 1


def test_where_another_one_is_kept_its_profile_is_missing_and_says_so(
    recorded: tuple[Path, SweepResult], tmp_path: Path
) -> None:
    """The recorded winner failed in the final after all: the verdict goes to the second, whom nobody profiled."""
    place, original = recorded
    failure = {"kind": "failure", "stage": "final", "entrant": candidate(2).key, "session": "x", "reason": "boom"}
    text = (place / "journal.jsonl").read_text() + json.dumps(failure) + "\n"
    (tmp_path / "journal.jsonl").write_text(text)
    again = replay(tmp_path)
    assert again.verdict.kept == candidate(4)
    assert again.verdict.considered[0].reason == "boom"
    assert again.kept.events["name"].to_list() == [UNRECORDED]
    assert again.attribution == {}
    assert again.kept.bound.time_ns > 0
    assert original.verdict.kept != again.verdict.kept


def test_one_that_was_dropped_stays_dropped(tmp_path: Path) -> None:
    """At more confidence it would have been raced to the end; nobody did, and it costs only itself."""
    search = replace(SEARCH_OF_THREE, race_rounds=14, confidence=0.8, finalists=3)
    sweep(tmp_path, noisy(2), search, SPACE_OF_THREE)
    again = replay(tmp_path, replace(search, confidence=0.999, final_rounds=20))
    reasons = {r["entrant"]: r["reason"] for r in again.records if r["kind"] == "failure"}
    assert list(reasons) == [candidate(8).key]
    assert "dropped from the recorded race after" in str(reasons[candidate(8).key])
    assert again.verdict.kept == candidate(2)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (replace(SEARCH_OF_THREE, final_rounds=21), "final_rounds is 21, 20 rounds were recorded"),
        (replace(SEARCH_OF_THREE, race_rounds=10), "race_rounds is 10, 9 rounds were recorded"),
        (replace(SEARCH_OF_THREE, race_candidates=4), "race_candidates is 4, 3 were checked"),
        (replace(SEARCH_OF_THREE, seed=1), "seed is 1, the recorded sweep had 0"),
        (replace(SEARCH_OF_THREE, orders=["program"]), "orders is"),
        (replace(SEARCH_OF_THREE, screen_repeats=2), "screen_repeats is 2"),
    ],
)
def test_what_was_never_recorded_is_refused(
    recorded: tuple[Path, SweepResult], search: SearchConfig, message: str
) -> None:
    with pytest.raises(ReplayError, match=message):
        replay(recorded[0], search)


def test_a_finalist_that_was_never_retimed_is_refused(tmp_path: Path) -> None:
    """All raced to the end, one of three went into the final: with two finalists the record has no answer."""
    search = replace(SEARCH_OF_THREE, race_rounds=3, finalists=1)
    sweep(tmp_path, noisy(3), search, SPACE_OF_THREE)
    with pytest.raises(ReplayError, match=r"never recorded: the times of .*chunks="):
        replay(tmp_path, replace(search, finalists=2))


def test_a_sweep_that_was_killed_is_refused(recorded: tuple[Path, SweepResult], tmp_path: Path) -> None:
    lines = (recorded[0] / "journal.jsonl").read_text().splitlines(keepends=True)
    for share, message in ((0.95, None), (0.6, "rounds were recorded"), (0.1, "rounds were recorded")):
        cut = tmp_path / str(share)
        cut.mkdir()
        (cut / "journal.jsonl").write_text("".join(lines[: int(len(lines) * share)]) + lines[-1][:9])
        if message:
            with pytest.raises(ReplayError, match=message):
                replay(cut)
        else:
            assert replay(cut).verdict == recorded[1].verdict, "only explanations are missing"


def rewritten(recorded: tuple[Path, SweepResult], place: Path, **header: Any) -> Path:
    """The record with another identity."""
    lines = (recorded[0] / "journal.jsonl").read_text().splitlines(keepends=True)
    first = json.loads(lines[0])
    first["identity"] |= header
    (place / "journal.jsonl").write_text(json.dumps(first) + "\n" + "".join(lines[1:]))
    return place


def test_records_of_a_model_or_of_another_version_are_refused(
    recorded: tuple[Path, SweepResult], tmp_path: Path
) -> None:
    model = {"kind": "gaudi2", "name": "Gaudi2", "software": {}}
    with pytest.raises(ReplayError, match="on the model of a gaudi2"):
        replay(rewritten(recorded, tmp_path, device=model))
    with pytest.raises(ReplayError, match="recorded by another version"):
        replay(rewritten(recorded, tmp_path, space={"chunks": "many"}))


@pytest.mark.parametrize("text", [None, "", "junk\n", '{"kind": "header"}\n', '{"kind": "sample"}\n', "[1]\n"])
def test_what_is_no_journal_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "journal.jsonl").write_text(text)
    with pytest.raises(RunDirError, match=r"journal\.jsonl"):
        replay(tmp_path)


def test_splits_that_came_from_elsewhere_are_tried_again(recorded: tuple[Path, SweepResult], tmp_path: Path) -> None:
    """What was screened though the space does not hold it, such as what a neighbouring bucket kept."""
    space = json.loads((recorded[0] / "journal.jsonl").read_text().splitlines()[0])["identity"]["space"]
    place = rewritten(recorded, tmp_path, space=space | {"chunks": [1, 4, 8]})
    assert read_recording(place).seeds == [candidate(2).split]


@given(
    st.builds(
        Split,
        chunks=st.integers(1, 8),
        lag=st.integers(0, 3),
        query_tile=st.integers(0, 512),
        masked_blocks=st.sampled_from(["skip", "compute"]),
        softmax=st.sampled_from(["exact", "fast"]),
        fused_sdpa=st.booleans(),
    )
)
def test_a_split_is_read_as_it_was_written(split: Split) -> None:
    assert parse_split(str(split)) == split


def test_the_records_are_enough_for_the_sweep_itself(recorded: tuple[Path, SweepResult], tmp_path: Path) -> None:
    """The same record under its own settings: a sweep that goes on with it asks the device for nothing."""
    for name, content in files(recorded[0]).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    again = sweep(tmp_path, Untouchable(), SEARCH_OF_THREE, SPACE_OF_THREE)
    assert again.verdict == replay(recorded[0]).verdict
    assert isinstance(again.kept.events, pl.DataFrame)

"""The files of a sweep: what the contract promises, from a sweep on the fake device and from one on the host."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path

import msgspec
import polars as pl
import pytest

from overlap.analysis.page import STYLE
from overlap.analysis.report import page
from overlap.analysis.words import split_in_words
from overlap.commands.sweep_files import build_tuned, write_all
from overlap.commands.sweep_frames import candidate_frame
from overlap.commands.sweep_report import report_data, scalar_rows
from overlap.commands.tables import sweep_tables
from overlap.devices.config import DeviceConfig
from overlap.devices.host.device import HostDevice
from overlap.errors import TunedError
from overlap.search.sweep import SweepResult, run_sweep
from overlap.serve.tuned import SCHEMA
from overlap.serve.tuned_file import load, save
from overlap.split import Split
from overlap.traces.read import read_trace
from tests.fakes import FakeDevice, small_workload
from tests.sweeps import SEARCH, SPACE, Silent


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepResult, Path]:
    """A sweep that kept a split, and its folder with all files."""
    folder = tmp_path_factory.mktemp("kept")
    result = run_sweep(small_workload(), FakeDevice(), SPACE, SEARCH, folder, Silent())
    write_all(result, folder, "overlap sweep <script>alert(1)</script>")
    return result, folder


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepResult, Path]:
    """A sweep in which nothing was faster."""
    folder = tmp_path_factory.mktemp("passed")
    result = run_sweep(small_workload(), FakeDevice(lambda _: 1_000_000), SPACE, SEARCH, folder, Silent())
    write_all(result, folder, "overlap sweep")
    return result, folder


CONTRACT = (
    "tuned.yaml",
    "trials.parquet",
    "report.html",
    "profile.json",
    "traces/baseline.pt.trace.json.gz",
    "tb/traces/baseline.0.pt.trace.json.gz",
)


def test_a_run_leaves_the_files_of_the_contract(
    kept: tuple[SweepResult, Path], passed: tuple[SweepResult, Path]
) -> None:
    for _, folder in (kept, passed):
        assert [name for name in CONTRACT if not (folder / name).is_file()] == []
        assert not list(folder.rglob("*.partial"))
    assert (kept[1] / "traces/kept.pt.trace.json.gz").is_file()
    assert not (passed[1] / "traces/kept.pt.trace.json.gz").exists()


def test_tuned_config_says_what_was_kept(kept: tuple[SweepResult, Path]) -> None:
    result, folder = kept
    tuned = load(folder / "tuned.yaml")
    entry = tuned.entries[0]
    assert tuned.schema == SCHEMA
    assert entry.split == result.verdict.kept.split != Split()
    assert not entry.pass_through
    assert entry.evidence == tuned.device.evidence == "simulated"
    assert entry.speedup.low <= entry.speedup.median <= entry.speedup.high
    assert entry.latency_us.median < entry.baseline_latency_us.median
    assert entry.gap == pytest.approx(entry.latency_us.median / entry.bound_us - 1, rel=1e-4)
    assert entry.attribution is not None
    product = entry.attribution.work * entry.attribution.tiling * entry.attribution.overlap * entry.attribution.order
    assert product == pytest.approx(entry.speedup.median, rel=1e-3)
    assert entry.busy.both <= min(entry.busy.mme, entry.busy.tpc)
    assert (folder / entry.trace).is_file()


def test_baseline_wins_are_explicit_pass_through_rows(passed: tuple[SweepResult, Path]) -> None:
    entry = load(passed[1] / "tuned.yaml").entries[0]
    assert entry.pass_through
    assert entry.split == Split()
    assert entry.order == "program"
    assert (entry.speedup.median, entry.attribution) == (1.0, None)
    assert entry.peak_bytes == entry.baseline_peak_bytes


def test_trials_hold_every_sample_and_every_reason(kept: tuple[SweepResult, Path]) -> None:
    result, folder = kept
    trials = pl.read_parquet(folder / "trials.parquet")
    samples = [record for record in result.records if record["kind"] == "sample"]
    timed = trials.filter(pl.col("round").is_not_null())
    assert timed.height == len(samples)
    assert timed["time_ns"].to_list() == [record["time_ns"] for record in samples]
    assert set(timed["evidence"]) == {"simulated"}
    assert trials.filter(stage="screen").height == len(result.screened)
    assert (trials.filter(stage="rules")["reason"] != "").all()


def test_profile_partitions_sum_to_their_window(kept: tuple[SweepResult, Path]) -> None:
    result, folder = kept
    profile = json.loads((folder / "profile.json").read_text())
    assert profile["evidence"] == "simulated"
    assert set(profile["variants"]) == {"baseline", "kept"}
    for one in profile["variants"].values():
        assert sum(one["partition_ns"].values()) == one["window_ns"]
        assert len(one["samples_ns"]) == SEARCH.final_rounds
    assert sorted(profile["kept_order"]) == sorted(result.kept.events["name"].to_list())


def test_traces_give_the_profiled_events_back(kept: tuple[SweepResult, Path]) -> None:
    result, folder = kept
    found = read_trace(folder / "traces/kept.pt.trace.json.gz").events.sort("start_ns", "name")
    expected = result.kept.events.sort("start_ns", "name")
    assert found["name"].to_list() == expected["name"].to_list()
    assert (found["end_ns"] - found["start_ns"]).to_list() == (expected["end_ns"] - expected["start_ns"]).to_list()


def test_report_is_one_page_that_needs_no_network(
    kept: tuple[SweepResult, Path], passed: tuple[SweepResult, Path]
) -> None:
    text = (kept[1] / "report.html").read_text()
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", text)
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert STYLE in text
    assert "simulated" in text
    assert "travel through the layers as" in text
    assert "No split was faster for sure; the baseline stays." in (passed[1] / "report.html").read_text()


def test_report_admits_too_few_samples(kept: tuple[SweepResult, Path]) -> None:
    from dataclasses import replace

    from overlap.stats import median_interval

    few = median_interval([1.2, 1.3])
    data = replace(report_data(kept[0], "overlap sweep"), evidence="measured", speedup=few, speedup_vs_stack=None)
    assert "too few samples for an interval" in page(data)


def test_candidates_keep_the_time_of_their_last_stage(kept: tuple[SweepResult, Path]) -> None:
    result, _ = kept
    frame = candidate_frame(result)
    assert frame.height == len(result.screened)
    assert frame.filter(stage="kept")["name"].to_list() == [result.verdict.kept.key]
    assert frame.filter(stage="baseline").height == 1
    row = frame.filter(stage="kept").row(0, named=True)
    assert row["time_ms"] == pytest.approx(result.kept.latency.median / 1e6)
    assert {one.name for one in scalar_rows(result)} >= {"baseline"}


def test_tables_say_measured_or_simulated(
    kept: tuple[SweepResult, Path], passed: tuple[SweepResult, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    for result, _ in (kept, passed):
        Console(width=120).print(*sweep_tables(result), sep="\n")
        assert "simulated" in capsys.readouterr().out


def test_words_name_every_axis() -> None:
    workload = small_workload(batch=2)
    plain = split_in_words(Split(), workload)
    changed = {
        "chunks": 2,
        "head_groups": 2,
        "query_tile": 4,
        "kv_tile": 4,
        "masked_blocks": "skip",
        "normalise": "after",
        "softmax": "fast",
        "projections": "split",
        "fused_sdpa": True,
        "layers_per_graph": 1,
    }
    for name, value in changed.items():
        words = split_in_words(Split(**{name: value}), workload)  # type: ignore[arg-type]
        assert len(words) == 1, name
        assert words != plain
    assert len(split_in_words(Split(chunks=2, chunk_axis="batch", lag=2), workload)) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("overlap.tuned/1", "overlap.tuned/9"), "line 1, schema: 'overlap.tuned/9'"),
        (lambda text: text.replace("pass_through:", "passthrough:"), r"line \d+, entries\[0\]\.passthrough"),
        (lambda text: text.replace("bound_us:", "bound_ms:"), "bound_ms"),
        (lambda text: text.replace("order: list", "order: 3"), r"entries\[0\]\.order"),
        (lambda text: "[1, 2", "not YAML, or was cut off"),
    ],
)
def test_damaged_tuned_configs_are_refused(kept: tuple[SweepResult, Path], tmp_path: Path, change, says: str) -> None:
    path = tmp_path / "tuned.yaml"
    path.write_text(change((kept[1] / "tuned.yaml").read_text()))
    with pytest.raises(TunedError, match=says):
        load(path)


def test_tuned_configs_round_trip(kept: tuple[SweepResult, Path], tmp_path: Path) -> None:
    tuned = build_tuned(kept[0])
    save(tuned, tmp_path / "tuned.yaml")
    assert load(tmp_path / "tuned.yaml") == tuned
    assert msgspec.yaml.decode((tmp_path / "tuned.yaml").read_bytes())["entries"][0]["bucket"]["query"] == 16


def test_missing_tuned_config_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(TunedError, match="cannot read"):
        load(tmp_path / "tuned.yaml")


def test_a_real_sweep_on_the_host(tmp_path: Path) -> None:
    """Real tensors, clocks and traces, end to end; which variant wins on so small a shape is left open."""
    with closing(HostDevice(DeviceConfig())) as device:
        result = run_sweep(small_workload(), device, SPACE, SEARCH, tmp_path, Silent())
    write_all(result, tmp_path, "overlap sweep")
    entry = load(tmp_path / "tuned.yaml").entries[0]
    assert entry.evidence == "measured"
    assert entry.samples == SEARCH.final_rounds
    assert entry.error.rel_l2 < 1e-5
    assert result.stack is not None
    assert result.stack.median > 0
    assert result.baseline.events["end_ns"].max() > 0

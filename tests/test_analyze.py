"""`overlap analyze` and `overlap tensorboard` as users call them; traces are SYNTHETIC or the project's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from overlap.analysis.partition import partition
from overlap.analysis.whole import analyse
from overlap.commands import tensorboard
from overlap.errors import RunDirError
from overlap.traces.find import trace_files
from overlap.traces.read import read_trace
from tests.conftest import Answer
from tests.kineto_files import ADD, GEMM, cuda_rows, document, host, hpu_rows, kernel, saved

Cli = Callable[..., Answer]
SAMPLES = Path(__file__).parents[1] / ".." / "shared" / "data" / "traces"


def analysis(folder: Path) -> dict[str, Any]:
    """The file that other programs read."""
    found: dict[str, Any] = json.loads((folder / "analysis.json").read_text())
    return found


def sums(part: dict[str, Any]) -> bool:
    """Whether a partition of `analysis.json` fills its window."""
    return sum(part["partition_ns"].values()) == part["window_ns"]


def test_the_files_of_an_analysis(cli: Cli, tmp_path: Path) -> None:
    saved(tmp_path / "a.json", document(cuda_rows(), SYNTHETIC="made up"))
    answer = cli("analyze", "trace=a.json", "window=all", "hydra.run.dir=out")
    assert (answer.code, answer.err) == (0, "")
    for word in ("a.json, synthetic", "MME busy", "both busy", "what could be saved", "most exposed ops", "files in"):
        assert word in answer.out
    found = analysis(tmp_path / "out")
    assert found["evidence"] == "synthetic"
    assert found["window_ns"] == 90000
    assert sums(found)
    assert found["partition_ns"]["MME+TPC"] == 20251
    assert found["busy"]["both"] == 20251 / 90000
    (device,) = found["devices"]
    assert sums(device)
    assert device["hardware"] == "NVIDIA H100"
    for advice in device["advice"]:
        assert 0 < advice["saves_at_most_ns"] <= device["window_ns"]
        assert advice["evidence"]
        assert advice["knob"]
    events = read_trace(tmp_path / "a.json").events
    assert pl.read_parquet(tmp_path / "out" / "traces" / "a.parquet").equals(events)
    again = read_trace(tmp_path / "out" / "traces" / "a.perfetto.json.gz")
    assert again.events.equals(events), "the export for Perfetto loses nothing"
    assert again.about.evidence == "synthetic"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "synthetic" in page
    assert "NVIDIA H100" in page


def test_whole_iterations_are_the_window_unless_told_otherwise(cli: Cli, tmp_path: Path) -> None:
    rows = [
        host("ProfilerStep#3", "gpu_user_annotation", 20, 20),
        host("ProfilerStep#4", "gpu_user_annotation", 40, 20),
        *(kernel(ADD, 10 * i, 8) for i in range(9)),
    ]
    saved(tmp_path / "a.json", document(rows))
    answer = cli("analyze", "trace=a.json", "hydra.run.dir=steps")
    found = analysis(tmp_path / "steps")
    assert found["window_ns"] == 40000
    assert found["devices"][0]["iterations"] == 2
    assert "rows lie outside the window" in answer.out
    cli("analyze", "trace=a.json", "window=all", "hydra.run.dir=all")
    assert analysis(tmp_path / "all")["window_ns"] == 88000


def test_ranks_are_analysed_each_and_together(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "ranks").mkdir()
    for rank in range(3):
        rows = [kernel(GEMM, 0, 10), kernel(ADD, 5, 10 + rank, stream=9)]
        saved(tmp_path / "ranks" / f"rank{rank}.pt.trace.json", document(rows))
    saved(tmp_path / "ranks" / "rank7.json", '{"traceEvents": [')
    answer = cli("analyze", "trace=ranks", "hydra.run.dir=out")
    assert answer.code == 0
    assert "skipped rank7.json" in answer.out
    found = analysis(tmp_path / "out")
    assert [device["name"] for device in found["devices"]] == [f"rank{i}, NVIDIA H100" for i in range(3)]
    assert [device["window_ns"] for device in found["devices"]] == [15000, 16000, 17000]
    assert found["window_ns"] == 48000
    assert sums(found)
    assert found["both_ns"] == 15000
    assert "all devices" in answer.out
    assert sorted(path.name for path in (tmp_path / "out" / "traces").glob("*.parquet")) == [
        f"rank{i}.parquet" for i in range(3)
    ]


def test_devices_of_one_file_are_analysed_each(cli: Cli, tmp_path: Path) -> None:
    rows = [kernel(GEMM, 0, 10), {**kernel(ADD, 5, 10, device=1), "pid": 1}]
    properties = [{"id": i, "name": f"GPU model {i}"} for i in range(2)]
    saved(tmp_path / "a.json", document(rows, deviceProperties=properties))
    cli("analyze", "trace=a.json", "hydra.run.dir=out")
    found = analysis(tmp_path / "out")
    assert [device["partition_ns"] for device in found["devices"]] == [
        {"MME": 10000, "idle": 0},
        {"TPC": 10000, "idle": 0},
    ]
    assert found["both_ns"] == 0, "engines of two devices are not busy at once in the sense of one device"


def test_a_diff_says_what_changed(cli: Cli, tmp_path: Path) -> None:
    saved(
        tmp_path / "before.json", document([kernel(GEMM, 0, 10), kernel(ADD, 10, 10), kernel("triton_poi_x_0", 30, 4)])
    )
    saved(
        tmp_path / "after.json",
        document([kernel(GEMM, 0, 10), kernel(ADD, 0, 10, stream=9), kernel("triton_poi_y_7", 10, 1)]),
    )
    answer = cli("analyze", "trace=after.json", "diff=before.json", "hydra.run.dir=out")
    assert "what changed most" in answer.out
    found = analysis(tmp_path / "out")["diff"]
    status = {row["name"]: row["status"] for row in found["changes"]}
    assert status["triton_poi_x"] == "vanished"
    assert status["triton_poi_y"] == "appeared"
    (add,) = (row for row in found["changes"] if "CUDAFunctor_add" in row["name"])
    assert (add["delta_ns"], add["exposed_delta_ns"]) == (0, -10000), "as long as before, but hidden now"
    assert sum(row["delta_ns"] for row in found["changes"]) == 21000 - 24000


def test_rules_of_the_users_own_come_first(cli: Cli, tmp_path: Path) -> None:
    saved(tmp_path / "a.json", document([kernel("my_gemm", 0, 10)]))
    saved(tmp_path / "mine.yaml", "rules: [{engine: NIC, pattern: '^my_'}]")
    cli("analyze", "trace=a.json", "rules=mine.yaml", "hydra.run.dir=out")
    assert analysis(tmp_path / "out")["partition_ns"] == {"NIC": 10000, "idle": 0}


@pytest.mark.parametrize(
    "name", ["it's a trace, (really) 100%.json", "a=b.json", "größe µ.json", "[x]{y}.json", "a b,c.json"]
)
def test_a_file_may_be_called_anything(cli: Cli, tmp_path: Path, name: str) -> None:
    saved(tmp_path / name, document(cuda_rows()))
    answer = cli("analyze", f"trace={name}", "hydra.run.dir=out")
    assert (answer.code, answer.err) == (0, "")
    assert name in answer.out
    assert sums(analysis(tmp_path / "out"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("trace is missing",)),
        (("trace=nowhere.json",), ("there is no nowhere.json",)),
        (("trace=empty.json",), ("empty.json is empty",)),
        (("trace=host.json",), ("no device rows, 1 row of the host", "ProfilerActivity")),
        (("trace=text.txt",), ("not a trace",)),
        (("trace=a.json", "window=some"), ("window is 'some'", "steps or all")),
        (("trace=a.json", "macro_gap_us=-1"), ("macro_gap_us",)),
        (("trace=a.json", "diff=nowhere"), ("there is no nowhere",)),
        (("trace=a.json", "rules=nowhere.yaml"), ("cannot read rules",)),
        (("trace=a.json", "rules=text.txt"), ("not a file of rules",)),
        (("trace=a.json", "rules=bad.yaml"), ("names the engine 'GPU'", "MME")),
        (("trace=a.json", "rules=regex.yaml"), ("broken regex",)),
        (("tracr=a.json",), ("did you mean trace",)),
    ],
)
def test_mistakes_get_one_line(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    saved(tmp_path / "a.json", document(cuda_rows()))
    saved(tmp_path / "empty.json", "")
    saved(tmp_path / "host.json", document([host("aten::mm", "cpu_op", 1, 5)]))
    saved(tmp_path / "text.txt", "hello")
    saved(tmp_path / "bad.yaml", "rules: [{engine: GPU, pattern: x}]")
    saved(tmp_path / "regex.yaml", "rules: [{engine: MME, pattern: '('}]")
    answer = cli("analyze", *arguments, "hydra.run.dir=out")
    assert answer.code == 2
    assert len(answer.lines) == 1, answer.err
    for word in words:
        assert word in answer.err


def test_traces_are_analysed_without_torch(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.json", document(hpu_rows()))
    code = "import sys; from overlap.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, "-c", code, "analyze", f"trace={path}", f"hydra.run.dir={tmp_path}/out"],
        capture_output=True, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert answer.stdout.splitlines()[-1] == "False", answer.stderr


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real traces in ../shared are not here")
@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*")) if SAMPLES.is_dir() else [], ids=lambda path: path.name)
def test_every_sample_is_analysed_and_sums_exactly(cli: Cli, tmp_path: Path, path: Path) -> None:
    answer = cli("analyze", f"trace={path}", "hydra.run.dir=out")
    assert (answer.code, answer.err) == (0, "")
    found = analysis(tmp_path / "out")
    assert found["window_ns"] > 0
    assert all(map(sums, (found, *found["devices"])))
    for _, events in read_trace(path).events.group_by("device"):
        part = partition(events)
        assert sum(part.parts_ns.values()) == part.window_ns


def test_tensorboard_looks_at_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run" / "tb").mkdir(parents=True)
    assert tensorboard.log_dir(tmp_path / "run") == tmp_path / "run" / "tb"
    assert tensorboard.log_dir(tmp_path) == tmp_path
    (tmp_path / "other").mkdir()
    for folder in ("other", "nowhere"):
        with pytest.raises(RunDirError):
            tensorboard.log_dir(tmp_path / folder)
    called: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, arguments: called.append(arguments))
    tensorboard.run(run=str(tmp_path / "run"), port="7007")
    assert called[0][1:] == ["-m", "tensorboard.main", "--logdir", str(tmp_path / "run" / "tb"), "--port", "7007"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "which run?"),
        (("run=x", "port=abc"), "port is 'abc'"),
        (("rum=x",), "does not take"),
        (("x",), "run=<run>"),
    ],
)
def test_tensorboard_refuses_mistakes(cli: Cli, arguments: tuple[str, ...], word: str) -> None:
    answer = cli("tensorboard", *arguments)
    assert answer.code == 2
    assert word in answer.err


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real traces in ../shared are not here")
def test_the_vendors_table_comes_out_of_the_raw_profile(cli: Cli, tmp_path: Path) -> None:
    cli("analyze", f"trace={SAMPLES / 'debug_hw_prof_accel0_001.csv'}", "hydra.run.dir=out")
    (found,) = analysis(tmp_path / "out")["analyzed_nodes"].values()
    assert (found["mismatches"], found["first_mismatches"]) == (0, [])
    assert found["matches"] == 4 * found["columns"] > 60
    ours = pl.read_csv(tmp_path / "out" / "traces" / "debug_hw_prof_accel0_001_analyzed_nodes.csv", infer_schema=False)
    theirs = pl.read_csv(SAMPLES / "debug_hw_prof_accel0_001_analyzed_nodes.csv", infer_schema=False)
    for name in ("Node Name", "Duration (us)", "Active (us)", "Variance single engine (us²)", "Num activations"):
        assert ours[name].to_list() == theirs[name].to_list(), name


def test_rows_cut_by_the_window_claim_no_work(cli: Cli, tmp_path: Path) -> None:
    rows = [host("ProfilerStep#1", "gpu_user_annotation", 100, 10), *cuda_rows()[2:4], kernel(GEMM, 10, 91, 7, 1)]
    saved(tmp_path / "a.json", document([*rows, kernel(ADD, 102, 3)]))
    trace = read_trace(tmp_path / "a.json")
    (device,) = analyse(trace)
    assert device.ops["duration_ns"].to_list() == [1000, 3000]
    assert device.roofline.is_empty(), "1 us of a product of 91 us would be above the roof"


def test_what_was_written_can_be_analysed_again(cli: Cli, tmp_path: Path) -> None:
    rows = [host("ProfilerStep#1", "gpu_user_annotation", 0, 100), *cuda_rows()[2:]]
    saved(tmp_path / "a.json", document(rows, SYNTHETIC="made up"))
    cli("analyze", "trace=a.json", "hydra.run.dir=first")
    assert [path.name for path in trace_files(tmp_path / "first")] == ["a.parquet"], "one trace, once"
    cli("analyze", "trace=first", "hydra.run.dir=second")
    one, two = analysis(tmp_path / "first"), analysis(tmp_path / "second")
    for key in ("evidence", "window_ns", "partition_ns", "busy"):
        assert one[key] == two[key], key
    assert two["devices"][0]["hardware"] == "NVIDIA H100"


def test_a_table_of_somebody_else_is_of_unknown_evidence(cli: Cli, tmp_path: Path) -> None:
    rows = {"engine": ["MME", "GPU"], "start_ns": [0, 5], "end_ns": [10, 20], "lane": ["a", "b"]}
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    answer = cli("analyze", "trace=a.parquet", "hydra.run.dir=out")
    assert "1 rows name an engine that there is none of" in answer.out
    assert analysis(tmp_path / "out")["evidence"] == "unknown"

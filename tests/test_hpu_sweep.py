"""Whole commands on the double of a Gaudi, as a user types them: sweeps in every mode, profiles, tables, the doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from overlap.cli import main
from overlap.devices.registry import Kind
from overlap.search.lock import device_lock
from tests.conftest import Answer
from tests.hpu import TINY, Double

Cli = Callable[..., Answer]
QUICK = (
    "search=quick",
    "search.race_candidates=2",
    "search.final_rounds=7",
    "search.attribution_rounds=2",
    "space.chunks=[1,2]",
    "space.lag=[1]",
)
LAZY = "device.hpu.mode=lazy"
# What a fake tool of the vendor's writes: a config that names the folder it was told.
HL_PROF_CONFIG = """#!/bin/sh
while [ "$1" != "-o" ]; do shift; done
mkdir -p "$HOME/.habana"
echo '{"GeneralSettings": {"values": {"outdir": {"value": "'$2'"}}}}' > "$HOME/.habana/prof_config.json"
"""


def shape(value: Any) -> Any:
    """Keys and types, without values."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else type(value).__name__


def files(run_dir: Path) -> set[str]:
    """Files of a run by name; the scalars of TensorBoard, one folder per candidate, apart."""
    found = {path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("tb/")}


def sweep(cli: Cli, run_dir: Path, device: str, *more: str) -> Answer:
    return cli("sweep", f"device={device}", *TINY, *QUICK, f"hydra.run.dir={run_dir}", *more)


@pytest.fixture(scope="module")
def on_the_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep on the host, to compare with."""
    run_dir = tmp_path_factory.mktemp("host") / "run"
    assert main(["sweep", "device=host", *TINY, *QUICK, f"hydra.run.dir={run_dir}"]) == 0
    return run_dir


def checks(run_dir: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "check"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["compile", "lazy", "lazy_graphs"])
def test_a_sweep_gives_the_files_of_the_host(
    on_the_host: Path, double: Double, cli: Cli, tmp_path: Path, mode: str
) -> None:
    host, card = on_the_host, tmp_path / "card"
    answer = sweep(cli, card, "hpu", f"device.hpu.mode={mode}")
    assert (answer.code, answer.err.count("Traceback")) == (0, 0)
    assert "measured" in answer.out
    # Either may keep nothing; the files are then the same but for the kept variant's traces.
    traces = {f"traces/{name}" for name in ("kept.parquet", "kept.pt.trace.json.gz")}
    assert files(card) - traces == files(host) - traces
    tuned = [yaml.safe_load((run_dir / "tuned.yaml").read_text()) for run_dir in (card, host)]
    assert shape(tuned[0]).keys() == shape(tuned[1]).keys()
    assert tuned[0]["entries"][0].keys() == tuned[1]["entries"][0].keys()
    assert tuned[0]["device"]["kind"] == "hpu"
    assert tuned[0]["device"]["evidence"] == "measured"
    assert tuned[0]["device"]["software"]["mode"] == mode
    profiles = [json.loads((run_dir / "profile.json").read_text()) for run_dir in (card, host)]
    assert shape(profiles[0]["variants"]["baseline"]).keys() == shape(profiles[1]["variants"]["baseline"]).keys()
    assert profiles[0]["variants"]["baseline"]["gap"] >= 0
    trials = [pl.read_parquet(run_dir / "trials.parquet") for run_dir in (card, host)]
    assert trials[0].columns == trials[1].columns
    report = (card / "report.html").read_text()
    assert "the busiest engine" in report
    assert "as the vendor&#x27;s profiler wrote it" in report
    for record in checks(card):
        assert record["failure"] == ""
        assert all(passed for passed, _ in record["gates"].values())
        assert {"cpu_fallback", "recompiles", "recipes", "finite", "memory", "order", "matrix nodes"} <= set(
            record["gates"]
        )


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_program_that_hangs_or_does_not_fit(double: Double, cli: Cli, tmp_path: Path) -> None:
    double.card("hang", large=20)
    answer = sweep(cli, tmp_path / "run", "hpu", LAZY, "device.timeout_s=30", "space.recipes=[]")
    assert answer.code == 0
    failures = [record["failure"] for record in checks(tmp_path / "run")]
    assert failures[0] == "", "the baseline"
    assert any("did not end within 30 s; its process was ended" in one for one in failures)


def test_a_finished_sweep_needs_the_card_no_more_than_its_name(double: Double, cli: Cli, tmp_path: Path) -> None:
    """The same command again goes through the journal: same result, no sample more."""
    run_dir = tmp_path / "run"
    first = sweep(cli, run_dir, "hpu", LAZY)
    lines = len((run_dir / "journal.jsonl").read_text().splitlines())
    second = sweep(cli, run_dir, "hpu", LAZY)
    assert (first.code, second.code) == (0, 0)
    assert [line for line in second.out.splitlines() if "busy" in line] == [
        line for line in first.out.splitlines() if "busy" in line
    ]
    assert len((run_dir / "journal.jsonl").read_text().splitlines()) == lines


def test_another_environment_is_another_sweep(double: Double, cli: Cli, tmp_path: Path) -> None:
    """Block sizes are read when a process starts, so a value is a sweep of its own, in a process of its own."""
    assert sweep(cli, tmp_path / "run", "hpu", LAZY, "device.hpu.sdpa_block=8").code == 0
    answer = sweep(cli, tmp_path / "run", "hpu", LAZY, "device.hpu.sdpa_block=16")
    assert answer.code == 2
    assert "device.software.PT_HPU_SDPA_BC_FACTOR 8 → 16" in answer.err
    answer = sweep(cli, tmp_path / "run", "hpu", LAZY, "device.hpu.sdpa_block=8", "device.hpu.softmax_mode=fast")
    assert answer.code == 2
    assert "device.software.hpu.softmax_mode nothing → fast" in answer.err


def test_buckets_each_have_a_stack_of_their_own(double: Double, cli: Cli, tmp_path: Path) -> None:
    buckets = tmp_path / "buckets.txt"
    buckets.write_text("(1, 32, 0)\n(1, 64, 0)\n")
    bucketed = ("buckets=file", f"buckets.file={buckets}", "buckets.phases=[prefill]")
    answer = sweep(cli, tmp_path / "run", "hpu", LAZY, *bucketed)
    assert answer.code == 0, answer.err
    stacks = [
        {r["time_ns"] for r in map(json.loads, path.read_text().splitlines()) if r.get("entrant") == "stack"}
        for path in sorted((tmp_path / "run").rglob("buckets/*/journal.jsonl"))
    ]
    assert len(stacks) == 2
    assert all(stacks)
    assert not stacks[0] & stacks[1]


def test_a_profile_names_its_times_for_what_they_are(double: Double, cli: Cli, tmp_path: Path) -> None:
    answer = cli("profile", "device=hpu", LAZY, *TINY, "split.chunks=2", f"hydra.run.dir={tmp_path / 'run'}")
    assert answer.code == 0, answer.err
    assert "as shares of the engines'" in answer.out
    assert "bound (the busiest engine)" in answer.out


def test_a_hardware_profile_takes_the_place_of_pytorchs(
    double: Double, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin" / "hl-prof-config"
    tool.parent.mkdir()
    command = ("profile", "device=hpu", LAZY, *TINY, "device.hpu.hardware_profile=true")
    answer = cli(*command, f"hydra.run.dir={tmp_path / 'none'}")
    assert (answer.code, answer.lines) == (
        2,
        ["overlap: hl-prof-config is not on this machine (device.hpu.hardware_profile=false)"],
    )
    tool.write_text(HL_PROF_CONFIG)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    answer = cli(*command, f"hydra.run.dir={tmp_path / 'run'}")
    assert answer.code == 0, answer.err
    found = pl.read_parquet(next((tmp_path / "run").rglob("*.parquet")))
    assert found["name"].str.starts_with("model/").all()
    tool.write_text("#!/bin/sh\necho no licence >&2\nexit 3\n")
    answer = cli(*command, f"hydra.run.dir={tmp_path / 'broken'}")
    assert (answer.code, "hl-prof-config failed with 3: no licence" in answer.err) == (2, True)


@pytest.mark.parametrize(
    ("traits", "says"),
    [
        (("no_card",), "no Gaudi card can be used"),
        (("busy",), "in use by another process"),
        (("driver",), "driver and software do not fit"),
        (("no_lanes",), "holds no lanes of the device"),
    ],
)
def test_a_card_that_cannot_be_used_is_one_line(
    double: Double, cli: Cli, tmp_path: Path, traits: tuple[str, ...], says: str
) -> None:
    double.card(*traits)
    answer = sweep(cli, tmp_path / "run", "hpu", LAZY)
    assert answer.code == 2
    assert says in answer.lines[-1]
    assert "Traceback" not in answer.err


def test_without_the_bridge_it_says_where_to_run(cli: Cli, tmp_path: Path) -> None:
    answer = sweep(cli, tmp_path / "run", "hpu")
    assert answer.code == 2
    assert "device hpu cannot be used: no habana_frameworks" in answer.lines[-1]
    assert "overlap doctor" in answer.lines[-1]


# -- doctor ------------------------------------------------------------------------------------------------------------


def test_the_doctor_explains_the_other_devices_where_there_is_no_gaudi(cli: Cli) -> None:
    answer = cli("doctor")
    assert answer.code == 0
    assert "host can be used: overlap sweep device=host" in answer.out
    for device in ("hpu", "gaudi2", "gaudi3"):
        assert device in answer.out
    assert cli("doctor", "device=gaudi3").code == 0


def test_the_doctor_fails_for_a_card_that_is_not_there(cli: Cli) -> None:
    answer = cli("doctor", "device=hpu")
    assert answer.code == 1
    assert "no habana_frameworks" in answer.out
    assert "hpu cannot be used here" in answer.out


def test_the_doctor_finds_everything_right(double: Double, cli: Cli) -> None:
    answer = cli("doctor", "mode=compile")
    assert answer.code == 0, answer.out
    assert "mode compile: usable" in answer.out
    assert " NO " not in answer.out
    assert "not yet run on hardware" in answer.out


@pytest.mark.parametrize(
    ("mode", "traits", "code", "says"),
    [
        ("lazy", ("wrong_linv",), 0, "sdpa_recomp_fwd"),
        ("lazy", ("no_lanes",), 1, "profiler"),
        ("lazy", ("nan",), 1, "GEMM and softmax"),
        ("lazy", ("busy",), 1, "in use by another process"),
        ("lazy_graphs", ("no_metrics",), 0, "not in this release"),
        ("compile", ("refuse_hints",), 0, "strict hints"),
    ],
)
def test_the_doctor_names_what_does_not_work(
    double: Double, cli: Cli, mode: str, traits: tuple[str, ...], code: int, says: str
) -> None:
    double.card(*traits)
    answer = cli("doctor", f"mode={mode}")
    assert (answer.code, "Traceback" in answer.err) == (code, False)
    lines = [line for line in answer.out.splitlines() if says in line]
    assert lines
    if code == 0 and traits != ("no_metrics",):
        assert any(" NO " in line for line in lines)


def test_the_doctor_outlives_a_call_that_crashes(double: Double, cli: Cli) -> None:
    double.card("crash", large=1)
    answer = cli("doctor", "mode=lazy_graphs")
    assert answer.code == 1
    rows = {line.strip().split("  ")[0]: line for line in answer.out.splitlines()}
    assert " NO " in rows["HPU graphs"]
    assert "ended with 139" in " ".join(answer.out.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("device=hpuu",), "did you mean hpu"),
        (("device=hpu", "mode=graphs"), "there is no mode 'graphs'"),
        (("device=host", "mode=lazy"), "mode=lazy is of a card, and the device is host"),
        (("cards=2",), "doctor does not take 'cards=2'"),
    ],
)
def test_mistakes_are_told(cli: Cli, arguments: tuple[str, ...], says: str) -> None:
    answer = cli("doctor", *arguments)
    assert answer.code == 2
    assert says in answer.lines[-1]


def test_a_card_that_another_job_times_on_is_not_opened(
    double: Double, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening would fail with the vendor's own words; the lock says who it is, or waits."""
    double.card("busy")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with device_lock(Kind("hpu", "measured"), "refuse"):
        answer = sweep(cli, tmp_path / "run", "hpu", LAZY, "device.lock=refuse")
    assert answer.code == 2
    assert "device hpu is in use by pid" in answer.lines[-1]


def test_this_process_never_loads_the_bridge_by_itself(tmp_path: Path) -> None:
    """PyTorch imports whatever names itself as a backend, unless it is told not to."""
    about = tmp_path / "loud-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[torch.backends]\ndevice_backend = loud:load\n")
    (tmp_path / "loud.py").write_text("def load():\n    print('LOADED')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    environment.pop("TORCH_DEVICE_BACKEND_AUTOLOAD", None)
    run = partial(subprocess.run, env=environment, capture_output=True, text=True, timeout=120)
    assert "LOADED" in run([sys.executable, "-c", "import torch"]).stdout
    answer = run([sys.executable, "-m", "overlap", "doctor", "device=host"])
    assert answer.returncode == 0
    assert "LOADED" not in answer.stdout

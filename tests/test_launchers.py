"""Launchers: the configs compose, a missing plug-in is one line, and what jobs elsewhere came to is told here.

Tests that need a plug-in are skipped where it is not installed; `make test` installs those of joblib and submitit.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.utils import JobReturn, JobStatus

from overlap.app import launchers
from overlap.app.launch import Outcome
from overlap.app.launchers import NEEDS, installed, returned_mistakes
from overlap.errors import OverlapError, SplitError
from overlap.search.records import read_records
from overlap.serve.tuned_file import convert, load

Cli = Any
OURS = sorted(file.name.removesuffix(".yaml") for file in files("overlap.conf").joinpath("hydra/launcher").iterdir())
# Of each plug-in the launcher that needs nothing but this machine.
RUNNABLE = ("joblib_models", "submitit_local", "ray_local")


def need(launcher: str) -> None:
    """Skip where the plug-in of `launcher` is not installed."""
    extra, plugin = NEEDS[launcher]
    if not installed(plugin):
        pytest.skip(f"{plugin} is not installed: pip install 'overlap[{extra}]'")


def test_every_launcher_of_ours_says_what_it_needs() -> None:
    assert set(OURS) == {"joblib_models", "slurm", "ray_local"}
    assert set(OURS) <= set(NEEDS)
    for name in OURS:
        text = files("overlap.conf").joinpath(f"hydra/launcher/{name}.yaml").read_text(encoding="utf-8")
        assert f"pip install 'overlap[{NEEDS[name][0]}]'" in text


@pytest.mark.parametrize("name", NEEDS)
def test_a_launcher_without_its_plugin_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(launchers, "installed", lambda plugin: False)
    answer = cli("sweep", "-m", f"hydra/launcher={name}", "search.seed=1,2")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert f"pip install 'overlap[{NEEDS[name][0]}]'" in answer.err
    assert NEEDS[name][1].replace("_", "-") in answer.err
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_not_there_is_not_installed() -> None:
    assert not installed("hydra_nothing_launcher")
    assert not installed("nothing.at.all")


def test_an_unknown_launcher_is_one_line(cli: Cli) -> None:
    answer = cli("sweep", "-m", "hydra/launcher=slurmm", "search.seed=1,2")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "did you mean slurm" in answer.err


@pytest.mark.parametrize("name", OURS)
def test_our_launchers_compose(cli: Cli, name: str) -> None:
    need(name)
    answer = cli("sweep", "--cfg", "hydra", f"hydra/launcher={name}")
    assert (answer.code, answer.err) == (0, "")
    assert "_target_: hydra_plugins." in answer.out


@pytest.mark.parametrize("name", OURS)
def test_a_launcher_does_nothing_without_a_multirun(cli: Cli, name: str) -> None:
    """Hydra would run one job here and say nothing."""
    need(name)
    answer = cli("sweep", f"hydra/launcher={name}")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "add -m" in answer.err


def test_what_a_site_must_set_can_be_set(cli: Cli) -> None:
    need("slurm")
    sets = ("partition=p", "gres=gpu:hl225:1", "setup=[a,b]", "qos=q", "account=a", "array_parallelism=4")
    overrides = [f"hydra.launcher.{one}" for one in sets] + ["+hydra.launcher.additional_parameters.reservation=r"]
    answer = cli("sweep", "--cfg", "hydra", "hydra/launcher=slurm", *overrides)
    assert (answer.code, answer.err) == (0, "")
    for line in ("partition: p", "gres: gpu:hl225:1", "reservation: r", "array_parallelism: 4"):
        assert line in answer.out


def test_a_misspelt_key_of_a_launcher_is_found(cli: Cli) -> None:
    need("slurm")
    answer = cli("sweep", "-m", "hydra/launcher=slurm", "hydra.launcher.partitoin=p", "search.seed=1,2")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "did you mean hydra.launcher.partition" in answer.err


# -- what jobs came to -----------------------------------------------------------------------------------------------


def test_mistakes_are_taken_once_whichever_process_they_are_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, elsewhere = SplitError("here", "a hint"), SplitError("elsewhere", "a hint")
    outcome = Outcome()
    outcome.take(here)
    jobs = [JobReturn(_return_value=value, status=JobStatus.COMPLETED) for value in (here, elsewhere, None, 3)]
    monkeypatch.setattr(Hydra, "multirun", lambda self: [jobs[:1], tuple(jobs[1:]), None])
    before = Hydra.multirun
    with returned_mistakes(outcome.take):
        Hydra.multirun(None)  # type: ignore[call-arg,arg-type]
    assert Hydra.multirun is before
    assert outcome.mistakes == [here, elsewhere]
    assert capsys.readouterr().err == "overlap: here (a hint)\noverlap: elsewhere (a hint)\n"


def test_an_outcome_knows_when_it_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = pickle.loads(pickle.dumps(Outcome()))
    assert not outcome.elsewhere
    assert outcome.argv == sys.argv
    monkeypatch.setattr("overlap.app.launch.this_process", lambda: "x:1")
    assert outcome.elsewhere


def test_errors_come_back_from_other_processes_whole() -> None:
    error = pickle.loads(pickle.dumps(SplitError("message", "hint")))
    assert isinstance(error, OverlapError)
    assert (error.message, error.hint) == ("message", "hint")


def overlap(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "overlap", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize("name", RUNNABLE)
def test_mistakes_elsewhere_set_the_exit_code_and_are_told_once(name: str, tmp_path: Path) -> None:
    need(name)
    done = overlap(tmp_path, "sweep", "-m", f"hydra/launcher={name}", "search.final_rounds=2,3")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    mistakes = [line for line in done.stderr.splitlines() if line.startswith("overlap: ")]
    assert len(mistakes) == 2
    for rounds, line in zip((2, 3), mistakes, strict=True):
        assert f"search.final_rounds is {rounds} " in line
    logs = sorted(log.read_text() for log in (tmp_path / "outputs").rglob("run.log"))
    assert len(logs) == 2
    assert all("search.final_rounds is" in log for log in logs)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNNABLE[1:])
def test_jobs_elsewhere_sweep_share_and_fail(name: str, tmp_path: Path) -> None:
    """A sweep and a mistake: the first finishes and shares its result, the second sets the exit code, told once."""
    need(name)
    done = overlap(
        tmp_path,
        *("sweep", "-m", f"hydra/launcher={name}", "device=gaudi2", "search=quick", "records=shared"),
        *("workload.bucket.query=128", "workload.window_layers=1,99", "space.chunks=[1]", "space.query_tile=[0]"),
    )
    assert done.returncode == 2, done.stderr
    mistakes = [line for line in done.stderr.splitlines() if line.startswith("overlap: ")]
    assert mistakes == ["overlap: window of 99 layers in a model of 24 (window_layers must be between 1 and 24)"]
    found = read_records(tmp_path / "shared")
    assert found.damaged == ()
    assert len(found.records) == 1
    run_dir = Path(found.records[0]["run_dir"])
    assert run_dir.parent == tmp_path / "outputs" / "sweep" / "multirun"
    assert convert(found.records[0]["tuned"], "record") == load(run_dir / "tuned.yaml")
    assert f"hydra/launcher={name}" in (run_dir / "report.html").read_text(), "the command is the user's"


@pytest.mark.parametrize("name", RUNNABLE[:1])
def test_a_defect_elsewhere_is_a_defect_here(name: str, tmp_path: Path) -> None:
    """A missing file of ours must not be taken for a run directory that cannot be made."""
    need(name)
    code = (
        "from overlap import cli; from overlap.commands import sweep\n"
        "def run(config, run_dir): raise FileNotFoundError(2, 'No such file', 'ours.json')\n"
        "sweep.run = run\n"
        f"raise SystemExit(cli.main(['sweep', '-m', 'hydra/launcher={name}', 'search.seed=1,2']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("FileNotFoundError")
    logs = list(tmp_path.rglob("run.log"))
    assert len(logs) == 2
    assert all("FileNotFoundError" in log.read_text() for log in logs)

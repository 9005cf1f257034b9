from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from overlap import __version__
from overlap.app.naming import run_name
from overlap.app.usage import group_options
from overlap.commands import COMMANDS, sweep
from overlap.errors import OverlapError, RunDirError, SplitError
from overlap.similar import did_you_mean
from tests.conftest import Answer

Cli = Any


class Recorder:
    """Takes the place of a command's `run`."""

    def __init__(self, *raises: BaseException | None) -> None:
        self.configs: list[Any] = []
        self.run_dirs: list[Path] = []
        self._raises = list(raises)

    def __call__(self, config: Any, run_dir: Path) -> None:
        self.configs.append(config)
        self.run_dirs.append(run_dir)
        error = self._raises.pop(0) if self._raises else None
        if error is not None:
            raise error


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return replaced(monkeypatch)


def replaced(monkeypatch: pytest.MonkeyPatch, *raises: BaseException | None) -> Recorder:
    recorder = Recorder(*raises)
    monkeypatch.setattr(sweep, "run", recorder)
    return recorder


def assert_refused(answer: Answer, *words: str) -> None:
    assert answer.code == 2, answer
    assert len(answer.lines) == 1, answer.err
    assert answer.err.startswith("overlap: ")
    assert "Traceback" not in answer.err
    for word in words:
        assert word in answer.err


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_the_commands(cli: Cli, arguments: tuple[str, ...]) -> None:
    answer = cli(*arguments)
    assert answer.code == 0
    for command in COMMANDS.values():
        assert command.summary in answer.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_lists_its_options(cli: Cli, name: str) -> None:
    answer = cli(name, "--help")
    assert answer.code == 0
    for group in COMMANDS[name].groups:
        for option in group_options(group):
            assert option in answer.out
    if COMMANDS[name].groups:
        assert "--cfg job" in answer.out
    if "workload" in COMMANDS[name].groups:
        assert "default qwen2_5_0_5b_prefill" in answer.out
    assert all(len(line) <= 120 for line in answer.out.splitlines())


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"overlap {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("swep",), ("did you mean sweep?",)),
        (("zzz",), ("there are: sweep, profile, analyze, tensorboard, devices",)),
        (("workload=llama",), ("a command comes first",)),
        (("devices", "device=host"), ("no constants to list", "gaudi2, gaudi3")),
        (("sweep", "workloda=x"), ("did you mean workload",)),
        (("sweep", "workload=qwen2_5_0_5_prefill"), ("did you mean qwen2_5_0_5b_prefill",)),
        (("sweep", "workload=zzz"), ("overlap sweep --help",)),
        (("sweep", "device=cuda"), ("there is no device 'cuda'", "auto, gaudi2, gaudi3, host, hpu")),
        (("sweep", "search.rouns=3"), ("search.race_rounds",)),
        (("sweep", "race_rounds=3"), ("did you mean search.race_rounds?",)),
        (("sweep", "workload.bucket.qurey=3"), ("did you mean workload.bucket.query",)),
        (("sweep", "workload.model.head=3"), ("workload.model.heads",)),
        (("sweep", "search.race_rounds=abc"), ("search.race_rounds=abc: Value 'abc'", "Integer")),
        (("sweep", "space.chunks=[1,a]"), ("space.chunks=[1,a]: Value 'a'",)),
        (("sweep", "workload.bucket.query=null"), ("not Optional",)),
        (("sweep", "a=["), ("'a=[' cannot be read",)),
        (("sweep", "foo"), ("'foo' is not an override", "key=value")),
        (("sweep", "model=llama_3_2_1b"), ("model@workload.model",)),
        (("sweep", "~nope"), ("there is no 'nope'",)),
        (("sweep", "hydra.rn.dir=x"), ("did you mean hydra.run.dir",)),
        (("sweep", "--cgf", "job"), ("--cgf", "--help lists the flags")),
        (("sweep", "-m", "workload=qwen2_5_0_5b_prefill,nope"), ("there is no workload 'nope'",)),
        (("profile", "split.chunk=4"), ("did you mean split.chunks",)),
        (("profile", "repeats=many"), ("Integer",)),
        # The name exists, the value breaks a rule of the object it builds.
        (("sweep", "workload.model.heads=15"), ("multiple of kv_heads",)),
        (("sweep", "workload.window_layers=99"), ("between 1 and 24",)),
        (("sweep", "search.confidence=2"), ("between 0 and 1",)),
        (("sweep", "search.final_rounds=3"), ("fewer than 7",)),
        (("sweep", "search.orders=[random]"), ("program, list",)),
        (("sweep", "search.orders=[]"), ("program, list",)),
        (("sweep", "search.finalists=0"), ("at least 1",)),
        (("sweep", "search.margin=-1"), ("0 or more",)),
        (("sweep", "space.chunks=[]"), ("space.chunks is empty",)),
        (("sweep", "device.mme_threads=0"), ("at least 1",)),
        (("sweep", "device.timeout_s=0"), ("positive",)),
        (("sweep", "device.memory_fraction=2"), ("at most 1",)),
        (("sweep", "device.kind=cuda"), ("cuda",)),
        (("sweep", "device=hpu"), ("no habana_frameworks", "overlap doctor")),
        (("sweep", "+foo=1"), ("there is no 'foo'",)),
        (("sweep", "search.seed=${nope}"), ("nope",)),
        (("sweep", "workload.config_json=nowhere"), ("cannot read nowhere",)),
        (("profile", "order=random"), ("program, list",)),
        (("profile", "repeats=0"), ("at least 1",)),
    ],
)
def test_mistakes_get_one_line(cli: Cli, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_refused(cli(*arguments), *words)


def test_a_misspelt_override_leaves_nothing_behind(cli: Cli, tmp_path: Path) -> None:
    cli("sweep", "search.rouns=3")
    assert list(tmp_path.iterdir()) == []


def test_the_config_is_printed(cli: Cli) -> None:
    answer = cli("sweep", "--cfg", "job", "workload=llama_3_2_1b_decode")
    assert answer.code == 0
    assert "name: llama-3.2-1b" in answer.out
    assert "hydra" not in answer.out


def test_a_package_that_is_not_there(cli: Cli) -> None:
    assert cli("sweep", "--cfg", "job", "-p", "nope").code == 2


def test_options_of_the_user(cli: Cli, recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "mine" / "space").mkdir(parents=True)
    (tmp_path / "mine" / "space" / "tiny.yaml").write_text("chunks: [1, 2]\n")
    assert cli("sweep", "--config-dir", "mine", "space=tiny").code == 0
    assert recorder.configs[0].space.chunks == [1, 2]


def test_a_run_gets_its_directory_and_log(cli: Cli, recorder: Recorder, tmp_path: Path) -> None:
    assert cli("sweep", "search.seed=3").code == 0
    run_dir = recorder.run_dirs[0]
    assert run_dir.relative_to(tmp_path).parts[:2] == ("outputs", "sweep")
    assert (run_dir / ".hydra" / "overrides.yaml").read_text() == "- search.seed=3\n"
    assert "sweep in" in (run_dir / "run.log").read_text()
    assert recorder.configs[0].search.seed == 3


def test_a_mistake_in_a_job_is_one_line_and_logged(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    replaced(monkeypatch, SplitError("2048 query tokens\nin 3 chunks", "use 4"))
    assert_refused(cli("sweep", "hydra.run.dir=here"), "overlap: 2048 query tokens in 3 chunks (use 4)")
    assert "in 3 chunks" in (tmp_path / "here" / "run.log").read_text()


def test_a_defect_shows_its_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    replaced(monkeypatch, ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError):
        cli("sweep", "hydra.run.dir=here")
    assert "ZeroDivisionError" in (tmp_path / "here" / "run.log").read_text()


def test_a_missing_file_in_a_job_is_a_defect(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, FileNotFoundError(2, "No such file", "ours.json"))
    with pytest.raises(FileNotFoundError):
        cli("sweep")


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied", "tuned.yaml"), OSError(28, "No space left")]
)
def test_a_full_or_closed_disk_is_not_a_defect(cli: Cli, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    replaced(monkeypatch, error)
    assert_refused(cli("sweep"), "cannot write", error.strerror)


@pytest.mark.parametrize("place", ["file/below", "file"])
def test_an_unwritable_run_dir(cli: Cli, recorder: Recorder, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("kept")
    assert_refused(cli("sweep", f"hydra.run.dir={place}"), "cannot write", "hydra.run.dir=")
    assert (tmp_path / "file").read_text() == "kept"
    assert recorder.configs == []


def test_a_refused_run_leaves_the_record_of_the_other(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replaced(monkeypatch, None, RunDirError("belongs to another run"))
    cli("sweep", "search.seed=1", "hydra.run.dir=here")
    before = {file: file.read_bytes() for file in (tmp_path / "here" / ".hydra").iterdir()}
    assert_refused(cli("sweep", "search.seed=2", "hydra.run.dir=here"), "belongs to another run")
    assert {file: file.read_bytes() for file in (tmp_path / "here" / ".hydra").iterdir()} == before


def test_multirun_names_folders_by_content(cli: Cli, recorder: Recorder, tmp_path: Path) -> None:
    both = ("sweep", "-m", "workload=qwen2_5_0_5b_prefill,qwen2_5_0_5b_decode")
    assert cli(*both).code == 0
    first = list(recorder.run_dirs)
    assert len(set(first)) == 2
    assert all(one.parent == tmp_path / "outputs" / "sweep" / "multirun" for one in first)
    # A longer sweep, in another order, meets the same folders again.
    assert cli("sweep", "-m", "workload=qwen2_5_7b_decode,qwen2_5_0_5b_decode,qwen2_5_0_5b_prefill").code == 0
    again = recorder.run_dirs[2:]
    assert again[1:] == first[::-1]
    assert again[0] not in first


def test_one_failing_job_does_not_stop_the_others(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = replaced(monkeypatch, OverlapError("the first"), None, OverlapError("the third"))
    answer = cli("sweep", "-m", "search.seed=1,2,3")
    assert answer.code == 2
    assert len(recorder.configs) == 3
    assert [line for line in answer.lines if line.startswith("overlap:")] == [
        "overlap: the first",
        "overlap: the third",
    ]


def test_ctrl_c_says_how_to_go_on(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, KeyboardInterrupt())
    answer = cli("sweep", "hydra.run.dir=runs/a")
    assert answer.code == 130
    assert len(answer.lines) == 1
    assert "hydra.run.dir=runs/a" in answer.err


def test_ctrl_c_stops_a_multirun(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = replaced(monkeypatch, None, KeyboardInterrupt())
    answer = cli("sweep", "-m", "search.seed=1,2,3")
    assert answer.code == 130
    assert len(recorder.configs) == 2
    assert "same command again" in answer.err


def test_arguments_and_environment_are_given_back(cli: Cli, recorder: Recorder) -> None:
    before = list(sys.argv), os.environ.get("HYDRA_FULL_ERROR")
    cli("sweep", "search.seed=1")
    cli("sweep", "search.sed=1")
    assert (list(sys.argv), os.environ.get("HYDRA_FULL_ERROR")) == before


def test_run_names() -> None:
    assert run_name(["a=1", "b=2"]) == run_name(["b=2", "a=1"]) == run_name(["a=9", "b=2", "a=1"])
    assert run_name(["a=1"]) != run_name(["a=2"]) != run_name(["b=2"])
    assert run_name([]).startswith("default-")
    assert run_name(["workload=x"]).startswith("x-")
    wild = run_name(["workload.config_json=../../etc/x y", "space.chunks=[1,2]", "w=" + "v" * 300])
    assert set(wild) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")
    assert len(wild) < 64
    assert not wild.startswith(".")


def test_hints() -> None:
    assert did_you_mean("swep", ["sweep", "profile"]).startswith("did you mean sweep?")
    assert did_you_mean("x", [str(n) * 3 for n in range(9)], "see --help") == "see --help"


def overlap(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "overlap", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_reader_that_leaves_is_no_error() -> None:
    process = overlap("sweep", "--help")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert (process.wait(), process.stderr.read()) == (141, "")


def test_help_and_mistakes_load_no_torch() -> None:
    code = (
        "import sys; from overlap.cli import main; main(['sweep', '--help']); main(['sweep', 'search.rouns=3']); "
        "sys.exit('torch' in sys.modules or 'polars' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ctrl_c_from_a_terminal(tmp_path: Path) -> None:
    code = (
        "import time; from overlap import cli; from overlap.commands import sweep; import pathlib\n"
        "def run(config, run_dir): pathlib.Path('started').touch(); time.sleep(600)\n"
        "sweep.run = run\nraise SystemExit(cli.main(['sweep', 'hydra.run.dir=here']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.splitlines() == [
        "overlap: interrupted; what was measured is kept; run again with hydra.run.dir=here to resume"
    ]

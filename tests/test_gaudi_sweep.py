"""The model through the command line: sweeps that say simulated and survive kills, constants, and what is refused."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from overlap.cli import main
from overlap.devices.gaudi.constants import load_constants
from overlap.search.journal import Journal
from overlap.serve.tuned_file import load
from tests.gaudi import CHIPS

Cli = Any
# Small enough for seconds: one model of 0.5B, short prompts, four splits.
SWEEP = (
    "sweep",
    "workload=qwen2_5_0_5b_prefill",
    "workload.bucket.query=512",
    "workload.window_layers=1",
    "space.chunks=[1,2]",
    "space.chunk_axis=[query]",
    "space.query_tile=[0]",
    "search=quick",
)


def tuned_text(folder: Path) -> str:
    """`tuned.yaml` without the lines that tell when it was made."""
    return "\n".join(line for line in (folder / "tuned.yaml").read_text().splitlines() if "created" not in line)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a sweep on Gaudi2 printed, and its folder."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert main([*SWEEP, "device=gaudi2", f"hydra.run.dir={folder / 'run'}"]) == 0
    return out.getvalue(), folder / "run"


def test_a_sweep_says_in_every_file_that_it_was_simulated(small: tuple[str, Path]) -> None:
    out, folder = small
    tuned = load(folder / "tuned.yaml")
    assert tuned.device.evidence == tuned.entries[0].evidence == "simulated"
    assert tuned.device.kind == "gaudi2"
    assert tuned.device.software["model"] == "overlap-gaudi 1"
    assert "simulated" in out
    assert "measured" not in out
    assert json.loads((folder / "profile.json").read_text())["evidence"] == "simulated"
    assert "simulated" in (folder / "report.html").read_text()
    entry = tuned.entries[0]
    assert entry.latency_us.low == entry.latency_us.median == entry.latency_us.high, "the model has no noise"
    assert entry.gap >= 0


def test_a_killed_sweep_ends_in_the_same_result(
    cli: Cli, small: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed after its fifth and again after its twentieth record; the third call ends it."""
    expected = tuned_text(small[1])
    again = (*SWEEP, "hydra.run.dir=again", "device=gaudi2")
    append = Journal.append
    for records in (5, 15):
        left = iter(range(records))

        def killed(journal: Journal, kind: str, left: Any = left, **fields: Any) -> dict[str, Any]:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return append(journal, kind, **fields)

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", killed)
            assert cli(*again).code == 130
    assert cli(*again).code == 0
    assert tuned_text(tmp_path / "again") == expected


def test_two_sweeps_give_the_same_traces(cli: Cli, small: tuple[str, Path], tmp_path: Path) -> None:
    """Byte for byte."""
    assert cli(*SWEEP, "hydra.run.dir=again", "device=gaudi2").code == 0
    for path in sorted((small[1] / "traces").iterdir()):
        assert path.read_bytes() == (tmp_path / "again" / "traces" / path.name).read_bytes()
    assert tuned_text(small[1]) == tuned_text(tmp_path / "again")


def test_a_folder_of_another_chip_or_switch_is_refused(cli: Cli, small: tuple[str, Path]) -> None:
    for other in (("device=gaudi3",), ("device=gaudi2", "device.gaudi.fuser=false")):
        answer = cli(*SWEEP, f"hydra.run.dir={small[1]}", *other)
        assert answer.code == 2
        assert "another device" in answer.err


def test_switches_and_constants_can_be_typed(cli: Cli, tmp_path: Path) -> None:
    common = ("profile", "workload=qwen2_5_0_5b_prefill", "workload.bucket.query=512", "workload.window_layers=1")
    times = []
    for number, more in enumerate((("device.gaudi.mode=eager",), ("device.gaudi.constants={mme.clock_mhz: 800}",), ())):
        answer = cli(*common, "device=gaudi3", f"hydra.run.dir=r{number}", *more)
        assert answer.code == 0, answer.err
        times.append(json.loads((tmp_path / f"r{number}" / "profile.json").read_text())["latency_ns"]["median"])
    assert times[0] > times[1] > times[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("device.gaudi.mode=eagre",), ("device.gaudi.mode is 'eagre'", "hpu_graph, compile, lazy, eager")),
        (("device.gaudi.mod=eager",), ("mod",)),
        (("device.gaudi.chains=-2",), ("device.gaudi.chains is -2",)),
        (("device.gaudi.constants={mme.clok_mhz: 1}",), ("no constant 'mme.clok_mhz'", "mme.clock_mhz")),
        (("device.gaudi.constants={mme.clock_mhz: fast}",), ("mme.clock_mhz is 'fast'",)),
        (
            ("workload=llama_3_1_405b_prefill", "workload.tensor_parallel=1"),
            ("needs", "gaudi2 has", "tensor_parallel=", "would fit"),
        ),
    ],
)
def test_mistakes_get_one_line(cli: Cli, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    answer = cli("sweep", "device=gaudi2", *arguments)
    assert answer.code == 2, answer
    assert len(answer.lines) == 1, answer.err
    for word in words:
        assert word in answer.err


def test_an_unknown_device_is_refused(cli: Cli) -> None:
    assert cli("sweep", "device=gaudi4").code == 2


# -- overlap devices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chip", CHIPS)
def test_all_constants_are_listed_with_their_sources(cli: Cli, chip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    answer = cli("devices", f"device={chip}")
    assert answer.code == 0
    rows = {line.split()[0]: line for line in answer.out.splitlines() if line.strip()}
    for name, entry in load_constants(chip).entries.items():
        assert entry.source in rows[name]
        if entry.low is not None:
            assert f"{entry.low:g} to {entry.high:g}" in rows[name]
    assert "hal.h" in answer.out


def test_devices_lists_the_models(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    out = cli("devices").out
    for chip in CHIPS:
        assert any(line.startswith(chip) and "simulated" in line for line in out.splitlines())


@pytest.mark.parametrize(("name", "words"), [("host", "modelled ones: gaudi2, gaudi3"), ("gaudi22", "gaudi2")])
def test_devices_without_constants_say_which_have_some(cli: Cli, name: str, words: str) -> None:
    answer = cli("devices", f"device={name}")
    assert answer.code == 2
    assert words in answer.err

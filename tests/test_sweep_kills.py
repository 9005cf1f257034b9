"""Real processes, killed for real: `kill -9` at any instant, two sweeps in one folder, disks that are full or closed.

A helper process imports everything once and forks a child per sweep, so that a kill costs milliseconds. The limit of a
disk is played by the limit for the size of a file, which the operating system enforces in the same place.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from overlap.errors import RunDirError
from overlap.search.journal import NAME, Journal
from overlap.search.sweep import SweepResult
from overlap.serve.tuned_file import load
from tests.fakes import FakeDevice
from tests.sweeps import SEARCH as SMALL_SEARCH
from tests.sweeps import Untouchable, samples, sweep

ROOT = Path(__file__).resolve().parent.parent
NOBODY = 65534
SEEDS = range(3)
# In the header of the journal, in its records, in a profile, in the files of the run.
LIMITS_BYTES = (0x40, 0x800, 0x3000, 0x6000, 0x10000)
# A kill may cost the pairs of one round. Five kills leave enough of every stage for the same verdict, and too few
# race rounds for anybody to be dropped early leave the same samples.
MOST_KILLS = 5
SEARCH = replace(SMALL_SEARCH, race_rounds=6, final_rounds=24, attribution_rounds=6)
# `start` forks a child that sweeps into a folder, with 1 ms per run and perhaps a limit for the size of its files. It
# ends with 0, with 3 after a mistake that a user gets to see, with 1 after anything else.
HELPER = """
import json, os, random, resource, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from overlap.app.launch import _as_mistake
from overlap.commands.sweep_files import write_all
from tests.fakes import FakeDevice
from tests.sweeps import sweep
from tests.test_sweep_kills import LIMITS_BYTES, MOST_KILLS, SEARCH, SEEDS

def clock(runnable):
    time.sleep(0.001)
    return runnable.makespan_ns

def start(folder, limit_bytes=0):
    pid = os.fork()
    if pid:
        return pid
    try:
        if limit_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
        write_all(sweep(folder, FakeDevice(clock), SEARCH), folder, "overlap sweep")
    except Exception as error:
        mistake = _as_mistake(error)
        os.write(2, f"{folder.name}: {mistake or repr(error)}\\n".encode())
        os._exit(3 if mistake else 1)
    os._exit(0)

def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def kill_often(folder, rng):
    before, codes = b"", []
    while len(codes) < MOST_KILLS:
        pid = start(folder)
        time.sleep(rng.uniform(0.05, 0.5))
        os.kill(pid, signal.SIGKILL)
        codes.append(end(pid))
        journal = folder / "journal.jsonl"
        now = journal.read_bytes() if journal.is_file() else b""
        assert now.startswith(before[: before.rfind(b"\\n") + 1]), "a record that was whole is gone"
        before = now
    return [*codes, end(start(folder))]

def fill(folder, limit_bytes):
    code = end(start(folder, limit_bytes))
    journal = folder / "journal.jsonl"
    text = journal.read_bytes() if journal.is_file() else b""
    left = [str(path) for path in folder.rglob("*") if path.name.startswith(".") or path.name == "tuned.yaml"]
    return [code, text[-1:] in (b"", b"\\n"), left, end(start(folder))]

top = Path(sys.argv[1])
pids = [start(top / "two"), start(top / "two")]
print(json.dumps({
    "two": sorted(end(pid) for pid in pids),
    "killed": [kill_often(top / f"killed{seed}", random.Random(seed)) for seed in SEEDS],
    "full": [fill(top / f"full{limit}", limit) for limit in LIMITS_BYTES],
}))
"""


@dataclass(frozen=True)
class Ran:
    """What the helper did: exit codes, what its children said, and the folder above theirs."""

    codes: dict[str, Any]
    says: dict[str, list[str]]
    top: Path


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """All that happens in other processes, at once: importing is the longest part of it."""
    top = tmp_path_factory.mktemp("kills")
    command = [sys.executable, "-c", HELPER, str(top)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    says: dict[str, list[str]] = {}
    for line in done.stderr.splitlines():
        name, _, text = line.partition(": ")
        says.setdefault(name, []).append(text)
    return Ran(json.loads(done.stdout), says, top)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    """The sweep that all others must equal."""
    return sweep(tmp_path_factory.mktemp("undisturbed"), FakeDevice(), SEARCH)


def assert_same(folder: Path, undisturbed: SweepResult) -> None:
    """Every fact is there once, and the result is that of the undisturbed sweep."""
    result = sweep(folder, Untouchable(), SEARCH)
    taken = samples(result.records)
    assert len(set(taken)) == len(taken)
    # Rounds that were cut in two are taken once more.
    assert set(taken) >= set(samples(undisturbed.records))
    for kind, name in (("screen", "split"), ("check", "entrant"), ("bound", "entrant")):
        facts = [[r[name] for r in one.records if r["kind"] == kind] for one in (result, undisturbed)]
        assert facts[0] == facts[1], kind
    assert result.verdict.kept == undisturbed.verdict.kept
    assert result.verdict.speedup.median == undisturbed.verdict.speedup.median
    assert result.attribution == pytest.approx(undisturbed.attribution)
    assert load(folder / "tuned.yaml").entries[0].latency_us.median == result.kept.latency.median / 1000


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_random_instants_a_sweep_loses_nothing(ran: Ran, undisturbed: SweepResult, seed: int) -> None:
    """Whole records stay, nothing is measured twice, and in the end the result is the same."""
    *kills, last = ran.codes["killed"][seed]
    assert kills.count(-signal.SIGKILL) >= 2, kills
    assert last == 0, ran.says
    assert_same(ran.top / f"killed{seed}", undisturbed)


@pytest.mark.slow
def test_two_processes_in_one_directory(ran: Ran, undisturbed: SweepResult) -> None:
    """One of them sweeps; the other is told, and touches nothing."""
    assert ran.codes["two"] == [0, 3]
    folder = ran.top / "two"
    assert ran.says["two"] == [
        f"another sweep is running in {folder} (wait for it, or choose another hydra.run.dir)",
    ]
    assert_same(folder, undisturbed)
    records = [json.loads(line) for line in (folder / NAME).read_text().splitlines()]
    assert len({record["session"] for record in records if record["kind"] == "sample"}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(LIMITS_BYTES)), ids=map(str, LIMITS_BYTES))
def test_a_disk_that_fills_up_is_one_error_and_leaves_valid_files(
    ran: Ran, undisturbed: SweepResult, number: int
) -> None:
    """No half line, no file that was being written, no tuned config without what explains it; room lets it go on."""
    code, whole_lines, left, again = ran.codes["full"][number]
    name = f"full{LIMITS_BYTES[number]}"
    assert (code, whole_lines, left, again) == (3, True, [], 0), ran.says
    assert len(ran.says[name]) == 1
    assert "cannot write" in ran.says[name][0]
    assert "File too large" in ran.says[name][0]
    assert_same(ran.top / name, undisturbed)


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder that may be read and not written, also where tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)


def test_a_read_only_directory_is_one_error(closed: Path) -> None:
    for place in (closed, closed / "below"):
        with pytest.raises(RunDirError, match=r"cannot write to .*Permission denied"):
            Journal(place, {})
    assert list(closed.iterdir()) == []

"""The journal: what was written is there again, whatever happened to the process, the disk or the file."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.errors import RunDirError
from overlap.search.journal import NAME, Journal

IDENTITY = {"workload": {"query": 16}, "space": {"chunks": (1, 2)}}


def reload(folder: Path) -> list[dict[str, Any]]:
    """Records that a new session finds, without the header."""
    with Journal(folder, IDENTITY) as journal:
        return journal.records[1:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run dir with a journal of two records."""
    with Journal(tmp_path / "run", IDENTITY) as journal:
        journal.append("sample", time_ns=1)
        journal.append("sample", time_ns=2)
        assert not journal.resumed
    return tmp_path / "run"


def test_records_are_there_again_in_order(folder: Path) -> None:
    with Journal(folder, IDENTITY) as journal:
        assert [record["time_ns"] for record in journal.of_kind("sample")] == [1, 2]
        assert journal.resumed
        journal.append("failure", reason="späte\nZeile")
    assert reload(folder) == [
        {"kind": "sample", "time_ns": 1},
        {"kind": "sample", "time_ns": 2},
        {"kind": "failure", "reason": "späte\nZeile"},
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_a_file_cut_anywhere_reloads_to_whole_records(tmp_path_factory: pytest.TempPathFactory, at: int) -> None:
    """A kill may cut the last line at any byte; what is before it stays, and the next append is whole."""
    folder = tmp_path_factory.mktemp("cut")
    with Journal(folder, IDENTITY) as journal:
        for number in range(3):
            journal.append("sample", number=number)
    text = (folder / NAME).read_bytes()
    kept = text[: at % (len(text) + 1)]
    (folder / NAME).write_bytes(kept)
    whole = max(0, kept.count(b"\n") - 1)
    with Journal(folder, IDENTITY) as journal:
        assert [record["number"] for record in journal.of_kind("sample")] == list(range(whole))
        journal.append("sample", number=9)
    assert [record["number"] for record in reload(folder)] == [*range(whole), 9]


@pytest.mark.parametrize("line", ['{"kind": "sam', "", "[1]", '"kind"', '{"time_ns": 3}', "\x00\x00", "\udcff"])
def test_a_damaged_line_in_the_middle_is_named(folder: Path, line: str) -> None:
    lines = (folder / NAME).read_text().splitlines()
    lines.insert(2, line)
    text = ("\n".join(lines) + "\n").encode(errors="surrogateescape")
    (folder / NAME).write_bytes(text)
    with pytest.raises(RunDirError, match=r"line 3 is damaged"):
        Journal(folder, IDENTITY)
    assert (folder / NAME).read_bytes() == text


@pytest.mark.parametrize(
    "text",
    ['{"kind": "sample"}\n', '{"kind": "header", "schema": "overlap.journal/0"}\n', "hello\n", "hello", '{"kind": "h0'],
)
def test_foreign_files_are_refused_and_left_as_they_are(tmp_path: Path, text: str) -> None:
    """Also one without any newline, which looks like a line that was cut off."""
    (tmp_path / NAME).write_text(text)
    with pytest.raises(RunDirError, match=r"not a journal|damaged"):
        Journal(tmp_path, IDENTITY)
    assert (tmp_path / NAME).read_text() == text


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ({**IDENTITY, "workload": {"query": 32}}, "workload"),
        ({**IDENTITY, "space": {"chunks": (1, 2, 4)}}, "space"),
        ({"space": IDENTITY["space"]}, "workload"),
        ({**IDENTITY, "device": "fake"}, "device"),
    ],
)
def test_another_identity_is_refused_by_name(folder: Path, identity: dict[str, Any], name: str) -> None:
    with pytest.raises(RunDirError, match=f"another {name}"):
        Journal(folder, identity)
    assert len(reload(folder)) == 2


def test_what_differs_is_said_and_another_directory_offered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key by key, with the value that was recorded and the value of now; the offer is a folder that nobody uses."""
    monkeypatch.chdir(folder.parent)
    (folder.parent / "run-2").mkdir()
    identity = {"workload": {"query": 32}, "space": {"chunks": (1, 2), "lag": [0]}, "version": "2"}
    with pytest.raises(RunDirError) as caught:
        Journal(folder, identity)
    assert caught.value.message == (
        f"{folder} holds a sweep with another space, version, workload: "
        "space.lag nothing → [0]; version nothing → 2; workload.query 16 → 32"
    )
    assert caught.value.hint == "run with hydra.run.dir=run-3, or with what it was started with"
    assert not (folder.parent / "run-3").exists()
    with Journal(folder.parent / "run-3", identity):
        pass


def test_a_job_of_a_multirun_is_offered_another_multirun(tmp_path: Path) -> None:
    """Its own folder is named by content, so only the folder above can be chosen."""
    (tmp_path / "multirun").mkdir()
    (tmp_path / "multirun" / "multirun.yaml").write_text("")
    with Journal(tmp_path / "multirun" / "x-1", IDENTITY):
        pass
    with pytest.raises(RunDirError, match=r"run with hydra\.sweep\.dir=\S+/multirun-2, or"):
        Journal(tmp_path / "multirun" / "x-1", {})


def test_one_process_at_a_time(folder: Path) -> None:
    """The lock is given up with the journal, also by one that refused to open."""
    with Journal(folder, IDENTITY):
        for _ in range(2):
            with pytest.raises(RunDirError, match="another sweep is running"):
                Journal(folder, IDENTITY)
    with pytest.raises(RunDirError, match="another space"):
        Journal(folder, {})
    assert len(reload(folder)) == 2


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / NAME).mkdir(parents=True)
    for place in ("file", "file/below", "taken"):
        with pytest.raises(RunDirError, match="cannot write to"):
            Journal(tmp_path / place, IDENTITY)


def test_file_systems_without_locks_are_not_mistaken_for_another_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(RunDirError, match="cannot lock"):
        Journal(tmp_path, IDENTITY)


@pytest.mark.parametrize("room", [0, 1, 20])
def test_a_full_disk_leaves_whole_records(folder: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """The part of a line that still fitted is taken back, so that the same process may go on when there is room."""
    left = room
    write = os.write

    def full(file: int, line: bytes) -> int:
        nonlocal left
        fits = line[:left]
        left -= len(fits)
        if not fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, fits)

    with Journal(folder, IDENTITY) as journal:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(RunDirError, match="No space left"):
            journal.append("sample", time_ns=3)
        monkeypatch.undo()
        assert len(journal.records) == 3
        journal.append("sample", time_ns=4)
    assert [record["time_ns"] for record in reload(folder)] == [1, 2, 4]


def test_short_writes_are_completed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:5]))
    with Journal(folder, IDENTITY) as journal:
        journal.append("sample", time_ns=3)
    assert [record["time_ns"] for record in reload(folder)] == [1, 2, 3]


def test_nan_is_never_written(folder: Path) -> None:
    """JSON has none, and other readers would choke on it."""
    before = (folder / NAME).read_bytes()
    with Journal(folder, IDENTITY) as journal:
        for value in (float("nan"), float("inf"), [float("nan")]):
            with pytest.raises(ValueError, match="not JSON compliant"):
                journal.append("sample", time_ns=value)
        assert len(journal.records) == 3
    assert (folder / NAME).read_bytes() == before
    assert all(json.loads(line) for line in before.splitlines())

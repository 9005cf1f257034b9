"""Records of many workers and their merging: nothing is lost, nothing is mixed, and what is damaged is named."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from overlap.commands.share import share
from overlap.commands.sweep_files import build_tuned
from overlap.errors import RunDirError
from overlap.search import records as records_module
from overlap.search.records import append_record, read_records
from overlap.search.sweep import SweepResult, run_sweep
from overlap.serve.tuned_file import load, save
from tests.fakes import FakeDevice, small_workload
from tests.sweeps import SEARCH, SPACE, Silent

Cli = Any
QUERIES = (16, 32)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[SweepResult, Path]]:
    """Finished sweeps of two buckets with their folders, by query length."""
    found = {}
    for query in QUERIES:
        folder = tmp_path_factory.mktemp("runs") / f"query{query}"
        result = run_sweep(small_workload(query=query), FakeDevice(), SPACE, SEARCH, folder, Silent())
        save(build_tuned(result), folder / "tuned.yaml")
        found[query] = (result, folder)
    return found


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line per row of a table."""
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def record(results: dict[int, tuple[SweepResult, Path]]) -> Any:
    """Append a record as some worker would: `record(folder, query, worker, when, **changed device or identity)`."""

    def append(folder: Path, query: int = 16, worker: str = "a-1", when: float = 1.0, **changes: Any) -> Path:
        result, run_dir = results[query]
        tuned = msgspec.to_builtins(build_tuned(result))
        tuned["device"] |= changes.get("device", {})
        tuned["entries"][0] |= changes.get("entry", {})
        tuned["model"] |= changes.get("model", {})
        line = {
            "schema": "overlap.record/1",
            "identity": {"version": "1", "code": "c"} | changes.get("identity", {}),
            "tuned": tuned,
            "run_dir": str(run_dir),
            "host": "a",
            "finished_unix_s": when,
        }
        folder.mkdir(exist_ok=True)
        path = folder / f"{worker}.jsonl"
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return path

    return append


def test_shared_sweeps_come_back_as_one_table(
    cli: Cli, results: dict[int, tuple[SweepResult, Path]], tmp_path: Path
) -> None:
    """Buckets are sorted whatever order they came in; traces are found from where the table is."""
    for query in reversed(QUERIES):
        result, run_dir = results[query]
        share(result, str(tmp_path / "shared" / "records"), run_dir)
    assert len(list((tmp_path / "shared" / "records").iterdir())) == 1, "one process, one file"
    answer = cli("collect", "records=shared/records", "into=out/table.yaml")
    assert (answer.code, answer.err) == (0, "")
    tuned = load(tmp_path / "out" / "table.yaml")
    assert [entry.bucket.query for entry in tuned.entries] == list(QUERIES)
    for entry in tuned.entries:
        result, run_dir = results[entry.bucket.query]
        alone = build_tuned(result)
        assert (tmp_path / "out" / entry.trace).resolve() == (run_dir / alone.entries[0].trace).resolve()
        assert replace_trace(entry) == replace_trace(alone.entries[0])
    assert (tuned.model, tuned.device) == (alone.model, alone.device)
    words = answer.out.split()
    assert words[words.index("small,") :][:4] == ["small,", "tp", "1,", "2"]
    assert answer.out.splitlines()[1].split()[-3:] == ["2", "2", "0"]


def replace_trace(entry: Any) -> Any:
    return msgspec.structs.replace(entry, trace="")


def test_nothing_is_shared_without_a_folder(
    results: dict[int, tuple[SweepResult, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    share(*results[16][:1], "", results[16][1])
    assert list(tmp_path.iterdir()) == []


def test_the_identity_of_a_record_is_that_of_the_sweep(
    results: dict[int, tuple[SweepResult, Path]], tmp_path: Path
) -> None:
    result, run_dir = results[16]
    share(result, str(tmp_path), run_dir)
    found = read_records(tmp_path).records[0]
    assert found["identity"]["workload"] == json.loads(json.dumps(asdict(result.workload)))
    assert found["identity"]["version"]
    assert found["identity"]["code"]


def test_the_newest_of_duplicates_wins_and_the_others_are_counted(cli: Cli, record: Any, tmp_path: Path) -> None:
    """By time and not by file name; a copy of the same result is no duplicate."""
    record(tmp_path / "r", worker="b", when=3.0, entry={"samples": 3})
    record(tmp_path / "r", worker="a", when=2.0, entry={"samples": 2})
    record(tmp_path / "r", worker="c", when=1.0, entry={"samples": 1})
    record(tmp_path / "r", worker="d", when=4.0, entry={"samples": 3})
    answer = cli("collect", "records=r")
    assert [entry.samples for entry in load(tmp_path / "tuned.yaml").entries] == [3]
    assert answer.out.splitlines()[1].split()[-1] == "2"


@pytest.mark.parametrize(
    "other",
    [
        {"identity": {"version": "2"}},
        {"identity": {"code": "d"}},
        {"device": {"name": "another"}},
        {"device": {"software": {"fake": "2"}}},
        {"model": {"layers": 5}},
    ],
)
def test_what_differs_is_never_mixed(cli: Cli, record: Any, tmp_path: Path, other: dict[str, Any]) -> None:
    record(tmp_path / "r", 16)
    record(tmp_path / "r", 32, when=2.0, **other)
    answer = cli("collect", "records=r", "into=table.yaml")
    assert answer.code == 0
    files = sorted(tmp_path.glob("table*.yaml"))
    assert len(files) == 2
    assert not (tmp_path / "table.yaml").exists()
    assert all(file.name.startswith("table.small-tp1-fake-") for file in files)
    assert sorted(load(file).entries[0].bucket.query for file in files) == [16, 32]
    assert all(len(load(file).entries) == 1 for file in files)
    assert cli("collect", "records=r", "into=table.yaml").code == 0
    assert sorted(tmp_path.glob("table*.yaml")) == files, "names hang on content"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("\x00\x00", "not JSON"),
        ("[1]", "not a record"),
        ("{}", "its schema is missing"),
        ('{"schema": 1}', "its schema is of another type"),
    ],
)
def test_damaged_lines_are_named_and_left_out(cli: Cli, record: Any, tmp_path: Path, line: str, says: str) -> None:
    path = record(tmp_path / "r", 16)
    with path.open("a") as file:
        file.write(line + "\n")
    record(tmp_path / "r", 32)
    answer = cli("collect", "records=r")
    assert answer.code == 0
    assert [entry.bucket.query for entry in load(tmp_path / "tuned.yaml").entries] == [16, 32]
    assert answer.lines == [f"left out {Path('r', 'a-1.jsonl')}:2: {answer.lines[0].split(': ', 1)[1]}"]
    assert says in answer.lines[0]


def test_a_line_that_was_cut_off_is_named(cli: Cli, record: Any, tmp_path: Path) -> None:
    path = record(tmp_path / "r", 16)
    record(tmp_path / "r", 32)
    path.write_bytes(path.read_bytes()[:-1])
    answer = cli("collect", "records=r")
    assert "a-1.jsonl:2: the line has no end" in answer.err
    assert len(load(tmp_path / "tuned.yaml").entries) == 1


def test_records_of_another_schema_are_named(cli: Cli, record: Any, tmp_path: Path) -> None:
    path = record(tmp_path / "r", 16)
    path.write_text(path.read_text() + path.read_text().replace("overlap.record/1", "overlap.record/9"))
    assert "schema 'overlap.record/9'" in cli("collect", "records=r").err
    path.write_text(path.read_text().replace("overlap.tuned/1", "overlap.tuned/9"))
    answer = cli("collect", "records=r")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "nothing but damaged records" in answer.err


def test_finished_runs_are_taken_from_their_folders(
    cli: Cli, results: dict[int, tuple[SweepResult, Path]], tmp_path: Path
) -> None:
    """Also beside their own records, without being counted twice; a collection in the same folder is no run."""
    for query, (result, run_dir) in results.items():
        shutil.copytree(run_dir, tmp_path / "runs" / f"q{query}")
        share(result, str(tmp_path / "runs"), tmp_path / "runs" / f"q{query}")
    for _ in range(2):
        answer = cli("collect", "records=runs", "into=runs/tuned.yaml")
        assert (answer.code, answer.err) == (0, "")
        assert answer.out.splitlines()[1].split()[-3:] == ["2", "2", "0"]
    assert [e.bucket.query for e in load(tmp_path / "runs" / "tuned.yaml").entries] == [16, 32]
    assert (tmp_path / "runs" / load(tmp_path / "runs" / "tuned.yaml").entries[0].trace).parent.is_dir()


def test_one_run_is_a_collection_too(cli: Cli, results: dict[int, tuple[SweepResult, Path]], tmp_path: Path) -> None:
    """Its journal is no file of records, though it ends alike."""
    answer = cli("collect", f"records={results[16][1]}")
    assert (answer.code, answer.err) == (0, "")
    assert len(load(tmp_path / "tuned.yaml").entries) == 1


@pytest.mark.parametrize("damage", ["tuned.yaml", "journal.jsonl"])
def test_a_damaged_run_is_named(
    cli: Cli, results: dict[int, tuple[SweepResult, Path]], tmp_path: Path, damage: str
) -> None:
    for query, (_, run_dir) in results.items():
        shutil.copytree(run_dir, tmp_path / "runs" / f"q{query}")
    (tmp_path / "runs" / "q16" / damage).write_text("[")
    answer = cli("collect", "records=runs")
    assert answer.code == 0
    assert [entry.bucket.query for entry in load(tmp_path / "tuned.yaml").entries] == [32]
    assert len(answer.lines) == 1
    assert damage in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "records is missing"),
        (("records=nowhere",), "nowhere is no folder"),
        (("records=empty",), "no records and no runs"),
        (("records=empty", "into=x.json"), "no YAML file"),
        (("records=empty", "from=x"), "does not take"),
    ],
)
def test_mistakes_get_one_line(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "empty").mkdir()
    answer = cli("collect", *arguments)
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert words in answer.err
    assert not list(tmp_path.glob("*.yaml"))


def test_a_place_that_cannot_be_written_is_one_error(cli: Cli, record: Any, tmp_path: Path) -> None:
    record(tmp_path / "r")
    (tmp_path / "file").write_text("")
    answer = cli("collect", "records=r", "into=file/tuned.yaml")
    assert (answer.code, len(answer.lines)) == (2, 1)
    with pytest.raises(RunDirError, match="records=<dir>"):
        append_record(tmp_path / "file", {}, {}, tmp_path)


@pytest.mark.parametrize("room", [0, 1, 40])
def test_a_full_disk_takes_back_half_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    write, left = os.write, room

    def full(file: int, line: bytes) -> int:
        nonlocal left
        fits = line[:left]
        left -= len(fits)
        if not fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, fits)

    path = append_record(tmp_path, {"n": 1}, {}, tmp_path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RunDirError, match="No space left"):
            append_record(tmp_path, {"n": 2}, {}, tmp_path)
    assert path.read_bytes() == before
    append_record(tmp_path, {"n": 3}, {}, tmp_path)
    assert [one["identity"]["n"] for one in read_records(tmp_path).records] == [1, 3]


def test_workers_write_files_of_their_own(tmp_path: Path) -> None:
    """Four processes at once, many lines each: none is lost, torn or in another's file."""
    code = (
        "import sys; from pathlib import Path; from overlap.search.records import append_record\n"
        "for n in range(25): append_record(Path(sys.argv[1]), {'worker': sys.argv[2], 'n': n}, {'x': 'y' * 9999},"
        " Path('.'))"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    found = read_records(tmp_path)
    assert found.damaged == ()
    assert len(list(tmp_path.iterdir())) == 4
    numbers = sorted((one["identity"]["worker"], one["identity"]["n"]) for one in found.records)
    assert numbers == sorted((str(worker), n) for worker in range(4) for n in range(25))


def test_a_process_number_that_is_used_again_gets_another_file() -> None:
    names = set()
    for _ in range(3):
        records_module._own_name.cache_clear()
        names.add(records_module._own_name(1))
    assert len(names) == 3


def test_a_sweep_on_the_command_line_leaves_its_record(cli: Cli, tmp_path: Path) -> None:
    arguments = (
        "sweep",
        "device=gaudi2",
        "workload.bucket.query=128",
        "workload.window_layers=1",
        "space.chunks=[1]",
        "space.query_tile=[0]",
        "search=quick",
    )
    for _ in range(2):
        # A finished sweep that is asked for again measures nothing, and its record is a copy.
        assert cli(*arguments, "records=shared dir", "hydra.run.dir=run").code == 0
    assert len(read_records(tmp_path / "shared dir").records) == 2
    answer = cli("collect", "records=shared dir")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[-1].split()[-1] == "0"
    alone, collected = load(tmp_path / "run" / "tuned.yaml"), load(tmp_path / "tuned.yaml")
    assert (collected.device, collected.model) == (alone.device, alone.model)
    assert collected.entries[0].trace == f"run/{alone.entries[0].trace}"


def test_software_that_changed_is_told_apart(record: Any, tmp_path: Path) -> None:
    from overlap.commands.collect_files import find_all, merge

    record(tmp_path / "r", 16)
    record(tmp_path / "r", 16, when=2.0, device={"software": {"fake": "2"}})
    finds, damaged = find_all(tmp_path / "r")
    assert damaged == []
    groups = merge(finds, tmp_path)
    assert len({group.words() for group in groups}) == 2
    assert merge([replace(finds[0], version="")], tmp_path)[0].words() != groups[0].words()

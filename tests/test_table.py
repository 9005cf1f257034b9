"""Tables: their files, what is left of one that was cut off, and one that is swept side by side."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from overlap.buckets import LIGHT, bucket_order
from overlap.commands import table_job
from overlap.commands.collect_files import find_all, merge
from overlap.commands.table_files import bucket_frame, tuned_of, write_table
from overlap.commands.table_job import Shared
from overlap.commands.table_print import summary, table_tables, times
from overlap.commands.table_run import Table, run_table
from overlap.devices.config import DeviceConfig
from overlap.errors import MemoryLimitError, RunDirError, TunedError
from overlap.search.config import SpaceConfig
from overlap.serve.tuned import Entry
from overlap.serve.tuned_file import load, save
from overlap.split import Split
from overlap.workload import Bucket, Workload
from tests.fakes import FakeDevice, small_workload
from tests.sweeps import SEARCH, Silent, Untouchable

# Cuts of a decode step are those of its batch.
SPACE = SpaceConfig(chunks=[1, 2, 4], chunk_axis=["query", "batch"])
ROOT = Path(__file__).resolve().parent.parent
# Three strips: two of prefills, one of decodes.
SIX = [*(Bucket("prefill", 1, query, 0) for query in (8, 16, 24, 32, 48)), Bucket("decode", 2, 1, 16)]


class Narrow(FakeDevice):
    """Too small for the buckets it is told."""

    def __init__(self, *, too_large: Sequence[int] = ()) -> None:
        super().__init__()
        self.too_large = too_large

    def require(self, workload: Workload) -> None:
        """Refuse a query."""
        if workload.bucket.query in self.too_large:
            raise MemoryLimitError(f"{workload.bucket} needs more", "a smaller one")


def shared_of(folder: Path, **changes: Any) -> Shared:
    return replace(Shared(small_workload(), DeviceConfig(), SPACE, SEARCH, folder, LIGHT, "overlap sweep"), **changes)


def table_of(folder: Path, device: FakeDevice, buckets: Sequence[Bucket] = SIX, **changes: Any) -> Table:
    """A table on the fake device, which is timed and so gets one bucket at a time."""
    return run_table(shared_of(folder, **changes), buckets, 0, device, Silent())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """A finished table, with its files."""
    table = table_of(tmp_path_factory.mktemp("table"), FakeDevice())
    write_table(table)
    return table


def test_a_table_has_an_entry_for_every_bucket(done: Table) -> None:
    folder = done.shared.run_dir
    tuned = load(folder / "tuned.yaml")
    assert [entry.bucket for entry in tuned.entries] == sorted(SIX, key=bucket_order)
    assert all((folder / entry.trace).is_file() for entry in tuned.entries)
    assert sorted(path.name for path in (folder / "buckets").iterdir()) == sorted(
        str(one).replace(" ", "_") for one in SIX
    )
    frame = pl.read_parquet(folder / "trials.parquet")
    assert frame.columns[0] == "bucket"
    assert set(frame["bucket"]) == {str(one) for one in SIX}
    assert frame.height == sum(pl.read_parquet(path).height for path in folder.glob("buckets/*/trials.parquet"))


def test_an_entry_is_that_of_its_own_sweep(done: Table) -> None:
    for row in done.rows:
        (own,) = load(done.shared.folder(row.bucket) / "tuned.yaml").entries
        assert row.entry == own.under(f"buckets/{str(row.bucket).replace(' ', '_')}")


def test_light_details_leave_out_pages_and_tensorboard(done: Table) -> None:
    folder = done.shared.folder(SIX[0])
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["journal.jsonl", "profile.json", "traces", "trials.parquet", "tuned.yaml"]


def test_full_details_are_the_files_of_a_sweep_and_are_linked(tmp_path: Path) -> None:
    table = table_of(tmp_path, FakeDevice(), SIX[:2], details="full")
    write_table(table)
    page = (tmp_path / "report.html").read_text()
    for bucket in SIX[:2]:
        link = f"buckets/{str(bucket).replace(' ', '_')}/report.html"
        assert (tmp_path / link).is_file()
        assert f'href="{link}"' in page
    assert (table.shared.folder(SIX[0]) / "tb").is_dir()


def test_a_finished_table_measures_nothing(done: Table) -> None:
    again = table_of(done.shared.run_dir, Untouchable())
    assert again.rows == done.rows


def test_pages_can_be_asked_for_later(tmp_path: Path) -> None:
    light = table_of(tmp_path, FakeDevice(), SIX[:2])
    # Nothing is timed anew; only the profiles that a page draws would be, and those are files.
    full = table_of(tmp_path, Untouchable(), SIX[:2], details="full")
    assert full.rows == light.rows
    assert all((full.shared.folder(bucket) / "report.html").is_file() for bucket in SIX[:2])


def test_what_is_printed_and_drawn(done: Table) -> None:
    frame = bucket_frame(done)
    assert frame.height == len(SIX)
    assert set(frame.filter(kept="baseline")["speedup"].to_list()) <= {1.0}
    assert summary(done).startswith("6 buckets: ")
    (table,) = table_tables(done)
    assert table.row_count == len(SIX)


@pytest.mark.parametrize("width", [80, 200])
def test_a_bucket_is_one_line_and_only_what_is_kept_is_cut_off(done: Table, width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    (table,) = table_tables(done)
    console.print(table)
    lines = console.export_text().splitlines()
    for row in done.rows:
        assert row.entry is not None
        (line,) = [one for one in lines if one.split()[:2] == str(row.bucket).split()]
        assert times(row.entry.speedup) in line
        kept = "the baseline stays" if row.entry.pass_through else f"{row.entry.split} | {row.entry.order}"
        assert kept[:8] in line
        assert (kept in line) or (width == 80 and "…" in line)


def test_another_list_of_buckets_is_another_table(done: Table) -> None:
    with pytest.raises(RunDirError, match=r"another buckets.*prefill 1x8\+0"):
        table_of(done.shared.run_dir, Untouchable(), SIX[1:])
    with pytest.raises(RunDirError, match=r"another .*search"):
        table_of(done.shared.run_dir, Untouchable(), search=replace(SEARCH, seed=7))


class Stopped(Exception):
    """The machine went down."""


def test_a_table_that_was_cut_off_goes_on_with_the_same_seeds(
    done: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: dict[Bucket, list[list[Split]]] = {}
    real = table_job.run_sweep

    def watched(workload: Workload, *rest: Any) -> Any:
        seeds.setdefault(workload.bucket, []).append(list(rest[-1]))
        return real(workload, *rest)

    monkeypatch.setattr(table_job, "run_sweep", watched)
    left = 80

    def clock(runnable: Any) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return int(runnable.makespan_ns)

    sessions = 0
    while True:
        sessions, left = sessions + 1, 80
        try:
            table = table_of(tmp_path, FakeDevice(clock))
            break
        except KeyboardInterrupt:
            assert not (tmp_path / "tuned.yaml").exists()
    assert sessions > 2, "it was cut off"
    assert [(row.bucket, row.entry and row.entry.split) for row in table.rows] == [
        (row.bucket, row.entry and row.entry.split) for row in done.rows
    ]
    assert any(given[0] for given in seeds.values()), "somebody is seeded"
    assert all(one == given[0] for given in seeds.values() for one in given)


def test_a_bucket_whose_files_are_gone_is_swept_again(tmp_path: Path) -> None:
    table = table_of(tmp_path, FakeDevice(), SIX[:2])
    (table.shared.folder(SIX[0]) / "tuned.yaml").unlink()
    # Its journal is still there, so nothing has to be measured.
    assert table_of(tmp_path, Untouchable(), SIX[:2]).rows == table.rows


def test_a_bucket_that_cannot_run_is_named_and_costs_only_itself(tmp_path: Path) -> None:
    table = table_of(tmp_path, Narrow(too_large=[16, 48]))
    write_table(table)
    assert [row.bucket.query for row in table.failed] == [16, 48]
    assert len(load(tmp_path / "tuned.yaml").entries) == 4
    page = (tmp_path / "report.html").read_text()
    assert "prefill 1x16+0 needs more" in page
    _, left_out = table_tables(table)
    assert left_out.row_count == 2
    assert "2 could not be swept" in summary(table)
    # Tried again, where more fits by now.
    assert not table_of(tmp_path, FakeDevice()).failed


def test_where_no_bucket_can_run_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MemoryLimitError, match="none of the 2 buckets") as caught:
        table_of(tmp_path, Narrow(too_large=[8, 16]), SIX[:2])
    assert caught.value.hint == "a smaller one"


def test_a_folder_that_cannot_be_used_ends_the_table(tmp_path: Path) -> None:
    table = table_of(tmp_path, Narrow(too_large=[16]), SIX[:2])
    theirs = table.shared.folder(SIX[1])
    theirs.mkdir()
    (theirs / "letter.txt").write_text("not a sweep")
    with pytest.raises(RunDirError, match=r"letter.txt but no journal"):
        table_of(tmp_path, FakeDevice(), SIX[:2])


def test_records_and_folders_of_a_table_are_collected_once(tmp_path: Path) -> None:
    table = table_of(tmp_path / "run", FakeDevice(), SIX[:2], records=str(tmp_path / "shared"))
    write_table(table)
    finds, damaged = find_all(tmp_path)
    (group,) = merge(finds, tmp_path)
    assert damaged == []
    assert len(group.tuned.entries) == 2
    assert group.duplicates == 0
    assert len(list((tmp_path / "shared").glob("*.jsonl"))) == 1


def test_a_tuned_file_with_two_entries_for_a_bucket_is_refused(done: Table, tmp_path: Path) -> None:
    tuned = tuned_of(done)
    save(tuned.with_entries([*tuned.entries, tuned.entries[0]]), tmp_path / "tuned.yaml")
    with pytest.raises(TunedError, match=r"line \d+, entries\[1\]\.bucket: prefill 1x8\+0 is there twice"):
        load(tmp_path / "tuned.yaml")


def test_entries_are_sorted(done: Table) -> None:
    tuned = tuned_of(done)
    assert tuned.with_entries(reversed(tuned.entries)) == tuned
    phases = [entry.bucket.phase for entry in tuned.entries]
    assert phases == ["prefill"] * 5 + ["decode"]


# Six small buckets on the model, in two strips, and a search that is over soon.
COMMAND = (
    *(sys.executable, "-m", "overlap", "sweep", "device=gaudi2", "search=quick", "workload=qwen2_5_0_5b_prefill"),
    *("workload.window_layers=1", "space.chunks=[1,2]", "space.chunk_axis=[query]", "space.query_tile=[0]"),
    *("search.orders=[program,list]", "buckets.details=light"),
)
GRID = (
    *("buckets=linear", "buckets.prefill.query={min: 128, step: 128, max: 768}"),
    "buckets.prefill.context={min: 0, step: 128, max: 0}",
)


def children_of(pid: int) -> set[int]:
    """Processes that `pid` has started, and theirs."""
    found = set()
    for task in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = task.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            child = int(task.parent.name)
            found |= {child} | children_of(child)
    return found


def started(folder: Path, jobs: int, *buckets: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    command = [*COMMAND, *(buckets or GRID), f"buckets.jobs={jobs}", f"hydra.run.dir={folder / 'run'}"]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait_for(what: Any) -> None:
    """Until `what()` is true; five minutes mean that it never will."""
    for _ in range(6000):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to that")


def entries(folder: Path) -> list[Entry]:
    """All that a table says of its buckets."""
    return load(folder / "run" / "tuned.yaml").entries


@pytest.mark.slow
def test_side_by_side_is_the_same_as_one_by_one_however_it_is_ended(tmp_path: Path) -> None:
    alone, ended = tmp_path / "alone", tmp_path / "ended"
    out, _ = (one := started(alone, 1)).communicate(timeout=300)
    assert one.returncode == 0, out
    for sign, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = started(ended, 2)
        journals = ended / "run" / "buckets"
        before = {path: path.stat().st_size for path in journals.glob("*/journal.jsonl")}
        wait_for(lambda: any(path.stat().st_size > before.get(path, 0) for path in journals.glob("*/journal.jsonl")))  # noqa: B023
        children = children_of(process.pid)
        assert children
        process.send_signal(sign)
        out, _ = process.communicate(timeout=300)
        assert process.returncode == code, out
        assert "Traceback" not in out
        wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))  # noqa: B023
    out, _ = (process := started(ended, 2)).communicate(timeout=300)
    assert process.returncode == 0, out
    assert "6 buckets" in out
    assert entries(ended) == entries(alone)


@pytest.mark.slow
def test_a_failure_comes_back_from_another_process(tmp_path: Path) -> None:
    # Two phases are two strips; the KV cache of the last bucket takes 800 GB.
    (tmp_path / "list.txt").write_text("(1, 128, 0)\n(1, 1, 16)\n(4096, 1, 524288)\n")
    options = ("buckets=file", f"buckets.file={tmp_path / 'list.txt'}")
    out, _ = (process := started(tmp_path, 2, *options)).communicate(timeout=300)
    assert process.returncode == 0, out
    assert "decode 4096x1+16384: not swept: " in out
    assert "workload.tensor_parallel" in out or "a smaller batch" in out
    assert [entry.bucket.phase for entry in entries(tmp_path)] == ["prefill", "decode"]

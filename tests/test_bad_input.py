"""Files that are no sound trace: one clear line or a counted warning, never a traceback or a silent zero.

All content is SYNTHETIC.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from overlap.errors import TraceError
from overlap.traces.read import read_trace
from overlap.traces.readers.table import read_text_csv
from overlap.traces.readers.times import micros_to_ns
from overlap.traces.trace import Tally
from tests.conftest import Answer
from tests.fuzz import hw_csv
from tests.kineto_files import ADD, GEMM, cuda_rows, document, host, kernel, saved

Cli = Callable[..., Answer]
WHOLE = json.dumps(document([kernel(GEMM, 0, 10), kernel(ADD, 5, 10)]))


def test_a_pipe_is_refused_and_not_waited_for(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    for trace in ("x.json", "/dev/null"):
        answer = cli("analyze", f"trace={trace}")
        assert answer.code == 2
        assert "not a regular file" in answer.err
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "x.json")
    assert "there is no trace in folder" in cli("analyze", "trace=folder").err


@pytest.mark.parametrize("size", [9, 40])
def test_gzip_that_ends_before_its_first_row_is_called_cut(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.json.gz"
    path.write_bytes(gzip.compress(json.dumps(document(cuda_rows())).encode())[:size])
    with pytest.raises(TraceError, match="the gzip data ends too early"):
        read_trace(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"traceEvents": [', "the list of rows is not closed"),
        (json.dumps(document([host("aten::mm", "cpu_op", 1, 5)]))[:-60], "the list of rows is not closed"),
        ('{"traceEvents":' + "[" * 100_000, "bytes of a torn row"),
        (json.dumps(document([kernel(GEMM, 10, -5)])), "1 x device row of negative or unknown duration"),
        (json.dumps(document([kernel(GEMM, 1e18, 5)])), "1 x device row without a possible time"),
    ],
)
def test_no_device_rows_says_what_is_missing_from_the_file(cli: Cli, tmp_path: Path, content: str, why: str) -> None:
    saved(tmp_path / "x.json", content)
    answer = cli("analyze", "trace=x.json")
    assert answer.code == 2
    assert answer.err.startswith("overlap: no device rows")
    assert len(answer.err.splitlines()) == 1
    assert why in answer.err
    assert "ProfilerActivity" not in answer.err


@pytest.mark.parametrize("length", [-1e30, -1e300, 1e300])
def test_durations_beyond_int64_are_dropped_and_counted(tmp_path: Path, length: float) -> None:
    rows = [kernel(GEMM, 20, 5), kernel(ADD, 30, length)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace = read_trace(saved(tmp_path / "x.json", document(rows)))
    assert trace.events.height == 1
    assert sum(trace.about.dropped.values()) == 1


@pytest.mark.parametrize("text", ["1e999999999", "-1e999999", "1e-999999999", "9" * 10_000])
def test_numbers_that_decimals_cannot_hold_are_no_times(text: str) -> None:
    assert micros_to_ns(text) in (None, 0)
    read_trace_csv = read_text_csv(f"a,b\n{text},1\n".encode(), "x.csv", Tally())
    assert read_trace_csv.height == 1


def test_a_time_that_overflows_in_a_csv_is_no_time(tmp_path: Path) -> None:
    damaged = hw_csv().replace("554804520.123456", "1e999999", 1)
    trace = read_trace(saved(tmp_path / "x.csv", damaged))
    assert trace.about.dropped["row without a time or an engine"] == 1


def test_rows_of_a_second_list_are_counted(tmp_path: Path) -> None:
    one, other = (json.dumps(kernel(name, 0, 3)) for name in (GEMM, ADD))
    trace = read_trace(saved(tmp_path / "x.json", f'{{"traceEvents":[{one}],"traceEvents":[{other}, {other}]}}'))
    assert trace.events.height == 1
    assert trace.about.dropped == {"row of a second list of rows": 2}


def test_stray_quotes_in_a_csv_print_nothing_and_lose_no_row(tmp_path: Path) -> None:
    rows = "".join(f"n{i},{i},x\n" for i in range(300))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for stray in ('a"b', '"ab'):
            damaged = rows.replace("n30", stray, 1)
            assert read_text_csv(f"name,time,rest\n{damaged}".encode(), "x.csv", Tally()).height == 300


def test_line_ends_inside_quotes_are_counted() -> None:
    tally = Tally()
    table = read_text_csv(b'name,time\n"a,\nb",1\nc,2\n', "x.csv", tally)
    assert table.rows() == [("a,\nb", "1"), ("c", "2")]
    assert tally.warnings == ["1 line ends are inside quotes: rows are hidden there if one of those is stray"]


def test_a_csv_of_blank_lines_does_not_fill_the_memory() -> None:
    head = ",".join(f"column{i}" for i in range(100)).encode()
    with pytest.raises(TraceError, match="most of them without cells"):
        read_text_csv(head + b"\n" * 1_000_000, "x.csv", Tally())


def test_what_the_reader_says_is_printed_once(cli: Cli, tmp_path: Path) -> None:
    saved(tmp_path / "x.json", WHOLE[: WHOLE.rindex("}]") + 1])
    answer = cli("analyze", "trace=x.json", "hydra.run.dir=out")
    assert answer.code == 0
    assert answer.out.count("the list of rows is not closed") == 1
    assert (tmp_path / "out" / "report.html").read_text().count("the list of rows is not closed") == 1


def test_tables_fit_eighty_columns(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "ranks").mkdir()
    rows = [kernel(GEMM * 3, 0, 10), kernel(ADD, 5, 10, stream=9)]
    for rank in range(3):
        saved(tmp_path / "ranks" / f"rank{rank}.json", document(rows))
    saved(tmp_path / "before.json", document(rows[:1]))
    answer = cli("analyze", "trace=ranks", "diff=before.json")
    assert answer.code == 0
    assert "1 more device in the report" in answer.out
    lines = answer.out.splitlines()
    (head,) = {line for line in lines if "launches" in line}
    assert head.split() == ["engine", "launches", "time", "exposed"]
    assert any("NVIDIA H100" in line and "all devices" in line for line in lines)
    assert [line.count("%") for line in lines if line.startswith("idle")] == [3, 2]
    assert all(len(line) <= 80 for line in lines if "µs" in line)


def test_a_reader_that_leaves_early_is_no_failure(tmp_path: Path) -> None:
    saved(tmp_path / "x.json", WHOLE)
    command = [sys.executable, "-m", "overlap", "analyze", "trace=x.json", "cache=false", "hydra.run.dir=out"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "out" / "report.html").exists()

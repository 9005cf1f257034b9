"""Which files of a folder are traces."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from overlap.errors import TraceError
from overlap.traces.find import rank_name, trace_files
from overlap.traces.schema import EVENTS
from tests.kineto_files import cuda_rows, document, saved


def test_a_file_is_itself(tmp_path: Path) -> None:
    path = saved(tmp_path / "anything", "x")
    assert trace_files(path) == [path]


def test_ranks_come_in_natural_order_and_other_files_are_left_alone(tmp_path: Path) -> None:
    text = json.dumps(document(cuda_rows()))
    for name in ("rank10.json", "rank9.json", ".hidden.json"):
        saved(tmp_path / name, text)
    saved(tmp_path / "rank2.pt.trace.json.gz", text)
    saved(tmp_path / "config.json", {"a": 1})
    saved(tmp_path / "broken.json", b"\x00\x01")
    saved(tmp_path / "empty.csv", b"")
    saved(tmp_path / "notes.txt", text)
    (tmp_path / "folder.json").mkdir()
    assert [path.name for path in trace_files(tmp_path)] == ["rank2.pt.trace.json.gz", "rank9.json", "rank10.json"]


def test_of_files_that_hold_the_same_the_raw_one_counts(tmp_path: Path) -> None:
    saved(tmp_path / "a_hw_prof_accel0_001.csv", "Name,Engine,Timestamp[usec]\n")
    saved(tmp_path / "a_hw_prof_accel0_001_analyzed_nodes.csv", "Unit,Node Name,Op Type\n")
    saved(tmp_path / "b_analyzed_nodes.csv", "Unit,Node Name,Op Type\n")
    saved(tmp_path / "c.pt.trace.json", json.dumps(document(cuda_rows())))
    pl.DataFrame(schema=EVENTS).write_parquet(tmp_path / "c.parquet")
    assert [path.name for path in trace_files(tmp_path)] == [
        "a_hw_prof_accel0_001.csv",
        "b_analyzed_nodes.csv",
        "c.pt.trace.json",
    ]


def test_a_run_keeps_its_traces_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    saved(tmp_path / "profile.json", {"a": 1})
    pl.DataFrame({"trial": [1]}).write_parquet(tmp_path / "trials.parquet")
    path = saved(tmp_path / "traces" / "kept.pt.trace.json.gz", gzip.compress(b"[]") and json.dumps(cuda_rows()))
    assert trace_files(tmp_path) == [path]


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_nothing_to_analyse_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(TraceError, match="there is no"):
        trace_files(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("a.b.pt.trace.json.gz", "a.b"),
        ("x_accel0_001.csv", "x_accel0_001"),
        ("a.hltv", "a"),
        (".json", ".json"),
        ("a", "a"),
    ],
)
def test_names_without_their_format(name: str, rank: str) -> None:
    assert rank_name(Path(name)) == rank

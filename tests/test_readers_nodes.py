"""Analysed nodes, CSV and JSON. Tables made here are SYNTHETIC; the sample is real (Gaudi3)."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.errors import TraceError
from overlap.traces.readers.nodes import NODES, read_nodes_csv, read_nodes_json
from overlap.traces.schema import EVENTS
from overlap.traces.trace import Tally, Trace
from tests.gaudi_samples import ANALYZED, sample

HEADER = "Unit,Unique node id,Node Name,Op Type,Start time of node,End time of node,Duration (us),Active (us)"


def read(data: bytes) -> tuple[Trace, Tally]:
    tally = Tally()
    reader = read_nodes_json if data[:1] in (b"{", b"[") else read_nodes_csv
    return reader(data, "x_analyzed_nodes.csv", tally), tally


def twin(*rows: Any) -> bytes:
    return json.dumps({"analyzer_metadata": list(rows)}).encode()


def test_the_real_sample_has_four_nodes() -> None:
    trace, tally = read(sample(ANALYZED))
    assert trace.nodes.schema == NODES
    assert trace.events.schema == EVENTS
    assert trace.nodes["active_ns"].to_list() == [18814, 1131, 1878, 713]
    assert trace.nodes["exposed_tpc_ns"].to_list() == [None, 1131, 1878, 713]
    assert trace.nodes["mme_compute_utilization_percent"].to_list() == [None] * 4
    assert trace.nodes["input_shapes"].to_list() == [None] * 4
    assert trace.events.select("engine", "lane", "start_ns", "end_ns").row(3) == (
        *("MME", "MME"),
        *(554804527286, 554804546100),
    )
    assert "active are 22,536 of 24,570 ns (91.7%)" in tally.warnings[0]


@pytest.mark.parametrize(
    "row",
    [
        {"op": "gemm", "duration (usec)": 2.5, "active (usec)": 1.25, "exposed tpc (usec)": 0.5, "mme util (%)": 61.5},
        {
            "Op Type": "gemm",
            "Duration (us)": "2.5",
            "Active (us)": 1.25,
            "Exposed tpc (us)": "0.500",
            "MME Util (%).": 61.5,
        },
    ],
)
def test_both_spellings_of_the_json_twin_are_one_table(row: dict[str, Any]) -> None:
    common = {"Node Name": "mm", "Unit": "MME", "MME Compute Utilization (%).": 80, "MME Expected Compute (usec)": 2}
    trace, tally = read(twin({**common, **row, "start time of node": 554804527.286, "input shapes": [[4, 8]]}))
    node = trace.nodes.row(0, named=True)
    expected = {
        "name": "mm",
        "op_type": "gemm",
        "start_ns": 554804527286,
        "duration_ns": 2500,
        "active_ns": 1250,
        "exposed_tpc_ns": 500,
        "mme_utilization_percent": 61.5,
        "mme_compute_utilization_percent": 80.0,
        "mme_expected_us": 2.0,
        "input_shapes": "[[4, 8]]",
        "output_shapes": None,
    }
    assert {key: node[key] for key in expected} == expected
    # No end in the file: start and duration tell it.
    assert trace.events.select("engine", "kind", "end_ns").rows() == [("MME", "gemm", 554804529786)]
    assert tally.dropped == {}


@pytest.mark.parametrize("missing", ["nan", "", "[]", "[Error]", "NaN", None])
def test_every_marker_of_a_missing_value_is_null(missing: str | None) -> None:
    cells = dict.fromkeys(("Input shapes", "MME Origin Node", "Active (us)", "Num activations", "Cost Model"), missing)
    nodes = read(twin({"Node Name": "n", "Unit": "TPC", **cells}))[0].nodes
    assert nodes.select("input_shapes", "mme_origin_node", "active_ns", "num_activations", "cost_model").row(0) == (
        (None,) * 5
    )


def test_columns_of_a_later_release_follow_as_text() -> None:
    nodes = read(b"Node Name,Unit,New Thing (us)\nn,TPC,4.5\n")[0].nodes
    assert nodes["newthingus"].to_list() == ["4.5"]
    assert list(nodes.columns)[: len(NODES)] == list(NODES)


def test_nodes_without_a_place_in_time_are_counted() -> None:
    rows = [
        "TPC,1,a,add,1.000,2.000,1.0,0.5",
        "TPC,2,b,add,9.000,2.000,1.0,0.5",
        "TPC,3,c,add,soon,2.000,nan,nan",
        "TPC",
    ]
    trace, tally = read("\n".join([HEADER, *rows, ""]).encode())
    assert trace.nodes["name"].to_list() == ["a", "b", "c"]
    assert trace.events["name"].to_list() == ["a"]
    assert tally.dropped == {
        "node without a name": 1,
        "node without a time": 1,
        "node that ends before it starts": 1,
    }


def test_a_table_without_times_is_still_a_table() -> None:
    trace, tally = read(twin({"Node Name": "n"}))
    assert trace.events.is_empty()
    assert "none of 1 nodes" in tally.warnings[0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEADER.encode(),
        (HEADER + "\n").encode(),
        b"\x00\xff\xfe\x01",
        b"{",
        b"[]",
        b'{"analyzer_metadata": 3}',
        b'{"analyzer_metadata": [1, null, "x"]}',
        b"[" * 100_000,
        b"a,b\n1,2\n",
    ],
)
def test_bad_files_are_refused_with_a_hint(data: bytes) -> None:
    with pytest.raises(TraceError) as caught:
        read(data)
    assert caught.value.hint


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 600), st.binary(max_size=60))
def test_a_damaged_file_raises_nothing_else(end: int, junk: bytes) -> None:
    rows = "\n".join([HEADER, *(f"TPC,{k},n{k},add,{k}.5,{k}.75,0.25,0.25" for k in range(12))]).encode()
    for data in (rows[:end] + junk, twin({"Node Name": "n", "Start": 1.5})[:end] + junk):
        with contextlib.suppress(TraceError):
            read(data)

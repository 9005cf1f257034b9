"""The vendor's analysed nodes, recomputed: against its own file (real, Gaudi3) and a slow version (SYNTHETIC rows)."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.analysis.vendor.analyzed_nodes import analyzed_nodes, compare
from overlap.errors import TraceError
from overlap.traces.readers.hw_csv import read_hw_csv
from overlap.traces.schema import empty, filled
from overlap.traces.trace import Tally
from tests.gaudi_samples import ANALYZED, RAW, sample

Row = tuple[str, str, str, int, int]


def events(rows: list[Row]) -> pl.DataFrame:
    return filled(pl.DataFrame(rows, schema=["engine", "lane", "name", "start_ns", "end_ns"], orient="row"))


def test_every_cell_of_the_real_file_is_met() -> None:
    ours = analyzed_nodes(read_hw_csv(sample(RAW), RAW, Tally()).events)
    theirs = pl.read_csv(sample(ANALYZED), infer_schema=False)
    found = compare(ours, theirs)
    assert found["matches"].to_list() == [4] * 19
    assert found.select(pl.col("mismatches", "only_ours", "only_theirs").sum()).row(0) == (0, 0, 0)
    assert set(ours.columns) <= set(theirs.columns)
    assert ours["Node Name"].to_list() == theirs["Node Name"].to_list()


def test_a_comparison_names_what_differs() -> None:
    ours = analyzed_nodes(events([("TPC", "TPC 0", "a", 0, 2000), ("MME", "MME 0", "m", 500, 1000)]))
    theirs = pl.DataFrame({"Unit": ["TPC", "TPC"], "Node Name": ["a", "z"], "Exposed tpc (us)": ["1.501", "1"]})
    assert compare(ours, theirs).row(0) == ("Exposed tpc (us)", 0, 1, 1, 1, "a: 1.5 / 1.501")
    with pytest.raises(TraceError):
        compare(ours, pl.DataFrame({"Unit": ["TPC"]}))


def test_exposure_is_what_the_other_engine_does_not_cover() -> None:
    rows = [
        ("TPC", "TPC 0", "a", 0, 1000),
        ("TPC", "TPC 1", "a", 500, 2000),
        ("MME", "MME 0", "m", 900, 1100),
        ("MME", "MME 1", "n", 1000, 1500),
        ("DMA", "EDMA 0", "d", 0, 5000),
    ]
    found = analyzed_nodes(events(rows)).sort("Node Name")
    assert found["Exposed tpc (us)"].to_list() == [1.4, None, None, None]
    assert found["Unexposed tpc (us)"].to_list() == [0.6, None, None, None]
    assert found["Exposed mme (us)"].to_list() == [None, None, 0.0, 0.0]
    assert found["Unexposed mme (us)"].to_list() == [None, None, 0.2, 0.5]


def test_a_node_is_cut_only_after_a_multiple_of_eight() -> None:
    rows = [("TPC", f"TPC {k % 8}", "a", 10 * k, 10 * k + 5) for k in range(20)]
    found = analyzed_nodes(events(rows))
    assert found.select("Node Name", "Num activations").rows() == [("a", 8), ("a iter 2", 8), ("a iter 3", 4)]
    touching = [("TPC", f"TPC {k % 8}", "a", 10 * k, 10 * k + 10) for k in range(20)]
    assert analyzed_nodes(events(touching)).height == 1


def test_no_activity_no_nodes() -> None:
    found = analyzed_nodes(empty())
    assert found.height == 0
    assert "Variance single engine (us²)" in found.columns
    assert analyzed_nodes(events([("NIC", "NIC 0", "x", 0, 5)])).height == 0


def busy(spans: list[tuple[int, int]]) -> set[int]:
    return {moment for start, end in spans for moment in range(start, end)}


SPANS = st.lists(
    st.tuples(
        st.sampled_from(["MME", "TPC"]),
        st.sampled_from("01"),
        st.sampled_from("ab"),
        st.integers(0, 60),
        st.integers(0, 9),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(SPANS)
def test_active_and_exposed_are_those_of_sets_of_moments(spans: list[Row]) -> None:
    rows = [(engine, lane, name, start, start + length) for engine, lane, name, start, length in spans]
    found = analyzed_nodes(events(rows))
    for engine, other, column in (("TPC", "MME", "tpc"), ("MME", "TPC", "mme")):
        covered = busy([row[3:] for row in rows if row[0] == other])
        for name in "ab":
            mine = busy([row[3:] for row in rows if row[0] == engine and row[2] == name])
            parts = found.filter((pl.col("Unit") == engine) & pl.col("Node Name").str.starts_with(name))
            assert round(1000 * parts["Active (us)"].sum()) == len(mine)
            assert round(1000 * parts[f"Exposed {column} (us)"].sum()) == len(mine - covered)
            assert round(1000 * parts[f"Unexposed {column} (us)"].sum()) == len(mine & covered)
            assert parts["Num activations"].sum() == sum(row[0] == engine and row[2] == name for row in rows)

"""Both definitions of a busy TPC against the partition of a table whose rows end at their tails."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from overlap.analysis.partition import partition
from overlap.analysis.tails import HALT, LAST_WRITE, tpc_definitions
from overlap.traces.schema import empty
from tests.timelines import ROWS, WINDOW, Row, table


@given(ROWS, st.lists(st.integers(-1, 9), min_size=20, max_size=20))
def test_both_definitions_are_partitions(rows: list[Row], late: list[int]) -> None:
    tails = [row[3] + row[4] + more if more >= 0 else -1 for row, more in zip(rows, late, strict=False)]
    events = table(rows, tail_ns=tails)
    tpc = events.filter(engine="TPC")
    known = int((tpc["tail_ns"] >= 0).sum())
    found = {row["definition"]: row for row in tpc_definitions(events, WINDOW).iter_rows(named=True)}
    assert list(found) == ([HALT, LAST_WRITE] if known else [HALT] if tpc.height else [])
    until = pl.when(engine="TPC").then(pl.max_horizontal("end_ns", "tail_ns")).otherwise("end_ns")
    for name, row in found.items():
        part = partition(events.with_columns(until.alias("end_ns")) if name == LAST_WRITE else events, WINDOW)
        assert (row["rows"], row["rows_with_tail"]) == (tpc.height, known)
        assert row["busy_ns"] == part.busy_ns("TPC") == row["both_ns"] + row["exposed_tpc_ns"]
        assert (row["both_ns"], row["exposed_mme_ns"]) == (part.both_ns, part.exposed_mme_ns)
        assert row["idle_ns"] == part.idle_ns


def test_a_tail_can_hide_the_start_of_a_product() -> None:
    rows = [("TPC", 0, "pack", 0, 4), ("MME", 0, "conv", 6, 10)]
    found = tpc_definitions(table(rows, tail_ns=[8, -1]), (0, 20))
    assert found.rows() == [(HALT, 1, 1, 4, 0, 4, 10, 6), (LAST_WRITE, 1, 1, 8, 2, 6, 8, 4)]


def test_without_tpc_there_is_nothing_to_define() -> None:
    assert tpc_definitions(empty(), WINDOW).is_empty()
    assert tpc_definitions(table([("MME", 0, "a", 0, 9)], tail_ns=12), WINDOW).is_empty()

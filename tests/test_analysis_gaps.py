"""Gaps against a counter that looks at every single ns."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from overlap.analysis.gaps import gap_summary, gaps
from overlap.analysis.partition import partition
from overlap.traces.schema import empty
from tests.timelines import ROWS, WINDOW, Row, running, table


def slow_gaps(rows: list[Row]) -> list[tuple[int, int]]:
    """(start, end) of the stretches in which nothing runs."""
    found = []
    for free, group in groupby(range(*WINDOW), key=lambda now: not running(rows, now)):
        moments = list(group)
        if free:
            found.append((moments[0], moments[-1] + 1))
    return found


@given(ROWS, st.integers(0, 12))
def test_every_gap_by_the_ns(rows: list[Row], macro_ns: int) -> None:
    found = gaps(table(rows), WINDOW, macro_ns)
    assert found.select("start_ns", "end_ns").rows() == slow_gaps(rows)
    lasting = {f"op{i}": (row[3], row[3] + row[4]) for i, row in enumerate(rows) if row[4]}
    for row in found.iter_rows(named=True):
        start, end = row["start_ns"], row["end_ns"]
        assert row["length_ns"] == end - start
        assert row["size"] == ("micro" if end - start < macro_ns else "macro")
        ended = [name for name, span in lasting.items() if span[1] == start and start > WINDOW[0]]
        started = [name for name, span in lasting.items() if span[0] == end and end < WINDOW[1]]
        assert (row["before"], row["after"]) == ((ended or [""])[0], (started or [""])[0])


@given(ROWS, st.integers(0, 12))
def test_gaps_sum_to_the_idle_part(rows: list[Row], macro_ns: int) -> None:
    found = gaps(table(rows), WINDOW, macro_ns)
    summary = gap_summary(found)
    assert summary["total_ns"].sum() == found["length_ns"].sum() == partition(table(rows), WINDOW).idle_ns
    assert summary["size"].to_list() == ["micro", "macro"]
    assert summary["count"].sum() == found.height
    assert summary["longest_ns"].max() == (found["length_ns"].max() or 0)


def test_no_rows_are_one_gap_and_no_time_is_none() -> None:
    assert gaps(empty(), (5, 9), 4).rows() == [(5, 9, 4, "", "", "macro")]
    assert gaps(empty(), (5, 5)).is_empty()
    assert gap_summary(gaps(empty(), (5, 5))).rows() == [("micro", 0, 0, 0), ("macro", 0, 0, 0)]


def test_of_several_names_the_first_in_the_table() -> None:
    rows = [("TPC", lane, "a", 0, 5) for lane in range(3)] + [("MME", 0, "b", 9, 1), ("TPC", 0, "b", 9, 4)]
    assert gaps(table(rows), (0, 13)).rows() == [(5, 9, 4, "op0", "op3", "micro")]

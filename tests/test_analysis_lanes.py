"""Lanes against a counter that looks at every single ns."""

from __future__ import annotations

import pytest
from hypothesis import given

from overlap.analysis.lanes import balance, lane_table, lanes_and_occupancy, occupancy
from overlap.analysis.partition import partition
from overlap.traces.schema import empty
from tests.timelines import ROWS, WINDOW, Row, count_ns, running, table


@given(ROWS)
def test_every_lane_by_the_ns(rows: list[Row]) -> None:
    found = {(row["engine"], row["lane"]): row for row in lane_table(table(rows), WINDOW).iter_rows(named=True)}
    assert set(found) == {(engine, f"{engine} {lane}") for engine, lane, *_ in rows}
    for (engine, lane), row in found.items():
        mine = [one for one in rows if (one[0], f"{one[0]} {one[1]}") == (engine, lane)]
        busy = [now for now in range(*WINDOW) if running(mine, now)]
        assert row["busy_ns"] == len(busy)
        assert row["share"] == pytest.approx(len(busy) / 40)
        assert (row["first_start_ns"], row["last_end_ns"]) == ((busy[0], busy[-1] + 1) if busy else (None, None))
        assert row["overlapped_ns"] == sum(max(0, len(running(mine, now)) - 1) for now in range(*WINDOW))
        assert row["rows"] == sum(any(running([one], now) for now in range(*WINDOW)) for one in mine)


@given(ROWS)
def test_occupancy_by_the_ns(rows: list[Row]) -> None:
    lanes, histogram = lanes_and_occupancy(table(rows), WINDOW)
    assert histogram.equals(occupancy(table(rows), WINDOW))
    assert lanes.equals(lane_table(table(rows), WINDOW))
    for (engine,), group in histogram.partition_by("engine", as_dict=True).items():
        assert group["time_ns"].sum() == 40
        for lanes_busy, time_ns in group.select("lanes", "time_ns").iter_rows():
            assert time_ns == count_ns(
                lambda now, e=engine, k=lanes_busy: len({row[1] for row in running(rows, now) if row[0] == e}) == k
            )


@given(ROWS)
def test_engines_agree_with_their_lanes_and_the_partition(rows: list[Row]) -> None:
    lanes, histogram = lanes_and_occupancy(table(rows), WINDOW)
    part = partition(table(rows), WINDOW)
    for row in balance(lanes, histogram).iter_rows(named=True):
        mine = lanes.filter(engine=row["engine"])["busy_ns"]
        weighted = histogram.filter(engine=row["engine"])
        assert row["busy_ns"] == part.busy_ns(row["engine"])
        assert (weighted["lanes"] * weighted["time_ns"]).sum() == mine.sum()
        assert (row["lane_min_ns"], row["lane_max_ns"]) == (mine.min(), mine.max())
        assert (row["lanes"], row["idle_lanes"]) == (len(mine), (mine == 0).sum())
        if row["busy_ns"]:
            assert row["occupancy"] == pytest.approx(mine.sum() / row["busy_ns"])
            assert row["skew"] == pytest.approx(mine.max() / mine.mean())
        else:
            assert row["occupancy"] is None
            assert row["skew"] is None


def test_pipelined_rows_of_a_lane_count_once() -> None:
    found = lane_table(table([("MME", 0, "a", 0, 10), ("MME", 0, "a", 4, 10), ("MME", 0, "a", 14, 6)]), (0, 40))
    assert found.row(0) == ("MME", "MME 0", 3, 20, 0.5, 0, 20, 6)


def test_an_empty_table_and_an_empty_window() -> None:
    lanes, histogram = lanes_and_occupancy(empty(), WINDOW)
    assert lanes.is_empty()
    assert balance(lanes, histogram).is_empty()
    rows = [("TPC", 0, "a", 0, 10)]
    assert lane_table(table(rows), (5, 5)).row(0) == ("TPC", "TPC 0", 0, 0, 0.0, None, None, 0)
    assert occupancy(table(rows), (5, 5)).rows() == [("TPC", 0, 0, 0.0)]


def test_stays_exact_far_from_zero() -> None:
    now = 1_790_000_000_123_456_789
    rows = [("TPC", lane, "a", lane, 7) for lane in range(3)]
    lanes, histogram = lanes_and_occupancy(table(rows, now), (now, now + 9))
    assert lanes["busy_ns"].to_list() == [7, 7, 7]
    assert histogram["time_ns"].to_list() == [0, 2, 2, 5]

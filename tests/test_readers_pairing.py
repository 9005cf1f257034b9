"""Pairing and launches against slow, plain versions. All rows are SYNTHETIC."""

from __future__ import annotations

from collections import defaultdict, deque

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.traces.readers.launches import launch_ids
from overlap.traces.readers.pairing import fifo_pairs
from overlap.traces.trace import Tally

MARKS = st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 12), st.booleans()), max_size=40)
SCHEMA = {"lane": pl.String, "time_ns": pl.Int64, "begins": pl.Boolean}


def slow_pairs(rows: list[tuple[str | None, int, bool]]) -> tuple[list[tuple[str | None, int, int]], int, int]:
    waiting: dict[str | None, deque[int]] = defaultdict(deque)
    pairs, early = [], 0
    for lane, time, begins in sorted(rows, key=lambda row: row[1]):
        if begins:
            waiting[lane].append(time)
        elif waiting[lane]:
            pairs.append((lane, waiting[lane].popleft(), time))
        else:
            early += 1
    return pairs, sum(map(len, waiting.values())), early


def paired(rows: list[tuple[str | None, int, bool]]) -> tuple[list[tuple[str | None, int, int]], int, int]:
    found = fifo_pairs(pl.DataFrame(rows, schema=SCHEMA, orient="row"), ["lane"], ["time_ns"])
    assert found.begins["lane"].to_list() == found.ends["lane"].to_list()
    lanes = found.begins["lane"].to_list()
    starts, ends = found.begins["time_ns"].to_list(), found.ends["time_ns"].to_list()
    return list(zip(lanes, starts, ends, strict=True)), found.open.height, found.early.height


@settings(max_examples=400, deadline=None)
@given(MARKS)
def test_pairs_are_those_of_a_queue_per_key(rows: list[tuple[str | None, int, bool]]) -> None:
    pairs, still_open, early = slow_pairs(rows)
    found, found_open, found_early = paired(rows)
    assert sorted(found, key=repr) == sorted(pairs, key=repr)
    assert (found_open, found_early) == (still_open, early)


def test_an_early_end_shifts_nothing() -> None:
    rows = [("a", 5, False), ("a", 10, True), ("a", 12, False), ("a", 20, True), ("a", 23, False), ("a", 30, True)]
    assert paired(rows) == ([("a", 10, 12), ("a", 20, 23)], 1, 1)


def test_several_open_at_once_close_in_order() -> None:
    assert paired([("a", 0, True), ("a", 1, True), ("a", 5, False), ("a", 9, False)])[0] == [("a", 0, 5), ("a", 1, 9)]


def test_rows_at_one_time_count_in_the_order_of_the_file() -> None:
    assert paired([("a", 4, True), ("a", 4, False)]) == ([("a", 4, 4)], 0, 0)
    assert paired([("a", 4, False), ("a", 4, True)]) == ([], 1, 1)


def test_a_lane_that_is_always_busy_stays_so_when_the_window_opens_inside_an_activation() -> None:
    rows = [("a", 10 * i, begins) for i in (1, 2, 3) for begins in (False, True)]
    assert paired(rows) == ([("a", 10, 20), ("a", 20, 30)], 1, 1)


def test_unmatched_rows_are_counted_by_reason() -> None:
    tally = Tally()
    rows = pl.DataFrame([("a", 1, False), ("a", 2, True)], schema=SCHEMA, orient="row")
    fifo_pairs(rows, ["lane"], ["time_ns"]).count_unmatched(tally)
    assert tally.dropped == {"begin without end": 1, "end without begin": 1}


def test_no_rows_no_pairs() -> None:
    assert paired([]) == ([], 0, 0)


ROWS = st.lists(
    st.tuples(st.sampled_from(["TPC", "MME"]), st.sampled_from("xyz"), st.integers(0, 20), st.integers(0, 6)),
    max_size=30,
)


def events(rows: list[tuple[str, str, int, int]]) -> pl.DataFrame:
    return pl.DataFrame(
        [(0, engine, name, start, start + length) for engine, name, start, length in rows],
        schema={"device": pl.Int32, "engine": pl.String, "name": pl.String, "start_ns": pl.Int64, "end_ns": pl.Int64},
        orient="row",
    )


def slow_launches(frame: pl.DataFrame) -> list[int]:
    rows = list(enumerate(frame.iter_rows(named=True)))
    rows.sort(key=lambda one: (one[1]["start_ns"], one[0]))
    latest: dict[tuple[str, str], tuple[int, int]] = {}
    found, count = [-1] * len(rows), 0
    for index, row in rows:
        key = row["engine"], row["name"]
        end, launch = latest.get(key, (0, -1))
        between = [
            other
            for _, other in rows
            if other["engine"] == row["engine"]
            and other["name"] != row["name"]
            and end <= other["start_ns"] < row["start_ns"]
        ]
        if key not in latest or between:
            launch, count = count, count + 1
        latest[key] = max(end, row["end_ns"]), launch
        found[index] = launch
    return found


@settings(max_examples=400, deadline=None)
@given(ROWS)
def test_launches_are_those_of_the_rule(rows: list[tuple[str, str, int, int]]) -> None:
    frame = events(rows)
    assert launch_ids(frame, ["name"]).to_list() == slow_launches(frame)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.randoms())
def test_launches_do_not_depend_on_the_order_of_rows(rows: list[tuple[str, str, int, int]], random: object) -> None:
    def groups(some: list[tuple[str, str, int, int]]) -> list[list[tuple[str, str, int, int]]]:
        members = defaultdict(list)
        for launch, row in zip(launch_ids(events(some), ["name"]).to_list(), some, strict=True):
            members[launch].append(row)
        return sorted(sorted(group) for group in members.values())

    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert groups(rows) == groups(shuffled)


def test_a_node_on_many_lanes_is_one_op_and_comes_again_as_another() -> None:
    rows = [("TPC", "x", 0, 10), ("TPC", "x", 4, 10), ("MME", "m", 15, 2), ("TPC", "x", 20, 5), ("TPC", "y", 25, 5)]
    assert launch_ids(events([*rows, ("TPC", "x", 30, 5)]), ["name"]).to_list() == [0, 0, 1, 0, 2, 3]


def test_a_kernel_that_starts_inside_another_splits_nothing() -> None:
    assert launch_ids(events([("TPC", "x", 0, 10), ("TPC", "y", 5, 10), ("TPC", "x", 8, 10)]), ["name"]).to_list() == [
        0,
        1,
        0,
    ]

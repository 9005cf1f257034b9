"""Checks of a trace: what is missing, impossible or outside of its iterations."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.analysis.health import (
    HOUR_NS,
    Check,
    checks,
    durations,
    iterations,
    lengths,
    overruns,
    unknown_engines,
    whole_window,
)
from overlap.errors import TraceError
from overlap.traces.schema import HOST, empty, filled
from overlap.traces.trace import About
from tests.timelines import ROWS, Row, table


def host(rows: list[tuple[str, str, int, int]]) -> pl.DataFrame:
    """Host table from (name, kind, start, end)."""
    return filled(pl.DataFrame(rows, schema=["name", "kind", "start_ns", "end_ns"], orient="row"), HOST)


def steps(*spans: tuple[int, int], kind: str = "user_annotation", first: int = 3) -> pl.DataFrame:
    return host([(f"ProfilerStep#{first + i}", kind, *span) for i, span in enumerate(spans)])


def named(found: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in found}


def test_a_sound_trace_passes_all() -> None:
    events = table([("MME", 0, "a", 0, 10), ("TPC", 0, "b", 5, 10), ("TPC", 0, "b", 15, 4)])
    found = checks(events, steps((0, 9), (9, 20)), About(rows=5))
    assert [check.name for check in found] == [
        *("device rows", "reading", "lengths", "serial lanes", "durations", "engines", "steps", "outside of steps")
    ]
    assert [check for check in found if not check.ok] == []
    assert all(check.detail for check in found)
    assert named(found)["steps"].detail == "2 whole steps, 3 to 4, by times of the host"


@pytest.mark.parametrize("events", [empty(), table([("TPC", 0, "a", 4, 0)])])
def test_no_device_work_says_what_to_switch_on(events: pl.DataFrame) -> None:
    with pytest.raises(TraceError, match=r"ProfilerActivity\.HPU.*HABANA_PROFILE.*ProfilerActivity\.CUDA"):
        checks(events, steps((0, 9)), About())


@given(ROWS)
def test_overruns_of_tpc_lanes(rows: list[Row]) -> None:
    count = ns = 0
    for lane in range(3):
        reach = 0
        for start, length in sorted((row[3], row[4]) for row in rows if row[:2] == ("TPC", lane) and row[4]):
            count += start < reach
            ns += max(0, min(start + length, reach) - start)
            reach = max(reach, start + length)
    found = overruns(table(rows))
    assert (found.count, found.ok) == (count, count == 0)
    assert count == 0 or f" {ns} ns in all" in found.detail


def test_engines_share_a_stream_and_mme_lanes_may_overlap() -> None:
    rows = [("MME", 0, "a", 0, 10), ("TPC", 0, "b", 8, 4), ("MME", 1, "a", 0, 10)]
    assert overruns(table(rows, lane=["stream 7", "stream 7", "stream 8"])).count == 1
    assert overruns(table([("MME", 0, "a", 0, 10), ("MME", 0, "a", 4, 10)])).ok


def test_lengths_of_rows() -> None:
    events = table([("TPC", 0, "a", 0, 0), ("TPC", 0, "a", 1, 2)])
    assert lengths(events) == Check(
        "lengths", True, "1 row of length zero, 0 rows ending before the start; none is counted", 1
    )
    assert not lengths(events.with_columns(end_ns=pl.lit(-5, dtype=pl.Int64))).ok


def test_absurd_durations() -> None:
    short = [("TPC", 0, "a", i * 10, 5) for i in range(9)]
    assert durations(table([*short, ("MME", 0, "long", 0, 900_000)])).ok
    beyond = durations(table([*short, ("MME", 0, "long", 0, 2_000_000)]))
    assert (beyond.ok, beyond.count) == (False, 1)
    assert "everything else together (85 ns): `op9`, 2.00 ms" in beyond.detail
    hours = durations(table([*short, *[("MME", 0, "long", 0, HOUR_NS + 1)] * 2]))
    assert (hours.ok, hours.count) == (False, 2)
    assert durations(table([("MME", 0, "alone", 0, 2_000_000)])).ok


def test_unknown_engines() -> None:
    rows = [("TPC", 0, "a", 0, 96), ("OTHER", 0, "what", 100, 4)]
    found = unknown_engines(table(rows))
    assert (found.ok, found.count) == (True, 1)
    assert "`what`" in found.detail
    assert not unknown_engines(table([*rows, ("OTHER", 0, "what", 110, 4)])).ok


def test_what_the_reader_left_out_is_said() -> None:
    events = table([("TPC", 0, "a", 0, 5)])
    about = About(rows=9, dropped={"end without begin": 2, "zero length": 1}, warnings=("the file is cut",))
    found = named(checks(events, host([]), about))["reading"]
    assert found == Check("reading", False, "left out 3 rows (end without begin: 2, zero length: 1)", 3)


def test_steps_are_those_of_the_device_where_it_says_so() -> None:
    both = pl.concat(
        [steps((0, 10), (10, 20)), steps((6, 14), (15, 31), kind="gpu_user_annotation"),
         steps((8, 15), kind="gpu_user_annotation"), host([("forward", "user_annotation", 0, 50)])]
    )  # fmt: skip
    assert iterations(both).rows() == [(3, 6, 15), (4, 15, 31)]
    events = table([("TPC", 0, "a", 7, 5), ("TPC", 0, "a", 20, 5)])
    assert whole_window(events, both) == (6, 31)
    assert whole_window(events, steps((0, 10), (10, 20))) == (0, 10)


def test_steps_without_device_work_do_not_count() -> None:
    events = table([("TPC", 0, "a", 12, 5), ("TPC", 0, "a", 33, 5)])
    three = steps((0, 10), (10, 20), (20, 30))
    assert whole_window(events, three) == (10, 20)
    found = named(checks(events, three, About()))
    assert found["steps"].detail == "1 whole step, 4 to 4, by times of the host; 2 steps without device work"
    assert found["outside of steps"].count == 1
    assert not found["outside of steps"].ok
    assert "50.0 % of busy device time (5 ns, 1 row)" in found["outside of steps"].detail


def test_without_steps_the_window_is_everything() -> None:
    events = table([("TPC", 0, "a", 12, 5)])
    assert whole_window(events, host([])) is None
    assert iterations(host([])).is_empty()
    found = named(checks(events, host([("ProfilerStep", "user_annotation", 0, 9)]), About()))
    assert not found["steps"].ok
    assert found["outside of steps"].ok


@given(ROWS.filter(lambda rows: any(row[4] for row in rows)), st.integers(0, 30), st.integers(1, 30))
def test_share_outside_of_the_steps(rows: list[Row], start: int, length: int) -> None:
    events = table(rows)
    found = named(checks(events, steps((start, start + length)), About()))["outside of steps"]
    busy = {at for row in rows for at in range(row[3], row[3] + row[4])}
    whole = whole_window(events, steps((start, start + length)))
    assert (whole is None) == (not any(start <= row[3] < start + length and row[4] for row in rows))
    outside = busy - set(range(*whole)) if whole else set()
    assert found.ok == (len(outside) <= 0.05 * len(busy))
    assert not outside or f"({len(outside)} ns, " in found.detail

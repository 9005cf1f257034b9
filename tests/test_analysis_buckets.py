"""Buckets integrate exactly, against a counter that looks at every single ns."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.analysis.buckets import busy_over_time, length_bins
from overlap.analysis.partition import partition
from overlap.traces.schema import EVENTS, empty, filled

ROWS = st.lists(st.tuples(st.sampled_from(["MME", "TPC", "NIC"]), st.integers(0, 60), st.integers(0, 20)), max_size=12)


def events(rows: list[tuple[str, int, int]]) -> pl.DataFrame:
    found = [{"engine": engine, "start_ns": start, "end_ns": start + length} for engine, start, length in rows]
    return filled(pl.DataFrame(found, schema_overrides=EVENTS)) if rows else empty()


@given(ROWS, st.integers(0, 40), st.integers(0, 50), st.integers(1, 12))
def test_buckets_integrate_to_the_busy_times(rows: list, start: int, length: int, most: int) -> None:
    window = (start, start + length)
    frame, part = busy_over_time(events(rows), window, most), partition(events(rows), window)
    assert frame.height == min(most, length)
    for engine in {engine for engine, *_ in rows}:
        assert frame[f"{engine}_ns"].sum() == part.busy_ns(engine)
    assert frame["both_ns"].sum() == part.both_ns
    assert frame["idle_ns"].sum() == part.idle_ns
    for row in frame.iter_rows(named=True):
        alone = partition(events(rows), (row["start_ns"], row["end_ns"]))
        assert row["idle_ns"] == alone.idle_ns
        assert row["both_ns"] == alone.both_ns
    if length:
        sizes = (frame["end_ns"] - frame["start_ns"]).to_list()
        assert sum(sizes) == length
        assert max(sizes) - min(sizes) <= 1


def test_wrong_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="into 0 buckets"):
        busy_over_time(empty(), (0, 5), 0)
    with pytest.raises(ValueError, match=r"5\.\.0"):
        busy_over_time(empty(), (5, 0))


@given(st.lists(st.integers(-1, 10**12), max_size=30))
def test_every_length_is_in_one_bin(lengths: list[int]) -> None:
    bins = length_bins(pl.Series(lengths, dtype=pl.Int64))
    known = [length for length in lengths if length > 0]
    assert bins["count"].sum() == len(known)
    assert bins["total_ns"].sum() == sum(known)
    for low, high, count, total in bins.iter_rows():
        inside = [length for length in known if low <= length < high]
        assert (count, total) == (len(inside), sum(inside))
    assert bins["from_ns"].to_list()[1:] == bins["to_ns"].to_list()[:-1]

"""Partition against a counter that looks at every single ns."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.analysis.partition import Partition, partition
from overlap.traces.schema import EVENTS, empty, filled

ROWS = st.lists(
    st.tuples(st.sampled_from(("MME", "TPC", "DMA", "NIC")), st.integers(0, 40), st.integers(0, 12)), max_size=20
)


def table(rows: list[tuple[str, int, int]]) -> pl.DataFrame:
    """Event table from (engine, start, length) rows."""
    return filled(
        pl.DataFrame(
            [
                {
                    "engine": engine,
                    "lane": engine,
                    "name": f"op{i}",
                    "kind": "k",
                    "op_id": i,
                    "layer": 0,
                    "chunk": 0,
                    "phase": "attn",
                    "start_ns": start,
                    "end_ns": start + length,
                    "correlation": i,
                    "flops": -1,
                    "bytes": -1,
                }
                for i, (engine, start, length) in enumerate(rows)
            ],
            schema_overrides=EVENTS,
        )
        if rows
        else empty()
    )


def counted(rows: list[tuple[str, int, int]], start: int, end: int) -> dict[frozenset[str], int]:
    """Ns per set of busy engines, one ns at a time."""
    found: dict[frozenset[str], int] = {}
    for now in range(start, end):
        busy = frozenset(engine for engine, begin, length in rows if begin <= now < begin + length)
        found[busy] = found.get(busy, 0) + 1
    return found


@given(ROWS, st.one_of(st.none(), st.tuples(st.integers(-5, 30), st.integers(0, 40))))
def test_agrees_with_a_counter_of_every_ns(rows: list[tuple[str, int, int]], at: tuple[int, int] | None) -> None:
    window = None if at is None else (at[0], at[0] + at[1])
    cut = partition(table(rows), window)
    truth = counted(rows, cut.start_ns, cut.end_ns)
    parts = {frozenset() if key == "idle" else frozenset(key.split("+")): ns for key, ns in cut.parts_ns.items()}
    assert {busy: ns for busy, ns in parts.items() if ns} == truth
    assert cut.both_ns == sum(ns for busy, ns in truth.items() if {"MME", "TPC"} <= busy)
    assert cut.exposed_tpc_ns == sum(ns for busy, ns in truth.items() if "TPC" in busy and "MME" not in busy)
    assert cut.exposed_mme_ns == cut.busy_ns("MME") - cut.both_ns
    assert cut.idle_ns == truth.get(frozenset(), 0)
    assert cut.busy_ns("DMA") == sum(ns for busy, ns in truth.items() if "DMA" in busy)


def test_keys_are_the_engines_present_and_every_set_that_occurs() -> None:
    cut = partition(table([("TPC", 0, 4), ("MME", 4, 6)]))
    assert cut.parts_ns == {"MME": 6, "TPC": 4, "MME+TPC": 0, "idle": 0}
    assert cut.busy == {"mme": 0.6, "tpc": 0.4, "both": 0.0, "idle": 0.0}
    cut = partition(table([("MME", 0, 1), ("TPC", 2, 1), ("DMA", 2, 2), ("NIC", 9, 1)]))
    assert cut.parts_ns == {"MME": 1, "TPC": 0, "DMA": 1, "NIC": 1, "MME+TPC": 0, "TPC+DMA": 1, "idle": 6}


def test_lanes_of_one_engine_count_once() -> None:
    cut = partition(table([("TPC", 0, 10), ("TPC", 2, 3), ("TPC", 10, 5)]))
    assert cut.parts_ns == {"TPC": 15, "idle": 0}


def test_an_empty_table_is_all_idle() -> None:
    assert partition(empty()).parts_ns == {"idle": 0}
    assert partition(empty(), (5, 9)).parts_ns == {"idle": 4}
    assert partition(empty()).busy["idle"] == 0.0


def test_stays_exact_far_from_zero() -> None:
    now = 1_790_000_000_123_456_789
    assert partition(table([("MME", now, 7), ("TPC", now + 3, 3)])).parts_ns["MME+TPC"] == 3


def test_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="engine 'GPU'"):
        partition(table([("GPU", 0, 1)]))
    with pytest.raises(ValueError, match="ends before it starts"):
        partition(empty(), (5, 4))
    with pytest.raises(AssertionError, match="parts sum to 3 ns in a window of 4 ns"):
        Partition(0, 4, {"idle": 3})

"""Pairs of kinds against a counter that looks at every single ns."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.analysis import pairs
from overlap.analysis.pairs import COLUMNS, SIDES, pair_table
from overlap.analysis.partition import partition
from overlap.traces.schema import empty
from tests.timelines import ROWS, WINDOW, Row, count_ns, running, table


def slow_pairs(rows: list[Row]) -> dict[tuple[str, str, str, str], int]:
    """Overlap of each pair, by looking at what runs in every ns."""
    found: dict[tuple[str, str, str, str], int] = {}
    for now in range(*WINDOW):
        kinds = {(row[0], row[2]) for row in running(rows, now)}
        for a in kinds:
            for b in kinds:
                if (a[0], b[0]) in SIDES:
                    found[(*a, *b)] = found.get((*a, *b), 0) + 1
    return found


@given(ROWS)
def test_every_pair_by_the_ns(rows: list[Row]) -> None:
    found = pair_table(table(rows), WINDOW)
    assert found.schema == COLUMNS
    assert {row[:4]: row[4] for row in found.iter_rows()} == slow_pairs(rows)
    assert found["overlap_ns"].is_sorted(descending=True)
    for row in found.iter_rows(named=True):
        for side in "ab":
            mine = [one for one in rows if (one[0], one[2]) == (row[f"engine_{side}"], row[f"kind_{side}"])]
            busy = count_ns(lambda now, mine=mine: bool(running(mine, now)))
            assert row[f"share_{side}"] == pytest.approx(row["overlap_ns"] / busy)


@given(ROWS, st.integers(1, 5), st.integers(0, 3))
def test_batches_and_sparse_sums_change_nothing(rows: list[Row], batch: int, limit: int) -> None:
    expected = pair_table(table(rows), WINDOW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "BATCH", batch)
        patch.setattr(pairs, "TABLE", limit)
        assert pair_table(table(rows), WINDOW).equals(expected)


@given(ROWS)
def test_one_kind_per_engine_sums_to_both(rows: list[Row]) -> None:
    alike = [(engine, lane, "k", start, length) for engine, lane, _, start, length in rows]
    found = pair_table(table(alike), WINDOW).filter(engine_a="MME", engine_b="TPC")
    assert found["overlap_ns"].sum() == partition(table(rows), WINDOW).both_ns
    full = pair_table(table(rows), WINDOW).filter(engine_a="MME", engine_b="TPC")
    assert full["overlap_ns"].sum() >= found["overlap_ns"].sum()


def test_by_name_and_the_top_only() -> None:
    rows = [("MME", 0, "gemm", 5, 10), ("TPC", 0, "softmax", 7, 4), ("TPC", 1, "norm", 14, 9)]
    found = pair_table(table(rows), WINDOW, top=1, by="name")
    assert found.rows() == [("MME", "op0", "TPC", "op1", 4, 0.4, 1.0)]


def test_nothing_beside_anything() -> None:
    assert pair_table(empty(), WINDOW).schema == COLUMNS
    touching = table([("MME", 0, "a", 5, 5), ("TPC", 0, "b", 10, 5), ("TPC", 0, "b", 7, 0)])
    assert pair_table(touching, WINDOW).is_empty()


def test_many_rows_under_one_long_row_stay_cheap() -> None:
    count = 50_000
    long = pl.DataFrame({"engine": ["MME"], "kind": ["gemm"], "start_ns": [0], "end_ns": [count * 10]})
    short = pl.DataFrame({"start_ns": pl.int_range(0, count * 10, 10, eager=True)}).with_columns(
        end_ns=pl.col("start_ns") + 4, engine=pl.lit("TPC"), kind=pl.lit("norm")
    )
    found = pair_table(pl.concat([long, short.select(long.columns)]), (0, count * 10))
    assert found["overlap_ns"].to_list() == [4 * count]

"""The op table against a counter that looks at every single ns."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from overlap.analysis.ops import op_table
from overlap.traces.schema import EVENTS, empty, filled

ENGINE_OF = ("MME", "TPC", "DMA", "TPC", "MME")
ROWS = st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 40), st.integers(0, 12)), max_size=20)


def table(rows: list[tuple[int, int, int]]) -> pl.DataFrame:
    """Event table from (op_id, start, length) rows; an op is always on the engine `ENGINE_OF` names."""
    return filled(
        pl.DataFrame(
            [
                {
                    "engine": ENGINE_OF[op],
                    "lane": f"{ENGINE_OF[op]} {i}",
                    "name": f"op{op}",
                    "kind": "k",
                    "op_id": op,
                    "layer": 0,
                    "chunk": 0,
                    "phase": "attn",
                    "start_ns": start,
                    "end_ns": start + length,
                    "correlation": -1,
                    "flops": 5,
                    "bytes": -1,
                }
                for i, (op, start, length) in enumerate(rows)
            ],
            schema_overrides=EVENTS,
        )
        if rows
        else empty()
    )


def covered(rows: list[tuple[int, int, int]]) -> set[int]:
    """Every ns in which one of the rows runs."""
    return {now for _, start, length in rows for now in range(start, start + length)}


@given(ROWS)
def test_agrees_with_a_counter_of_every_ns(rows: list[tuple[int, int, int]]) -> None:
    grouped = {(op, -1 if op >= 0 else i): [] for i, (op, _, _) in enumerate(rows)}
    for i, row in enumerate(rows):
        grouped[row[0], -1 if row[0] >= 0 else i].append(row)
    expected = []
    for (op, _), own in grouped.items():
        others = {"MME", "TPC"} - {ENGINE_OF[op]}
        busy = covered([row for row in rows if ENGINE_OF[row[0]] in others])
        ran = covered(own)
        expected.append((op, min(r[1] for r in own), len(ran), len(ran - busy), len(ran & busy)))
    found = op_table(table(rows)).select("op_id", "start_ns", "duration_ns", "exposed_ns", "hidden_ns").rows()
    assert sorted(found) == sorted(expected)


def test_keeps_the_traits_and_the_order_of_start() -> None:
    ops = op_table(table([(1, 5, 2), (0, 0, 4), (1, 6, 3)]))
    assert ops["op_id"].to_list() == [0, 1]
    assert ops.row(1, named=True) == {
        "op_id": 1, "name": "op1", "engine": "TPC", "kind": "k", "path": "", "layer": 0, "chunk": 0, "phase": "attn",
        "start_ns": 5, "end_ns": 9, "duration_ns": 4, "exposed_ns": 4, "hidden_ns": 0, "flops": 5, "bytes": -1,
    }  # fmt: skip


def test_an_empty_table_has_no_ops() -> None:
    assert op_table(empty()).is_empty()

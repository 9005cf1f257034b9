"""Made-up event tables and a counter that looks at every single ns, for tests of the analyses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import polars as pl
from hypothesis import strategies as st

from overlap.traces.schema import EVENTS, filled

WINDOW = (5, 45)
ENGINES = ("MME", "TPC", "FUSED", "DMA", "NIC", "OTHER")

# (engine, number of lane, kind, start, length); lengths of zero and touching rows are frequent.
Row = tuple[str, int, str, int, int]
ROWS = st.lists(
    st.tuples(
        st.sampled_from(ENGINES), st.integers(0, 2), st.sampled_from("abc"), st.integers(0, 40), st.integers(0, 12)
    ),
    max_size=20,
)


def table(rows: Iterable[Row], origin_ns: int = 0, **more: Any) -> pl.DataFrame:
    """Event table of rows; op i is called `op<i>`, and `more` are columns as lists or single values."""
    frame = pl.DataFrame(
        [
            {"engine": engine, "lane": f"{engine} {lane}", "name": f"op{i}", "kind": kind, "op_id": i,
             "start_ns": origin_ns + start, "end_ns": origin_ns + start + length}
            for i, (engine, lane, kind, start, length) in enumerate(rows)
        ],
        schema_overrides=EVENTS,
    )  # fmt: skip
    if frame.is_empty():
        return filled(frame)
    columns = [pl.Series(name, value) if isinstance(value, list) else pl.lit(value).alias(name)
               for name, value in more.items()]  # fmt: skip
    return filled(frame.with_columns(columns))


def running(rows: Iterable[Row], now: int) -> list[Row]:
    """Rows that run during the ns from `now` on."""
    return [row for row in rows if row[3] <= now < row[3] + row[4]]


def count_ns(test: Callable[[int], bool], window: tuple[int, int] = WINDOW) -> int:
    """How many ns of the window pass the test."""
    return sum(1 for now in range(*window) if test(now))

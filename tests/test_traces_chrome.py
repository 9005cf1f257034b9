"""Chrome traces: nothing is lost, rows nest, counters are steps, files are whole or absent."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.analysis.partition import partition
from overlap.errors import RunDirError
from overlap.traces.chrome import TraceInfo, write_chrome
from overlap.traces.readers.own import read_own
from overlap.traces.readers.stream import Stream
from overlap.traces.rows import micros, micros_text
from overlap.traces.schema import COUNTERS, EVENTS, SCHEMA_VERSION, empty, filled
from overlap.traces.slots import place
from overlap.traces.trace import Tally

INFO = TraceInfo("host (test, 1+1 threads)", "measured", "a <title>", notes={"command": "overlap sweep"})
EPOCH = 1_790_000_000_123_456_789


def table(rows: list[tuple[str, str, int, int]], origin: int = EPOCH) -> pl.DataFrame:
    """Event table from (engine, lane, start, length) rows."""
    return filled(
        pl.DataFrame(
            [
                {
                    "engine": engine,
                    "lane": lane,
                    "name": f"layer0.chunk{i}.attn.op",
                    "kind": "gemm",
                    "op_id": i,
                    "layer": 0,
                    "chunk": i,
                    "phase": "attn",
                    "start_ns": origin + start,
                    "end_ns": origin + start + length,
                    "correlation": -1,
                    "flops": 2**40 + 1,
                    "bytes": 7,
                }
                for i, (engine, lane, start, length) in enumerate(rows)
            ],
            schema_overrides=EVENTS,
        )
        if rows
        else empty()
    )


def read_chrome(path: Path) -> pl.DataFrame:
    """The event table out of a file."""
    tally = Tally()
    events = read_own(Stream(path), tally).events
    assert not tally.dropped
    assert not tally.warnings
    return events


def document(path: Path) -> dict[str, Any]:
    """The file, with times as exact decimals."""
    found: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()), parse_float=Decimal)
    return found


ROWS = st.lists(
    st.tuples(
        st.sampled_from((("MME", "MME"), ("TPC", "TPC 2"), ("TPC", "TPC 10"))),
        st.integers(0, 3000),
        st.integers(0, 1500),
    ).map(lambda row: (*row[0], row[1], row[2])),
    max_size=12,
)


@given(rows=ROWS, origin=st.sampled_from((0, EPOCH)))
def test_reads_back_to_the_ns(
    rows: list[tuple[str, str, int, int]], origin: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    events = table(rows, origin)
    path = write_chrome(events, tmp_path_factory.mktemp("trace") / "a.pt.trace.json.gz", INFO)
    keys = ["start_ns", "op_id"]
    assert read_chrome(path).sort(keys).equals(events.sort(keys))


@given(ROWS)
def test_rows_of_a_thread_nest(rows: list[tuple[str, str, int, int]]) -> None:
    placed, names = place(table(rows))
    assert set(placed.select("device", "engine", "tid").rows()) == set(names)
    threads: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for row in placed.iter_rows(named=True):
        threads.setdefault((row["engine"], row["tid"]), []).append((row["start_ns"], row["end_ns"]))
    for spans in threads.values():
        for i, (start, end) in enumerate(spans):
            for later_start, later_end in spans[i + 1 :]:
                assert later_start >= end or (later_start >= start and later_end <= end)


def test_lanes_keep_their_natural_order_and_slots_get_threads() -> None:
    _, names = place(table([("TPC", "TPC 10", 0, 5), ("TPC", "TPC 9", 0, 5), ("TPC", "TPC 9", 3, 5)]))
    assert names == {(0, "TPC", 1): "TPC 9", (0, "TPC", 2): "TPC 10", (0, "TPC", 3): "TPC 9 #2"}


def test_counters_are_steps_that_end_at_zero_and_agree_with_the_partition(tmp_path: Path) -> None:
    events = table([("MME", "MME", 0, 1000), ("TPC", "TPC 2", 400, 900), ("TPC", "TPC 10", 500, 100)], 0)
    rows = document(write_chrome(events, tmp_path / "a.pt.trace.json.gz", INFO))["traceEvents"]
    counters: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        if row["ph"] == "C":
            (value,) = row["args"].values()
            counters.setdefault(row["name"], []).append((int(row["ts"] * 1000), value))
    assert counters["TPC busy"] == [(0, 0), (400, 1), (500, 2), (600, 1), (1300, 0)]
    assert counters["MME&TPC both"] == [(0, 0), (400, 1), (1000, 0)]
    both = sum(
        b - a for (a, on), (b, _) in zip(counters["MME&TPC both"], counters["MME&TPC both"][1:], strict=False) if on
    )
    assert both == partition(events).both_ns


def test_arrows_lie_inside_the_slices_they_join(tmp_path: Path) -> None:
    events = table([("MME", "MME", 0, 1000), ("TPC", "TPC 2", 1200, 300), ("MME", "MME", 1100, 50)], 0)
    path = write_chrome(events, tmp_path / "a.pt.trace.json.gz", INFO, flows=[(0, 1), (1, 2), (0, 99)])
    arrows = [row for row in document(path)["traceEvents"] if row["ph"] in "sf"]
    assert [(row["ph"], int(row["ts"] * 1000), row["pid"]) for row in arrows] == [("s", 999, 1), ("f", 1200, 2)]
    assert arrows[1]["bp"] == "e"
    assert arrows[0]["id"] == arrows[1]["id"]


def test_says_what_it_is_and_puts_the_rows_last(tmp_path: Path) -> None:
    found = document(write_chrome(table([("MME", "MME", 0, 1)]), tmp_path / "new" / "a.pt.trace.json.gz", INFO))
    assert list(found)[-1] == "traceEvents"
    about = found["otherData"]
    assert (about["evidence"], about["device"], about["schema"]) == (
        "measured",
        INFO.device,
        f"overlap.trace/{SCHEMA_VERSION}",
    )
    assert about["command"] == "overlap sweep"
    assert all(row["args"]["evidence"] == "measured" for row in found["traceEvents"] if row["ph"] == "X")


def test_equal_tables_give_equal_files(tmp_path: Path) -> None:
    events = table([("MME", "MME", 0, 1), ("TPC", "TPC 2", 0, 1)])
    first, second = (
        write_chrome(events, tmp_path / name, INFO) for name in ("a.pt.trace.json.gz", "b.pt.trace.json.gz")
    )
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [first.name, second.name]


def test_an_empty_table_makes_a_file(tmp_path: Path) -> None:
    assert read_chrome(write_chrome(empty(), tmp_path / "a.pt.trace.json.gz", INFO)).is_empty()


def test_a_folder_that_cannot_be_is_the_users_to_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match="cannot write"):
        write_chrome(empty(), tmp_path / "file" / "a.pt.trace.json.gz", INFO)


@pytest.mark.parametrize("time_ns", [0, 1, 999, 1000, EPOCH])
def test_micros_are_exact(time_ns: int) -> None:
    text = f"{time_ns // 1000}.{time_ns % 1000:03d}"
    assert bytes(micros_text(time_ns)) == text.encode()
    assert pl.select(micros(pl.lit(time_ns))).item() == text


NAMES = st.text(max_size=12) | st.sampled_from(
    ['a"b', "a\\b", "line\nbreak", "\x00\x1f\x7f", "größe µ × 𝔘", "}],{", "\ud7ff"]
)


@given(names=st.lists(NAMES, min_size=1, max_size=6))
def test_any_text_survives(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    events = table([("TPC", "TPC 2", 10 * i, 5) for i in range(len(names))])
    texts = pl.Series("name", names, dtype=pl.String)
    events = events.with_columns(texts, texts.alias("lane"), texts.alias("path"), texts.alias("kind"))
    path = write_chrome(events, tmp_path_factory.mktemp("trace") / "a.pt.trace.json.gz", INFO)
    assert read_chrome(path).equals(events)


def test_devices_are_processes_of_their_own(tmp_path: Path) -> None:
    events = pl.concat(table([("TPC", "TPC 2", 0, 5)]).with_columns(device=pl.lit(i, pl.Int32)) for i in (0, 3))
    path = write_chrome(events, tmp_path / "a.pt.trace.json.gz", INFO)
    names = [row["args"]["name"] for row in document(path)["traceEvents"] if row["name"] == "process_name"]
    assert names == ["device 0 TPC", "device 3 TPC"]
    assert read_chrome(path).equals(events)


def test_samples_are_steps_that_begin_where_their_time_does(tmp_path: Path) -> None:
    samples = pl.DataFrame(
        {"device": 0, "lane": "[D0] Cache Slice", "name": 'par"tial', "time_ns": [500, 700, 900], "value": [3, -2, 5]},
        schema=COUNTERS,
    )
    events = table([("MME", "MME", 600, 1000)], 0)
    path = write_chrome(events, tmp_path / "a.pt.trace.json.gz", INFO, samples=samples)
    rows = [row for row in document(path)["traceEvents"] if row["ph"] == "C" and "Cache" in row["name"]]
    # Times are since the first sample, which is before the first row.
    assert [(int(row["ts"] * 1000), row["args"]["value"]) for row in rows] == [(0, 3), (0, -2), (200, 5), (400, 0)]
    assert {row["name"] for row in rows} == {'[D0] Cache Slice par"tial'}
    assert read_chrome(path).equals(events)

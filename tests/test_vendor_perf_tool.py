"""The vendor's arithmetic, against what its tool printed in public."""

from __future__ import annotations

from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.analysis.partition import partition
from overlap.analysis.vendor.perf_tool import SUMMARY, Honest, host_times, perf_tool, vendor_times
from overlap.traces.schema import EVENTS, HOST, empty, filled

# habana_perf_tool on Gaudi2, Swin training, 3 active steps, in ms: HabanaAI/Gaudi-tutorials,
# PyTorch/Profiling_and_Optimization (first three: swin_profile; last two: outputs of its notebook, 2024-10 and later).
# device, total, ratio in %, MME, MME/TPC overlap, TPC total, DMA, Idle (None: no such line).
PUBLISHED = {
    "UNOPT": (288.393, 467.734, 61.66, 88.28, 57.94, 165.36, 29.43, 5.32),
    "1stOPT": (283.428, 312.020, 90.84, 88.26, 57.95, 165.50, 26.40, 3.26),
    "2ndOPT": (280.442, 305.698, 91.74, 88.22, 57.90, 165.44, 33.71, None),
    "2024-10": (193.314, 513.300, 37.66, 74.87, 46.48, 93.33, 22.79, 2.33),
    "New": (202.930, 716.607, 28.32, 78.11, 47.34, 98.75, 26.52, None),
}
MS = 1_000_000


@pytest.mark.parametrize("row", PUBLISHED.values(), ids=PUBLISHED)
def test_honest_times_turn_into_the_published_ones(row: tuple[float, ...]) -> None:
    device, total, ratio, mme, both, tpc_total, dma, idle = row
    ns = [round(value * MS) for value in (device, total, mme, tpc_total + both, both, dma)]
    found = vendor_times(Honest(*ns))
    assert found["Device/Host ratio"] / ns[1] == pytest.approx(ratio / 100, abs=5e-5)
    assert found["TPC total"] == pytest.approx(tpc_total * MS, abs=2)
    # Four printed figures, each rounded to 0.01 ms.
    assert found["Idle total"] == (None if idle is None else pytest.approx(idle * MS, abs=0.02 * MS))


@pytest.mark.parametrize("row", PUBLISHED.values(), ids=PUBLISHED)
def test_tpc_total_cannot_be_the_busy_time_of_the_tpc(row: tuple[float, ...]) -> None:
    """Were the overlap within `TPC total`, at least that much more of the device's time would have to be idle."""
    device, _, _, mme, both, tpc_total, dma, idle = row
    if idle is not None:
        assert mme + (tpc_total - both) + dma + idle < device - 40


def events(*rows: tuple[str, int, int]) -> pl.DataFrame:
    """Event table from (engine, start, end)."""
    return filled(
        pl.DataFrame(
            [{"engine": engine, "lane": engine, "start_ns": start, "end_ns": end} for engine, start, end in rows],
            schema_overrides=EVENTS,
        )
    )


def host(*rows: tuple[str, int, int]) -> pl.DataFrame:
    """Host table from (name, start, end)."""
    return filled(pl.DataFrame(rows, schema=["name", "start_ns", "end_ns"], orient="row"), HOST)


def test_both_readings_side_by_side() -> None:
    frame = perf_tool(
        events(("MME", 10, 50), ("TPC", 30, 70), ("DMA", 60, 80)),
        host(("enumerate(DataLoader)#1", 0, 5), ("aten::copy_", 4, 12), ("Torch-Compiled Region: 0/0", 0, 100)),
        (0, 100),
    )
    assert frame.schema == SUMMARY
    found = {row["name"]: (row["vendor_ns"], row["honest_ns"]) for row in frame.iter_rows(named=True)}
    assert found == {
        "Device/Host ratio": (70, 70),
        "MME total": (40, 40),
        "MME/TPC overlap": (20, 20),
        "TPC total": (20, 40),
        "DMA total": (20, 20),
        "Idle total": (None, 30),
        "MME Lower Precision Ratio": (None, None),
        "Graph Build": (None, None),
        "DataLoader": (None, 5),
        "Input Time": (None, 8),
        "Compile Time": (None, 0),
        "Device-Host overlapping degree": (None, 70),
    }
    assert host_times(frame) == {"DataLoader": 5, "Input Time": 8, "Compile Time": 0}


def test_device_time_is_the_span_within_each_step() -> None:
    steps = pl.DataFrame({"start_ns": [0, 50, 90], "end_ns": [50, 90, 100]})
    frame = perf_tool(events(("MME", 10, 20), ("TPC", 40, 60), ("MME", 70, 80)), empty(HOST), (0, 100), steps)
    ratio = frame.row(0, named=True)
    assert ratio["vendor_ns"] == (50 - 10) + (80 - 50) + 0
    assert ratio["vendor_share"] == 0.7
    assert ratio["honest_ns"] == 40


def test_without_host_rows_the_host_lines_say_why() -> None:
    frame = perf_tool(events(("MME", 0, 1)), empty(HOST), (0, 1))
    lines = frame.filter(pl.col("name").is_in(["DataLoader", "Compile Time", "Device-Host overlapping degree"]))
    assert lines["honest_ns"].null_count() == lines.height == 3
    assert set(lines["relation"]) == {"The trace has no host rows."}


def test_an_empty_window_has_no_shares() -> None:
    frame = perf_tool(empty(), empty(HOST), (0, 0))
    assert frame["honest_share"].drop_nulls().to_list() == [0.0] * 6
    assert frame["vendor_share"].null_count() == frame.height


def test_steps_that_overlap_on_the_device_count_once() -> None:
    table = events(("MME", 0, 200))
    steps = pl.DataFrame({"start_ns": [0, 100], "end_ns": [110, 200]})
    lines = dict(perf_tool(table, empty(HOST), (0, 200), steps).select("name", "vendor_ns").iter_rows())
    assert (lines["Device/Host ratio"], lines["Idle total"]) == (200, 0)


ROWS = st.lists(st.tuples(st.sampled_from(["MME", "TPC", "DMA"]), st.integers(0, 60), st.integers(0, 20)), max_size=12)
CUTS = st.lists(st.integers(0, 80), unique=True, max_size=5).map(sorted)


@given(ROWS, CUTS)
def test_laws(rows: list[tuple[str, int, int]], cuts: list[int]) -> None:
    table = events(*((engine, start, start + length) for engine, start, length in rows)) if rows else empty()
    window = (0, 80)
    edges = [0, *(cut for cut in cuts if 0 < cut < 80), 80]
    steps = pl.DataFrame({"start_ns": edges[:-1], "end_ns": edges[1:]})
    part, frame = partition(table, window), perf_tool(table, empty(HOST), window, steps)
    theirs = dict(frame.select("name", "vendor_ns").iter_rows())
    ours = dict(frame.select("name", "honest_ns").iter_rows())
    assert ours["TPC total"] == theirs["TPC total"] + theirs["MME/TPC overlap"]
    assert ours["Idle total"] == part.idle_ns
    spans = []
    for low, high in pairwise(edges):
        busy = [now for _, start, length in rows for now in range(max(start, low), min(start + length, high))]
        spans.append(max(busy) + 1 - min(busy) if busy else 0)
    assert theirs["Device/Host ratio"] == sum(spans)

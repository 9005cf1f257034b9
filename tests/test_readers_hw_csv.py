"""Hardware profiler CSV. Rows made here are SYNTHETIC; the sample pair is real (Gaudi3)."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.errors import TraceError
from overlap.traces.readers.hw_csv import read_hw_csv
from overlap.traces.readers.table import micros_as_ns
from overlap.traces.schema import COUNTERS, EVENTS
from overlap.traces.trace import Tally, Trace
from tests.gaudi_samples import HEADER, RAW, csv, row, sample, tpc


def read(data: bytes) -> tuple[Trace, Tally]:
    tally = Tally()
    return read_hw_csv(data, "x_hw_prof_accel0_001.csv", tally), tally


def sound_or_refused(data: bytes) -> bool:
    """Whether the file gives tables that keep their rules, or an error that says something."""
    try:
        trace, _ = read(data)
    except TraceError as error:
        return bool(str(error))
    lasting = trace.events.filter(pl.col("end_ns") < pl.col("start_ns")).is_empty()
    return lasting and trace.events.schema == EVENTS and trace.counters.schema == COUNTERS


def spans(trace: Trace) -> list[tuple[str, int, int]]:
    return trace.events.select("lane", "start_ns", "end_ns").rows()


def test_the_real_sample_is_read_whole() -> None:
    trace, tally = read(sample(RAW))
    assert trace.events.schema == EVENTS
    assert trace.events.group_by("engine").len().sort("engine").rows() == [("MME", 8), ("TPC", 48)]
    assert tally.dropped == {}
    assert trace.about.rows == 276
    assert trace.about.devices == {0: "accel0"}
    # One launch per node: its 48 activations run one into the other on 48 lanes.
    assert trace.events.group_by("name").agg(pl.col("op_id").n_unique()).sort("name")["op_id"].to_list() == [1, 1]
    assert trace.events["start_ns"][0] == 554804519937
    tails = trace.events.filter(pl.col("engine") == "TPC")
    mean = tails.select((pl.col("tail_ns") - pl.col("start_ns")).mean()).item()
    assert mean == pytest.approx(2013.8, abs=0.1)
    assert tails["tail_ns"].max() == 554804527555
    assert trace.events.filter(pl.col("engine") == "MME")["tail_ns"].unique().to_list() == [-1]


def test_wrapped_counters_of_the_real_sample_are_negative_numbers() -> None:
    counters = read(sample(RAW))[0].counters
    assert counters.schema == COUNTERS
    assert counters.height == 38
    assert -201 in counters["value"].to_list()
    assert counters.filter(pl.col("lane").str.contains("Cache Slice")).height == 8


def test_gaudi2_names_are_read_the_same_way() -> None:
    rows = [
        row("g", "MME 0", "BEGIN", "1.000000", "START_EVENT"),
        row("g", "MME 0", "BEGIN", "2.000000", "START_EVENT"),
        row("g", "MME 0", "END", "5.000000", "MMEH_WB0_MON_TS_BIT1"),
        row("g", "MME 0", "END", "6.000000", "MMEH_WB1_MON_TS_BIT1"),
        row("d", "EDMA 1", "BEGIN", "1.500000", "DBG_DMA_TRC_RD_FRST_ADDR_PUSH"),
        row("d", "EDMA 1", "END", "2.500000", "DBG_DMA_TRC_WR_DATA_LAST"),
        *tpc("t", "TPC 23", "3.000000", "3.250000"),
    ]
    trace, tally = read(csv(*rows))
    assert trace.events.select("engine", "start_ns", "end_ns").rows() == [
        ("MME", 1000, 5000),
        ("DMA", 1500, 2500),
        ("MME", 2000, 6000),
        ("TPC", 3000, 3250),
    ]
    assert tally.dropped == {}


def test_marks_counters_and_software_rows_are_no_activity() -> None:
    rows = [
        row("n", "NIC 3", "BEGIN", "1.0", "STM_0_RX_CMD"),
        row("n", "NIC 3", "END", "1.1", "STM_0_RX_CMD"),
        row("recipe a", "ENG ARC 0", "INSTANT", "1.0", Trace_Source="SW"),
        row("only begun", "TPC 7", "BEGIN", "1.2", "TPC_SPU_START"),
        *tpc("t", "TPC 1", "2.0", "3.0"),
        row("t", "TPC 1", "BEGIN", "2.5", "TPC_BMON_START"),
        row("c", "TPC 1", "COUNTER", "2.7", "SPMU", SPMU_value="18446744073709551415"),
        row("b", "TPC 1", "COUNTER", "2.8", "BMON", BMON_min="1", BMON_max="9"),
        row("empty", "TPC 1", "COUNTER", "2.9", "SPMU"),
    ]
    trace, tally = read(csv(*rows))
    assert spans(trace) == [("TPC 1", 2000, 3000)]
    assert tally.dropped == {"start-only mark": 3, "row of another monitor": 1, "counter without a value": 1}
    assert trace.about.extra["recipe_starts"] == {"recipe a": 1}
    assert trace.counters.select("name", "value").rows() == [("c", -201), ("b max", 9), ("b min", 1)]


def test_window_edges_are_counted_and_shift_nothing() -> None:
    rows = [
        row("t", "TPC 1", "END", "1.0", "TPC_SPU_START_TO_SPU_HALT"),
        *tpc("t", "TPC 1", "2.0", "3.0"),
        *tpc("t", "TPC 1", "4.0", "5.0"),
        row("t", "TPC 1", "BEGIN", "6.0", "TPC_SPU_START"),
    ]
    trace, tally = read(csv(*rows))
    assert spans(trace) == [("TPC 1", 2000, 3000), ("TPC 1", 4000, 5000)]
    assert tally.dropped == {"begin without end": 1, "end without begin": 1}


def test_an_end_before_its_begin_is_never_a_negative_duration() -> None:
    trace, _ = read(csv(*tpc("x", "TPC 0", "9.0", "2.0"), *tpc("y", "TPC 1", "1.0", "2.0")))
    assert (trace.events["end_ns"] >= trace.events["start_ns"]).all()
    assert spans(trace) == [("TPC 1", 1000, 2000)]


def test_the_context_and_node_tell_rows_of_a_lane_apart() -> None:
    header = HEADER + ",Unique Node ID"
    rows = [
        row("a", "MME 0", "BEGIN", "1.0", "START_EVENT") + ",5",
        row("b", "MME 0", "BEGIN", "2.0", "START_EVENT") + ",6",
        row("b", "MME 0", "END", "3.0", "MMEH_WB0_MON_TS_BIT1") + ",6",
        row("", "MME 0", "END", "4.0", "MMEH_WB0_MON_TS_BIT1") + ",5",
    ]
    trace, _ = read(csv(*rows, header=header))
    assert trace.events.select("name", "start_ns", "end_ns").rows() == [("a", 1000, 4000), ("b", 2000, 3000)]


def test_a_write_belongs_to_its_activation() -> None:
    write = "TPC_END_OF_KERNEL_MESSAGE_WRITE"
    rows = [
        row("t", "TPC 1", "INSTANT", "0.5", write),
        *tpc("t", "TPC 1", "1.0", "2.0"),
        *tpc("t", "TPC 1", "2.5", "3.0"),
        row("t", "TPC 1", "INSTANT", "2.75", write),
        row("t", "TPC 1", "INSTANT", "3.5", write),
        *tpc("t", "TPC 1", "5.0", "6.0"),
    ]
    trace, tally = read(csv(*rows))
    assert trace.events["tail_ns"].to_list() == [2750, 3500, -1]
    assert tally.dropped == {"write without activation": 1}


def test_a_node_that_comes_again_after_another_is_another_op() -> None:
    rows = [
        *tpc("x", "TPC 0", "1.0", "2.0"),
        *tpc("x", "TPC 1", "1.5", "2.5"),
        *tpc("y", "TPC 0", "3.0", "4.0", Context_ID="1"),
        *tpc("x", "TPC 1", "5.0", "6.0"),
    ]
    assert read(csv(*rows))[0].events["op_id"].to_list() == [0, 0, 1, 2]


@pytest.mark.parametrize("end", [0, 1, 40, len(HEADER), len(HEADER) + 1])
def test_a_file_without_rows_is_refused_with_a_hint(end: int) -> None:
    with pytest.raises(TraceError) as caught:
        read((HEADER + "\n").encode()[:end])
    assert caught.value.hint


@pytest.mark.parametrize("data", [b"\x00\x01\xff\xfe,,\n\x93", b"PK\x03\x04" + bytes(200), b"\n\n\n", b'"', b'a,"b\n1'])
def test_junk_is_refused_with_a_hint(data: bytes) -> None:
    with pytest.raises(TraceError) as caught:
        read(data)
    assert caught.value.hint


def test_times_that_are_none_are_counted() -> None:
    rows = [
        *tpc("a", "TPC 0", "soon", "2.0"),
        *tpc("b", "TPC 1", "1e0", "2.5E+0"),
        row("c", "TPC 0", "BEGIN", "9" * 30),
    ]
    trace, tally = read(csv(*rows))
    assert spans(trace) == [("TPC 1", 1000, 2500)]
    assert tally.dropped == {"row without a time or an engine": 2, "end without begin": 1}
    with pytest.raises(TraceError, match="no activity: 2 x row without a time"):
        read(csv(*tpc("a", "TPC 0", "soon", "later")))


def test_a_cut_row_is_left_out_and_every_cut_of_the_file_is_survived() -> None:
    data = csv(*tpc("a", "TPC 0", "1.5", "2.5"), *tpc("b", "TPC 0", "3.5", "4.5"))
    trace, tally = read(data[:-120])
    assert spans(trace) == [("TPC 0", 1500, 2500)]
    assert tally.dropped["row that the file breaks off in"] == 1
    for end in range(0, len(data), 11):
        assert sound_or_refused(data[:end])


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_of_any_kind_raise_nothing_else(junk: bytes) -> None:
    for data in (junk, csv(*tpc("a", "TPC 0", "1.5", "2.5")) + junk, HEADER.encode() + b"\n" + junk):
        assert sound_or_refused(data)


def test_decimals_become_ns_exactly_where_doubles_would_not() -> None:
    texts = [
        "9007199254740.993500",
        "-1.0005",
        "0.0004999999",
        "0.0005",
        "5.5e8",
        "1e99",
        "nan",
        "",
        "7",
        " 2.5 ",
        "1,5",
    ]
    found = micros_as_ns(pl.Series("t", texts))
    assert found.to_list() == [9007199254740994, -1001, 0, 1, 550000000000, None, None, None, 7000, 2500, None]


def test_devices_are_told_apart() -> None:
    rows = [*tpc("a", "TPC 0", "1.0", "3.0"), *tpc("a", "TPC 0", "2.0", "4.0", Device="accel5")]
    trace, _ = read(csv(*rows))
    assert trace.events.select("device", "start_ns", "end_ns").rows() == [(0, 1000, 3000), (5, 2000, 4000)]
    assert trace.about.devices == {0: "accel0", 5: "accel5"}


def test_many_rows_are_all_paired() -> None:
    """40,000 rows, a fraction of a second where nothing is done row by row."""
    rows = [line for k in range(20_000) for line in tpc(f"n{k % 7}", f"TPC {k % 24}", f"{k}.25", f"{k}.75")]
    trace, tally = read(csv(*rows))
    assert trace.events.height == 20_000
    assert tally.dropped == {}

"""Advice has a number that the trace allows, or it is not given."""

from __future__ import annotations

import polars as pl
import pytest

from overlap.analysis.advice import Advice, Advised, advise
from overlap.analysis.advice_rules import Findings
from overlap.analysis.lane_use import lane_use
from overlap.analysis.ops import op_table
from overlap.analysis.partition import partition
from overlap.traces.schema import EVENTS, empty, filled

Row = tuple[str, str, int, int]


def events(*rows: Row, lanes: int = 1) -> pl.DataFrame:
    """Event table from (engine, kind, start, end), each row an op on `lanes` lanes."""
    found = [
        {"engine": engine, "lane": f"{engine} {lane}", "name": kind, "kind": kind, "op_id": op, "start_ns": start,
         "end_ns": end}
        for op, (engine, kind, start, end) in enumerate(rows)
        for lane in range(lanes)
    ]  # fmt: skip
    return filled(pl.DataFrame(found, schema_overrides=EVENTS)) if found else empty()


def asked(table: pl.DataFrame, **more: object) -> Advised:
    return advise(Findings(partition(table), op_table(table), **more))


def titled(advised: Advised, start: str) -> Advice:
    return next(one for one in advised.advice if one.title.startswith(start))


def gap_frame(*gaps: tuple[int, str]) -> pl.DataFrame:
    rows = [(length, size, "gemm", "softmax") for length, size in gaps]
    return pl.DataFrame(rows, schema=["length_ns", "size", "before", "after"], orient="row")


def test_a_serial_attention_block() -> None:
    table = events(
        ("MME", "qk", 0, 300), ("TPC", "softmax", 300, 500), ("MME", "pv", 500, 800), ("TPC", "norm", 800, 900)
    )
    advised = asked(table)
    assert (advised.window_ns, advised.least_window_ns) == (900, 600)
    beside = titled(advised, "Run vector work")
    assert (beside.saves_at_most_ns, beside.of_window) == (300, pytest.approx(1 / 3))
    assert beside.evidence[0] == "exposed MME 600 ns, exposed TPC 300 ns"
    assert beside.evidence[1] == "`softmax` on TPC: 200 ns exposed in 1 op"
    assert "split.chunks" in beside.knob
    assert titled(advised, "Make the softmax").saves_at_most_ns == 200
    assert [one.saves_at_most_ns for one in advised.advice] == [300, 200]


def test_work_advice_is_not_limited_by_the_engine_that_it_relieves() -> None:
    """The TPC fills the window, so no order helps; a cheaper softmax does."""
    advised = asked(events(("TPC", "softmax", 0, 600), ("TPC", "norm", 600, 1000), ("MME", "qk", 0, 100)))
    assert [(one.title, one.saves_at_most_ns) for one in advised.advice] == [("Make the softmax cheaper", 500)]


def test_work_advice_is_limited_by_the_other_engines() -> None:
    advised = asked(events(("TPC", "softmax", 0, 500), ("DMA", "load", 0, 800), ("MME", "qk", 500, 1000)))
    one = titled(advised, "Make the softmax")
    assert one.saves_at_most_ns == 200
    assert one.evidence[-1] == "500 ns found, cut to 200 ns: what the busiest engine leaves of the window"


def test_gaps_by_size() -> None:
    table = events(("MME", "a", 0, 400), ("MME", "b", 700, 1000))
    advised = asked(table, gaps=gap_frame((250, "macro"), (30, "micro"), (20, "micro")))
    assert titled(advised, "Keep the device fed").saves_at_most_ns == 250
    assert titled(advised, "Keep the device fed").evidence[1] == "longest 250 ns, from `gemm` to `softmax`"
    assert titled(advised, "Close the small").saves_at_most_ns == 50
    assert titled(advised, "Close the small").evidence[0] == "2 micro gaps, 50 ns in all"


def test_what_the_host_did_counts_only_while_the_device_was_idle() -> None:
    table = events(("MME", "a", 0, 400), ("MME", "b", 700, 1000))
    advised = asked(table, host_ns={"Compile Time": 5000, "DataLoader": 3})
    assert [(one.title[:7], one.saves_at_most_ns) for one in advised.advice] == [("Compile", 300)]


def test_copies_and_the_network() -> None:
    table = events(
        ("MME", "gemm", 0, 500),
        ("DMA", "load", 400, 600),
        ("NIC", "all_reduce", 600, 700),
        ("TPC", "transpose", 700, 900),
    )
    advised = asked(table)
    assert titled(advised, "Hide or avoid").saves_at_most_ns == 100
    assert titled(advised, "Hide the network").saves_at_most_ns == 100
    assert "attn_batch_split" in titled(advised, "Hide the network").knob
    assert titled(advised, "Avoid copies").saves_at_most_ns == 200


def test_phases_are_believed_over_names() -> None:
    table = events(("TPC", "fused_kernel_0x1", 0, 100), ("TPC", "softmax_like", 100, 200))
    ops = op_table(table).with_columns(pl.Series("attention_phase", ["softmax", "other"]))
    advised = advise(Findings(partition(table), ops))
    assert titled(advised, "Make the softmax").evidence == ("`fused_kernel_0x1` on TPC: 100 ns exposed in 1 op",)


def test_empty_lanes() -> None:
    wide = events(("TPC", "norm", 0, 100), lanes=4)
    narrow = events(("TPC", "index", 100, 500)).with_columns(pl.lit(9, dtype=pl.Int64).alias("op_id"))
    table = pl.concat([wide, narrow])
    use = lane_use(table, op_table(table))
    assert use.row(0, named=True) == {
        "engine": "TPC", "kind": "index", "ops": 1, "lanes": 4, "mean_lanes": 1.0, "duration_ns": 400,
        "exposed_ns": 400, "lane_ns": 400, "spare_ns": 300,
    }  # fmt: skip
    one = titled(asked(table, lane_use=use), "Fill the lanes")
    assert one.saves_at_most_ns == 300
    assert one.evidence == ("`index`: 1.0 of 4 lanes on average over 400 ns",)


def test_streams_are_no_lanes_of_one_op() -> None:
    table = pl.concat([events(("TPC", "a", 0, 9)), events(("TPC", "b", 9, 20))]).with_columns(
        pl.Series("op_id", [0, 1]), pl.Series("lane", ["stream 7", "stream 8"])
    )
    assert lane_use(table, op_table(table)).is_empty()


def test_what_cannot_be_said_is_a_note() -> None:
    advised = asked(events(("FUSED", "flash", 0, 600), ("OTHER", "x", 600, 604), ("MME", "qk", 604, 1000)))
    assert advised.advice == ()
    assert [note[:30] for note in advised.notes] == ["600 ns (60.0 % of the window) "]


def test_an_empty_trace_gets_no_advice() -> None:
    assert asked(empty()) == Advised((), (), 0, 0)

"""The profiler's own Chrome JSON. All rows are SYNTHETIC: no real file of this kind is public."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.errors import TraceError
from overlap.traces.readers.tef import ns_of_values, read_tef
from overlap.traces.schema import COUNTERS, EVENTS, HOST
from overlap.traces.trace import Tally, Trace

NAMES = [
    {"ph": "M", "name": "process_name", "pid": 7, "args": {"name": "*TPC (accel3)"}},
    {"ph": "M", "name": "process_name", "pid": 6, "args": {"name": "*MME (accel3)"}},
    {"ph": "M", "name": "process_name", "pid": 9, "args": {"name": "***Host"}},
    {"ph": "M", "name": "thread_name", "pid": 7, "tid": 1, "args": {"name": "[HD0] TPC 1"}},
    {"ph": "M", "name": "thread_name", "pid": 6, "tid": 1, "args": {"name": "[HD0] MME"}},
]


def read(*rows: Any, names: list[dict[str, Any]] = NAMES) -> tuple[Trace, Tally]:
    tally = Tally()
    return read_tef([*rows, *names], {"displayTimeUnit": "ns", "traceEvents": []}, "x.json", tally), tally


def half(ph: str, ts: Any, pid: int = 7, context: int = 0, **more: Any) -> dict[str, Any]:
    return {"ph": ph, "ts": ts, "pid": pid, "tid": 1, "id": context, "name": "block/0/attn/softmax", **more}


def test_halves_pair_by_thread_recipe_and_context() -> None:
    args = {"op": "softmax_fwd_bf16", "recipe id": 60931}
    trace, tally = read(
        half("E", 0.5, args=args),
        half("B", 1.5, args=args),
        half("B", 2.5, context=4, args=args),
        half("E", 3.5, context=4, args=args),
        half("E", 4.5, args=args),
        half("B", 1.0, pid=6, name="mm", args={"op": "GEMM", "recipe id": 60931}),
        half("E", 2.0, pid=6, args={"op": "GEMM", "recipe id": 60931}),
        half("B", 9.5, args=args),
    )
    assert trace.events.schema == EVENTS
    assert trace.events.select("engine", "lane", "kind", "path", "start_ns", "end_ns", "device").rows() == [
        ("MME", "[HD0] MME", "GEMM", "", 1000, 2000, 3),
        ("TPC", "[HD0] TPC 1", "softmax_fwd_bf16", "block/0/attn/softmax", 1500, 4500, 3),
        ("TPC", "[HD0] TPC 1", "softmax_fwd_bf16", "block/0/attn/softmax", 2500, 3500, 3),
    ]
    assert tally.dropped == {"begin without end": 1, "end without begin": 1}
    assert trace.about.devices == {3: "accel3"}
    assert trace.about.extra == {"displayTimeUnit": "ns"}


def test_ends_without_args_pair_too() -> None:
    trace, tally = read(half("B", 1, args={"recipe_id": 1}), half("E", 2), half("B", 3, args=None), half("E", "4.0005"))
    assert trace.events.select("start_ns", "end_ns").rows() == [(1000, 2000), (3000, 4001)]
    assert "3 of 4 begins and ends name no recipe" in tally.warnings[0]


def test_whole_rows_marks_and_the_host_find_their_places() -> None:
    trace, tally = read(
        {**half("X", 1.0, dur=2.5), "args": {"HW event name": "TPC_SPU_START_TO_SPU_HALT"}},
        {**half("X", 1.0, dur=0.1), "args": {"HW event name": "TPC_SPU_START"}},
        half("X", 5.0, dur=-1),
        half("X", 5.0),
        half("X", None, dur=1),
        half("B", 1.0, pid=9, name="synLaunch"),
        half("B", 2.0, pid=9, name="inner"),
        half("E", 3.0, pid=9),
        half("E", 9.0, pid=9),
        half("X", 1.0, dur=2, pid=55),
        7,
        {"ph": 3},
    )
    assert trace.events.select("start_ns", "end_ns").rows() == [(1000, 3500)]
    assert trace.host.schema == HOST
    assert trace.host.select("name", "kind", "thread", "start_ns", "end_ns").rows() == [
        ("synLaunch", "host_api", "***Host/1", 1000, 9000),
        ("inner", "host_api", "***Host/1", 2000, 3000),
    ]
    assert tally.dropped == {
        "row that is no event": 2,
        "row of a process that is no device": 1,
        "start-only mark": 1,
        "row of negative or unknown duration": 2,
        "row without a time": 1,
    }


def test_counters_keep_their_samples_and_lose_their_wrap() -> None:
    spmu = {"ph": "C", "cat": "SPMU", "pid": 7, "tid": 1, "name": "[21] stalls"}
    trace, tally = read(
        {**spmu, "ts": 2.0, "args": {"[21] stalls": 18446744073709551415}},
        {**spmu, "ts": 1.0, "args": {"value": "12"}},
        {**spmu, "cat": "BMON", "name": "bus", "ts": 3.0, "args": {"Min": 1, "Max": 2.0, "Avg": None}},
        {**spmu, "cat": "memory", "ts": 4.0, "args": {"x": 1}},
        {**spmu, "ts": 5.0, "args": {}},
    )
    assert trace.counters.schema == COUNTERS
    assert trace.counters.select("lane", "name", "time_ns", "value").rows() == [
        ("[HD0] TPC 1", "[21] stalls", 1000, 12),
        ("[HD0] TPC 1", "[21] stalls", 2000, -201),
        ("[HD0] TPC 1", "bus Min", 3000, 1),
        ("[HD0] TPC 1", "bus Max", 3000, 2),
    ]
    assert tally.dropped == {"counter of another kind": 1, "counter without a time or a value": 1}
    assert "1 of 4 counter samples" in tally.warnings[0]


def test_spans_of_the_light_template_say_that_they_are_recipes() -> None:
    trace, tally = read(half("B", 1.0, name="Busy TPC"), half("E", 3.0, name="Busy TPC"))
    assert trace.events["kind"].to_list() == ["busy"]
    assert "1 of 1 rows are `Busy` spans" in tally.warnings[0]


def test_times_are_exact_whatever_json_made_of_them() -> None:
    values = [554804527.286214, 554804527, "554804527.286214", 1e300, float("nan"), None, True, "soon", [1], -0.5]
    assert ns_of_values(values) == [554804527286, 554804527000, 554804527286, *([None] * 6), -500]


def test_rows_without_a_device_are_refused_with_a_hint() -> None:
    for rows in ([], [half("X", 1.0, dur=2.0, pid=9)], [half("B", 1.0)], ["x"]):
        with pytest.raises(TraceError) as caught:
            read(*rows)
        assert caught.value.hint


JSON = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)
)
ROW = st.fixed_dictionaries(
    {"ph": st.sampled_from("BEXCM"), "ts": JSON, "pid": st.sampled_from([6, 7, 9])},
    optional={
        "dur": JSON,
        "tid": JSON,
        "id": JSON,
        "name": JSON,
        "cat": st.sampled_from(["SPMU", "BMON"]),
        "args": JSON | st.dictionaries(st.sampled_from(["recipe id", "op", "name", "v"]), JSON),
    },
)


@settings(max_examples=200, deadline=None)
@given(st.lists(ROW | JSON, max_size=12))
def test_json_of_any_kind_raises_nothing_else(rows: list[Any]) -> None:
    with contextlib.suppress(TraceError):
        trace, _ = read(*rows)
        assert (trace.events["end_ns"] >= trace.events["start_ns"]).all()

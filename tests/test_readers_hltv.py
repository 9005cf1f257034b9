"""`.hltv` archives. All of them are SYNTHETIC: no real one is public."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import zipfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.errors import TraceError
from overlap.traces.readers.hltv import read_hltv
from overlap.traces.trace import Tally, Trace

NODE = {
    "Unit": "MME",
    "Node Name": "mm iter 2",
    "Unique node id": 5,
    "Op Type": "gemm",
    "Start time of node": 10.0,
    "End time of node": 12.5,
    "Active (us)": 2.0,
    "Input shapes": "[]",
}
GRAPH = {
    "graphs": [
        {
            "name": "g",
            "recipe_debug_id": 60931,
            "nodes": [
                {
                    "id": 5,
                    "name": "mm",
                    "guid": "gemm",
                    "engine": "MME",
                    "context_id": 1,
                    "input_tensors": ["a", "b"],
                    "output_tensors": ["c"],
                },
                {"id": 6, "name": "view", "is_logical": True},
            ],
            "tensors": [
                {"name": "a", "max_shape": [64, 128], "dtype": "bf16"},
                {"name": "b", "max_shape": [32, 64], "dtype": "bf16"},
                {"name": "c", "max_shape": [32, 128], "dtype": "float32"},
            ],
        }
    ]
}
HOST = {"traceEvents": [{"ph": "X", "name": "synLaunch", "ts": 1.5, "dur": 2, "pid": 1, "tid": 2, "args": {}}]}
STATE = {"host_device_time_diff": [{"die": [{"first": {"host": 1}, "second": {"host": 9}}]}], "Module id": 3}
WHOLE: dict[str, Any] = {
    "views/trace_analyzer.json": {"analyzer_metadata": [NODE]},
    "prof-data/post-graph/g.json": GRAPH,
    "prof-data/host/host_trace.json": HOST,
    "prof-data/profile_state.json": STATE,
    "prof-data/bin/s_hw_prof_accel0_1.bin": b"\0" * 1000,
    "../../etc/passwd": b"x",
}


def packed(members: dict[str, Any], kind: str = "zip") -> bytes:
    """An archive of `members`; what is no bytes becomes JSON."""
    contents = {name: one if isinstance(one, bytes) else json.dumps(one).encode() for name, one in members.items()}
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            for name, content in contents.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def read(data: bytes, limit_bytes: int = 1 << 20) -> tuple[Trace, Tally]:
    tally = Tally()
    return read_hltv(data, "x.hltv", tally, limit_bytes), tally


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("folder", ["", "./", "capture/"])
def test_all_members_come_together(kind: str, folder: str) -> None:
    trace, tally = read(packed({folder + name: content for name, content in WHOLE.items()}, kind))
    assert trace.events.select("engine", "name", "start_ns", "end_ns").rows() == [("MME", "mm iter 2", 10000, 12500)]
    node = trace.nodes.row(0, named=True)
    # The file has the fastest dimension first.
    assert node["input_shapes"] == "[[128, 64], [64, 32]]"
    assert node["output_shapes"] == "[[128, 32]]"
    assert (node["input_dtype"], node["output_dtype"], node["recipe_id"], node["context_id"]) == (
        "bf16",
        "float32",
        60931,
        1,
    )
    assert trace.host.select("name", "kind", "start_ns", "end_ns").rows() == [("synLaunch", "host_api", 1500, 3500)]
    assert trace.about.extra["calibration"] == STATE["host_device_time_diff"]
    assert trace.about.extra["module_id"] == 3
    assert any("1 raw recordings (1,000 bytes)" in warning for warning in tally.warnings)


@pytest.mark.parametrize("name", [name for name in WHOLE if name.endswith(".json")])
@pytest.mark.parametrize("broken", [b"{", b"", b"\xff\x00", b"[[[[", b'{"graphs": [3], "traceEvents": [null]}'])
def test_a_broken_member_costs_no_more_than_itself(name: str, broken: bytes) -> None:
    trace, _ = read(packed({**WHOLE, name: broken}))
    rows = {"views": trace.events.height, "host": trace.host.height, "graph": int("recipe_id" in trace.nodes.columns)}
    assert sum(rows.values()) >= 2


def test_a_broken_member_is_named() -> None:
    assert any(
        "host_trace.json" in w for w in read(packed({**WHOLE, "prof-data/host/host_trace.json": b"{"}))[1].warnings
    )


def test_graphs_alone_are_a_table_without_a_timeline() -> None:
    trace, tally = read(packed({"prof-data/post-graph/g.json": GRAPH}))
    assert trace.events.is_empty()
    assert trace.nodes["name"].to_list() == ["mm"]
    assert any("no timeline" in warning for warning in tally.warnings)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bomb_is_not_decompressed(kind: str) -> None:
    bomb = {
        "views/trace_analyzer.json": WHOLE["views/trace_analyzer.json"],
        "prof-data/post-graph/b.json": bytes(1 << 22),
    }
    trace, tally = read(packed(bomb, kind))
    assert trace.events.height == 1
    assert any("larger than 1,048,576 bytes" in warning for warning in tally.warnings)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        b"PK\x03\x04",
        b"PK\x03\x04" + bytes(99),
        b"\x1f\x8b",
        b"\x1f\x8b" + bytes(99),
        packed({}, "tar"),
        packed({"readme.txt": b"x"}),
        packed({"views/trace_analyzer.json": b"{"}),
    ],
)
def test_bad_archives_are_refused_with_a_hint(data: bytes) -> None:
    with pytest.raises(TraceError) as caught:
        read(data)
    assert caught.value.hint


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["zip", "tar"]), st.integers(0, 4000), st.binary(max_size=20))
def test_damage_anywhere_raises_nothing_else(kind: str, position: int, junk: bytes) -> None:
    data = packed(WHOLE, kind)
    for damaged in (data[:position], data[:position] + junk + data[position + len(junk) :]):
        with contextlib.suppress(TraceError):
            read(damaged)

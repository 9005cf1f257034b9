"""Kineto files of every make and in every state; all files here are SYNTHETIC."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from overlap.analysis.partition import partition
from overlap.errors import TraceError
from overlap.traces.engines import engine_rules
from overlap.traces.read import read_trace
from overlap.traces.readers import parts
from overlap.traces.readers.kineto import read_kineto
from overlap.traces.readers.links import product_work
from overlap.traces.readers.stream import Stream
from overlap.traces.schema import EVENTS, HOST
from overlap.traces.trace import Tally, Trace
from tests.kineto_files import ADD, BASE_NS, FLASH, cuda_rows, document, host, hpu_rows, kernel, saved

WHOLE = {"MME": 10249, "TPC": 19749, "FUSED": 8000, "DMA": 5001, "NIC": 15000, "MME+TPC": 20251, "idle": 11750}


def read(tmp_path: Path, content: Any, name: str = "a.json") -> Trace:
    """The trace of a file with `content`."""
    return read_trace(saved(tmp_path / name, content))


def parts_of(trace: Trace) -> dict[str, int]:
    """Partition of all that is there."""
    return dict(partition(trace.events).parts_ns)


@pytest.mark.parametrize("name", ["a.json", "a.pt.trace.json.gz", "no suffix at all"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_cuda_trace(tmp_path: Path, name: str, indent: int | None) -> None:
    trace = read(tmp_path, json.dumps(document(cuda_rows()), indent=indent), name)
    assert trace.events.schema == EVENTS
    assert trace.host.schema == HOST
    assert parts_of(trace) == WHOLE
    assert (trace.about.format, trace.about.evidence, trace.about.rows) == ("kineto", "measured", 11)
    assert trace.about.devices == {0: "NVIDIA H100"}
    assert trace.about.origin_ns == BASE_NS
    assert (trace.about.dropped, trace.about.warnings) == ({}, ())
    first = trace.events.row(0, named=True)
    assert (first["lane"], first["start_ns"], first["end_ns"], first["path"]) == ("stream 7", 10001, 40501, "aten::mm")
    assert (first["flops"], first["bytes"]) == (2 * 4 * 8 * 2, 4 * (4 * 8 + 8 * 2 + 4 * 2))
    assert trace.events["bytes"].to_list()[-1] == 2048


def test_the_old_schema(tmp_path: Path) -> None:
    rows = cuda_rows()
    for row in rows:
        row["cat"] = {"kernel": "Kernel", "cpu_op": "Operator", "cuda_runtime": "Runtime", "gpu_memcpy": "Memcpy"}.get(
            row.get("cat", ""), row.get("cat", "")
        )
        if row["pid"] == 0:
            row["tid"] = f"stream {row['tid']}"
            row["ts"] = int(row["ts"]) + 1621401187224556
        if "External id" in row.get("args", {}):
            row["args"]["external id"] = row["args"].pop("External id")
    found = read(tmp_path, {"schemaVersion": 1, "computeProperties": [{"id": 0, "name": "V100"}], "traceEvents": rows})
    assert found.about.devices == {0: "V100"}
    assert found.events["lane"].unique().sort().to_list() == ["stream 13", "stream 21", "stream 7"]
    assert found.events["start_ns"][0] == 1621401187224566000
    assert found.events["path"][0] == "aten::mm"


def test_times_of_any_size_keep_their_ns(tmp_path: Path) -> None:
    texts = ["1767189312000123.457", "1767189312000200.001", "17", "18.5", "8796093022209.123"]
    rows = ",".join(
        f'{{"ph":"X","cat":"kernel","name":"gemm","pid":0,"tid":7,"ts":{text},"dur":0.001,"args":{{}}}}'
        for text in texts
    )
    found = read(tmp_path, f'{{"traceEvents":[{rows}]}}')
    expected = sorted(int(text.replace(".", "").ljust(len(text.split(".")[0]) + 3, "0")) for text in texts)
    assert found.events["start_ns"].to_list() == expected
    assert (found.events["end_ns"] - found.events["start_ns"]).to_list() == [1] * 5


@pytest.mark.parametrize(
    "text",
    [
        lambda rows: json.dumps(rows),
        lambda rows: json.dumps(rows)[:-1],
        lambda rows: json.dumps(rows)[:-1] + ",\n",
        lambda rows: "\ufeff \n" + json.dumps(rows, indent=1),
    ],
    ids=["bare array", "unclosed array", "unclosed with comma", "byte order mark"],
)
def test_arrays_without_an_object(tmp_path: Path, text: Any) -> None:
    found = read(tmp_path, text(cuda_rows()))
    assert parts_of(found) == WHOLE
    assert found.about.rows == 11


def test_what_json_forbids_is_read_all_the_same(tmp_path: Path) -> None:
    text = json.dumps(
        document([*cuda_rows(), kernel("bad\x01name \\ud800 ü", 0, 1, occupancy=0.125)]), ensure_ascii=False
    )
    text = text.replace("\\u0001", "\x01").replace("\\\\ud800", "\\ud800").replace("0.125", "-nan(ind)")
    found = read(tmp_path, text.encode().replace("ü".encode(), b"\xff"))
    assert found.events.height == 6
    assert found.events["name"][0].startswith("bad name")
    assert not found.about.dropped


def test_odd_types_do_not_cost_a_row(tmp_path: Path) -> None:
    rows = cuda_rows()
    rows[6]["ts"], rows[6]["dur"] = "10.001", "30.5"
    rows[7]["args"] = None
    rows[8]["pid"] = [1, {"a": 2}]
    rows[9]["args"] = "text"
    rows[10]["args"]["correlation"] = 2**64 - 1
    found = read(tmp_path, document(rows))
    assert parts_of(found) == WHOLE
    assert found.events["correlation"].to_list()[-1] == -1


def test_a_row_that_cannot_be_read_is_counted(tmp_path: Path) -> None:
    text = json.dumps(document(cuda_rows()), indent=1)
    broken = text.replace('"void pytorch_flash', '"void "quoted" pytorch_flash')
    found = read(tmp_path, broken)
    assert found.about.dropped == {"unreadable row": 1}
    assert found.events.height == 4
    assert found.about.devices == {0: "NVIDIA H100"}


def test_rows_without_a_possible_time_are_counted(tmp_path: Path) -> None:
    rows = [
        kernel("gemm", 5, 1),
        kernel("gemm", 5, -3),
        kernel("gemm", 1e30, 1),
        kernel("gemm", 5, 1e300),
        kernel("gemm", 9, 0),
    ]
    del rows[0]["dur"]
    found = read(tmp_path, document(rows))
    assert found.about.dropped == {
        "device row of negative or unknown duration": 3,
        "device row without a possible time": 1,
    }
    assert found.events["start_ns"].to_list() == [9000]


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_a_file_cut_anywhere_gives_what_is_there_and_says_so(tmp_path: Path, cut: float) -> None:
    rows = [kernel(ADD, 10 * i, 5, correlation=i) for i in range(200)]
    text = json.dumps(document(rows), indent=1)
    text = text[: int(len(text) * cut)]
    found = read(tmp_path, text)
    assert abs(found.events.height - 200 * cut) < 5
    (warning,) = found.about.warnings
    assert "not closed" in warning
    assert f"{found.about.rows:,} rows are there" in warning


@pytest.mark.parametrize("cut", [40, 400])
def test_a_cut_gzip_gives_what_is_there(tmp_path: Path, cut: int) -> None:
    rows = [kernel(ADD, 10 * i, 5 + i % 7, correlation=i * 7919 % 1000) for i in range(2000)]
    packed = gzip.compress(json.dumps(document(rows)).encode())
    found = read(tmp_path, packed[:-cut], "a.bin")
    assert 0 < found.events.height <= 2000
    assert any("gzip" in warning for warning in found.about.warnings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b" \n\t ", "empty"),
        (b"{}", "without `traceEvents`"),
        (b'{"a": [1, 2', "without `traceEvents`"),
        (b"hello, world\n", "not a trace"),
        (b"\x00\x01\x02" * 50, "not a trace"),
        ("{}".encode("utf-16"), "UTF-16"),
        (gzip.compress(b"text"), "not a trace"),
        (b"\x1f\x8b", "empty"),
        (b"PAR1 but not", "Parquet"),
        (b"PK\x03\x04 but not", "archive|zip"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        read(tmp_path, content)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(TraceError, match="cannot read"):
            read_trace(path)


def test_a_trace_of_the_host_alone_has_no_events(tmp_path: Path) -> None:
    found = read(tmp_path, document([host("aten::mm", "cpu_op", 1, 5)]))
    assert found.events.is_empty()
    assert found.host.height == 1


@pytest.mark.parametrize("cats", [("kernel", "hpu_op"), ("Kernel", "Runtime")], ids=["plug-in", "legacy merge"])
def test_hpu_in_both_flavours(tmp_path: Path, cats: tuple[str, str]) -> None:
    found = read(tmp_path, {"deviceProperties": [{"name": "GAUDI3"}], "traceEvents": hpu_rows(*cats), "traceName": "x"})
    assert parts_of(found) == {"MME": 6000, "TPC": 6000, "DMA": 3000, "MME+TPC": 4000, "idle": 0}
    assert found.about.dropped == {"start-only mark": 1}
    assert found.about.devices == {0: "GAUDI3"}
    rows = found.events.select("engine", "lane", "name", "kind", "layer", "phase")
    assert rows.row(0) == ("MME", "[HD0] MME", "layers/1/self_attn/matmul_qk/batch_gemm/4", "BatchGemm", 1, "qk")
    softmax = found.events.filter(pl.col("engine") == "TPC")
    assert softmax["op_id"].n_unique() == 1, "one kernel on two lanes is one op"
    assert [name for name in found.host["name"] if name != "LaunchRecipe"] == []


def test_hpu_lanes_without_names_are_known_by_their_numbers(tmp_path: Path) -> None:
    rows = [row for row in hpu_rows() if row["ph"] == "X"]
    for row in rows:
        row["args"].pop("HW event name", None)
    found = read(tmp_path, rows)
    assert dict(found.events.group_by("engine").len().rows()) == {"MME": 1, "TPC": 3, "DMA": 1}
    assert set(found.events["lane"]) == {"MME 0", "TPC 0", "TPC 1", "EDMA 0"}


def test_rows_that_begin_and_end_are_paired_on_the_host(tmp_path: Path) -> None:
    def half(ph: str, name: str, ts: float) -> dict[str, Any]:
        return {"ph": ph, "cat": "Runtime", "name": name, "pid": 9, "tid": 9, "ts": ts}

    halves = [
        half("E", "cut", 0),
        half("B", "run", 1),
        half("B", "inner", 2),
        half("E", "inner", 3),
        half("E", "run", 5),
    ]
    found = read(tmp_path, document([*halves, half("B", "open", 7), kernel(ADD, 0, 1)]))
    assert sorted(found.host.select("name", "start_ns", "end_ns").rows()) == [
        ("inner", 2000, 3000),
        ("run", 1000, 5000),
    ]
    assert found.about.dropped == {"end without begin": 1, "begin without end": 1}


def test_a_kernel_knows_the_modules_it_was_launched_from(tmp_path: Path) -> None:
    rows = [
        host("nn.Module: Model_0", "python_function", 0, 100),
        host("nn.Module: DecoderLayer_3", "python_function", 10, 50),
        host("nn.Module: Attention_3", "python_function", 12, 20),
        host("aten::softmax", "cpu_op", 40, 5),
        host("cudaLaunchKernel", "cuda_runtime", 41, 1, correlation=8),
        host("cudaLaunchKernel", "cuda_runtime", 80, 1, correlation=9),
        kernel(ADD, 200, 5, correlation=8, **{"External id": -1}),
        kernel(ADD, 210, 5, correlation=9, **{"External id": -1}),
    ]
    found = read(tmp_path, document(rows))
    assert found.events["path"].to_list() == ["Model_0/DecoderLayer_3/aten::softmax", "Model_0"]
    assert found.events["layer"].to_list() == [3, -1]


def test_parts_of_a_file_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row
        for i in range(400)
        for row in (
            host(f"op{i % 9}", "cpu_op", 10 * i, 3, **{"External id": i}),
            kernel(ADD, 10 * i + 1, 5, correlation=i),
        )
    ]
    rows[100]["args"]["nested"] = [{"a": 1}, {"b": [{"c": 2}, {"d": 3}]}]
    path = saved(tmp_path / "a.json", json.dumps(document(rows), indent=1))
    whole = read_kineto(Stream(path), engine_rules(), Tally())
    monkeypatch.setattr(parts, "_cores", lambda: 5)
    part = parts.gather_in_parts(Stream(path), part_bytes=path.stat().st_size // 5)
    assert part is not None
    monkeypatch.setattr("overlap.traces.readers.kineto.gather_in_parts", lambda stream: part)
    again = read_kineto(Stream(path), engine_rules(), Tally())
    assert again.events.equals(whole.events)
    assert again.host.equals(whole.host)
    assert again.about == whole.about


def test_parts_give_way_where_a_row_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [kernel(ADD, 10 * i, 5) for i in range(100)]
    path = saved(tmp_path / "a.json", json.dumps(document(rows)).replace('"ts": 500', '"ts": "x'))
    monkeypatch.setattr(parts, "_cores", lambda: 4)
    assert parts.gather_in_parts(Stream(path), part_bytes=path.stat().st_size // 4) is None


def test_blocks_of_any_size_give_the_same(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.json", json.dumps(document(cuda_rows()), indent=1))
    whole = read_trace(path)
    for size in (7, 64, 300, 1000):
        found = read_kineto(Stream(path, size), engine_rules(), Tally())
        assert found.events.drop("layer", "phase").equals(whole.events.drop("layer", "phase")), size


def test_streams_with_large_numbers_are_no_lanes_of_a_gaudi(tmp_path: Path) -> None:
    found = read(tmp_path, document([kernel(ADD, 0, 5, stream=6001), kernel(FLASH, 9, 5, stream=7002)]))
    assert found.events.select("engine", "lane").rows() == [("TPC", "stream 6001"), ("FUSED", "stream 7002")]


@pytest.mark.parametrize("device", [2**40, -5, "zero", None])
def test_devices_that_cannot_be_are_those_of_their_process(tmp_path: Path, device: Any) -> None:
    found = read(tmp_path, document([{**kernel(ADD, 0, 5, device=device), "pid": 3}]))
    assert found.events["device"].to_list() == [3]


@pytest.mark.parametrize(
    ("dims", "types", "work"),
    [
        ([[4, 8], [8, 2]], ["float", "float"], (128, 4 * (32 + 16 + 8))),
        ([[2], [4, 8], [8, 2], [], []], ["float", "c10::BFloat16", "c10::BFloat16", "Scalar", "Scalar"], (128, 2 * 56)),
        ([[3, 4, 8], [3, 8, 2]], ["c10::Half", "c10::Half"], (384, 3 * 2 * 56)),
        (
            [[4, 8], [8, 2], [4, 1], [1, 2]],
            ["c10::Float8_e4m3fn", "c10::Float8_e4m3fn", "float", "float"],
            (128, 48 + 16),
        ),
        ([[4, 8], [8, 2]], ["mystery", "float"], (128, -1)),
        ([[4, 8], [7, 2]], ["float", "float"], None),
        ([[4, 8]], ["float"], None),
        ("no list", ["float"], None),
    ],
)
def test_flops_and_bytes_of_a_product(dims: Any, types: Any, work: tuple[int, int] | None) -> None:
    assert product_work(json.dumps(dims).encode(), json.dumps(types).encode()) == work


def test_rows_of_an_unknown_category_are_counted(tmp_path: Path) -> None:
    rows = [kernel(ADD, 0, 5), host("x", "brand_new", 1, 2), host("y", "", 1, 2), host("z", "Trace", 0, 9)]
    found = read(tmp_path, document(rows))
    assert found.about.dropped == {"row of the unknown category `brand_new`": 1, "row without a category": 1}


def test_a_row_of_years_is_dropped_and_counted(tmp_path: Path) -> None:
    found = read(tmp_path, document([kernel(ADD, 0, 5), kernel(ADD, 0, 1e15)]))
    assert found.about.dropped == {"device row that lasts longer than a day": 1}
    assert parts_of(found) == {"TPC": 5000, "idle": 0}

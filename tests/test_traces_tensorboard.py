"""Traces for the TensorBoard plug-in, opened by the plug-in's own loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from overlap.analysis.ops import op_table
from overlap.analysis.partition import partition
from overlap.traces.chrome import TraceInfo
from overlap.traces.schema import filled
from overlap.traces.tensorboard import write_tensorboard

# The plug-in's last release is from before pandas 3, which warns about an argument that pandas 4 will drop.
pytestmark = pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")

INFO = TraceInfo("host (test, 1+1 threads)", "measured", memory_bytes=8 << 30)


def event(op_id: int, engine: str, start_us: int, length_us: int) -> dict[str, Any]:
    """One row; times in µs from an origin far from zero."""
    start = 10**15 + start_us * 1000
    known = {"engine": engine, "lane": f"{engine} 0", "name": f"op{op_id}", "kind": "work", "op_id": op_id, "layer": 0}
    times = {"chunk": 0, "phase": "attn", "start_ns": start, "end_ns": start + length_us * 1000}
    return {**known, **times, "correlation": -1, "flops": -1, "bytes": -1}


def run() -> pl.DataFrame:
    """MME busy 70 %, TPC 50 %, both 30 %, DMA 10 %, of 1 ms; two ops overlap in one lane of the TPC."""
    rows = [event(0, "MME", 0, 700), event(1, "TPC", 400, 300), event(2, "TPC", 600, 300), event(3, "DMA", 900, 100)]
    return filled(pl.DataFrame(rows))


def opened(folder: Path) -> Any:
    """What the plug-in makes of the only file in `folder`."""
    data = pytest.importorskip("torch_tb_profiler.profiler.data", reason="needs the extra `tensorboard`")
    (path,) = folder.iterdir()
    return data.RunProfileData.parse("kept", "1", str(path), str(folder))


def test_the_plug_in_sees_each_engine_as_a_device(tmp_path: Path) -> None:
    events = run()
    path = write_tensorboard(events, tmp_path, INFO, worker="kept", time_ns=123)
    assert path.name == "kept.123.pt.trace.json.gz"
    found = opened(tmp_path)
    names = [device["name"] for device in found.device_props]
    assert names == [f"{engine} of {INFO.device}" for engine in ("MME", "TPC", "DMA")]
    cut = partition(events)
    shown = found.gpu_metrics_parser.gpu_utilization
    assert shown[0] == pytest.approx(cut.fraction(cut.busy_ns("MME")))
    assert shown[1] == pytest.approx(cut.fraction(cut.busy_ns("TPC")))
    assert found.gpu_metrics_parser.gpu_ids == {0, 1, 2}


def test_the_plug_in_gives_every_op_its_device_time(tmp_path: Path) -> None:
    events = run()
    write_tensorboard(events, tmp_path, INFO, worker="kept", time_ns=1)
    found = {op.name: op.device_duration for op in opened(tmp_path).op_list_groupby_name}
    wanted = {row["name"]: row["duration_ns"] / 1000 for row in op_table(events).iter_rows(named=True)}
    assert found == pytest.approx(wanted)


def test_an_engine_without_rows_keeps_its_number(tmp_path: Path) -> None:
    write_tensorboard(run().filter(engine="TPC"), tmp_path, INFO, worker="kept", time_ns=1)
    found = opened(tmp_path)
    assert found.gpu_metrics_parser.gpu_ids == {1}
    assert found.device_props[1]["name"].startswith("TPC")


def test_a_worker_is_a_file_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        write_tensorboard(run(), tmp_path, INFO, worker="../kept", time_ns=1)

"""Scalars and hparams, read back by TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from overlap.errors import RunDirError
from overlap.traces.scalars import ScalarRow, write_scalars

ROWS = [
    ScalarRow("baseline", {"chunks": 1, "softmax": "exact", "fused_sdpa": False}, {"speedup": 1.0}, [10.0, 11.0]),
    ScalarRow("chunks=4 lag=1", {"chunks": 4, "softmax": "fast", "fused_sdpa": False}, {"speedup": 1.5}, [7.0]),
]


def test_scalars_and_hparams_can_be_read(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    plugin_data = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    write_scalars(ROWS, tmp_path)
    write_scalars(ROWS, tmp_path)  # again: replaces, does not add
    assert sorted(path.name for path in tmp_path.iterdir()) == [row.name for row in ROWS]
    for row in ROWS:
        read = accumulator.EventAccumulator(str(tmp_path / row.name))
        read.Reload()
        assert [point.value for point in read.Scalars("sample_us")] == list(row.samples_us)
        assert read.Scalars("speedup")[0].value == row.metrics["speedup"]
        content = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        start = plugin_data.HParamsPluginData.FromString(content).session_start_info
        assert start.hparams["chunks"].number_value == row.hparams["chunks"]
        assert start.hparams["softmax"].string_value == row.hparams["softmax"]


def test_a_folder_that_cannot_be_is_the_users_to_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match="cannot write"):
        write_scalars(ROWS, tmp_path / "file")

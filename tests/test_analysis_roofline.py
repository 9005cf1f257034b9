"""Rates of ops under the peaks of their device."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.analysis.roofline import Peaks, all_peaks, find_peaks, roofline

PEAKS = Peaks("toy", "toy", matrix_tflops=100, memory_gb_per_s=1000, source="made up", vector_tflops=2)


def ops(rows: list[tuple[str, int, int, int]]) -> pl.DataFrame:
    """Ops from (engine, duration_ns, flops, bytes)."""
    schema = {"engine": pl.String, "duration_ns": pl.Int64, "flops": pl.Int64, "bytes": pl.Int64}
    named = pl.DataFrame(rows, schema=schema, orient="row").with_row_index("row")
    return named.with_columns(name=pl.format("op{}", "row"), kind=pl.lit("k")).drop("row")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GAUDI2", "Gaudi2"),
        ("Intel Gaudi 3 HL-325L", "Gaudi3"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB SXM"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB PCIe"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("nvidia h200", "H200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GB200", None),
        ("AMD Instinct MI300X", "MI300X"),
        ("AMD Instinct MI250X", "MI250X, one die"),
        ("host (AMD EPYC, 1+1 threads)", None),
        ("", None),
    ],
)
def test_devices_by_name(name: str, expected: str | None) -> None:
    found = find_peaks(name)
    assert (found.name if found else None) == expected


def test_every_device_has_a_source_and_sane_peaks() -> None:
    for one in all_peaks():
        assert len(one.source) > 20
        assert one.matrix_tflops > one.vector_tflops > 0
        # Every one of them needs between 100 and 600 flops per byte to keep its matrix engine busy.
        assert 100 < one.matrix_tflops * 1e12 / one.bytes_per_s < 600


def test_compute_and_memory_bound_ops() -> None:
    rows = [("MME", 1000, 50_000_000, 100_000), ("TPC", 400, 200_000, 300_000), ("TPC", 300, 0, 150_000)]
    found = roofline(ops(rows), PEAKS)
    assert found["limit"].to_list() == ["compute", "memory", "memory"]
    assert found["of_roof"].to_list() == pytest.approx([0.5, 0.75, 0.5])
    assert found["flops_per_byte"].to_list() == pytest.approx([500, 2 / 3, 0])
    assert found["tflops_per_s"].to_list() == pytest.approx([50, 0.5, 0])
    assert found["gb_per_s"].to_list() == pytest.approx([100, 750, 500])
    assert found["flops_per_s"].to_list() == pytest.approx([50e12, 0.5e12, 0])


@given(st.lists(st.tuples(st.sampled_from(["MME", "TPC", "FUSED"]), *[st.integers(-1, 10**9)] * 3), max_size=10))
def test_the_share_is_of_the_lower_roof(rows: list[tuple[str, int, int, int]]) -> None:
    found = roofline(ops(rows), PEAKS)
    assert found.height == sum(ns > 0 and flops >= 0 and size > 0 for _, ns, flops, size in rows)
    for row in found.filter(pl.col("flops") > 0).iter_rows(named=True):
        peak = PEAKS.flops_per_s[row["engine"]]
        roof = min(peak, row["flops_per_byte"] * PEAKS.bytes_per_s)
        assert row["of_roof"] == pytest.approx(row["flops_per_s"] / roof)
        assert (row["limit"] == "memory") == (roof < peak)


def test_without_peaks_there_are_still_rates() -> None:
    rows = [("MME", 1000, 50_000_000, 100_000)]
    for peaks, engine in ((None, "MME"), (PEAKS, "DMA")):
        row = roofline(ops([(engine, *rows[0][1:])]), peaks).row(0, named=True)
        assert (row["of_roof"], row["limit"], row["tflops_per_s"]) == (None, None, 50)
    assert roofline(ops([]), None).schema == roofline(ops(rows), PEAKS).schema

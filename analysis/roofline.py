"""How close ops come to what their device can do.

Terms
    roof time of an op: the least time for its flops at the peak of its engine and for its bytes at the peak of the
        memory, whichever is longer; that one is its `limit` (compute or memory).
    of_roof: roof time / duration. It equals flops per s / min(peak, flops per byte x bandwidth) where there are flops.

Contract: ops whose flops, bytes or duration are unknown or zero (flops may be zero: a copy) are left out. of_roof above
1 is not clipped: it says that flops, bytes or the peak are wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import msgspec
import polars as pl


class Peaks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One device of `peaks.yaml`; `vector_tflops` is 0 where nothing is public."""

    name: str
    pattern: str
    matrix_tflops: float
    memory_gb_per_s: float
    source: str
    vector_tflops: float = 0.0
    vector_dtype: str = ""

    @property
    def flops_per_s(self) -> dict[str, float]:
        """Peak by engine; a fused kernel is measured against the matrix engine, which does nearly all of its flops."""
        matrix, vector = self.matrix_tflops * 1e12, self.vector_tflops * 1e12
        known = {"MME": matrix, "TPC": vector, "FUSED": matrix}
        return {engine: peak for engine, peak in known.items() if peak}

    @property
    def bytes_per_s(self) -> float:
        """Peak of the memory."""
        return self.memory_gb_per_s * 1e9


@dataclass(frozen=True)
class _PeakFile:
    peaks: list[Peaks]


@cache
def all_peaks() -> tuple[Peaks, ...]:
    """The devices of `peaks.yaml`, in its order."""
    text = files("overlap.analysis").joinpath("peaks.yaml").read_bytes()
    return tuple(msgspec.yaml.decode(text, type=_PeakFile).peaks)


def find_peaks(device_name: str) -> Peaks | None:
    """Peaks of the first device whose pattern is found in `device_name`; None for an unknown one."""
    found = (one for one in all_peaks() if re.search(one.pattern, device_name, re.IGNORECASE))
    return next(found, None)


def roofline(ops: pl.DataFrame, peaks: Peaks | None) -> pl.DataFrame:
    """Rates of every op whose flops and bytes are known, longest duration first.

    Args:
        ops: an `op_table`, or any frame with `name, engine, kind, duration_ns, flops, bytes`.
        peaks: of the device, see `find_peaks`; without them `of_roof` and `limit` are null.

    Returns:
        `name, engine, kind, duration_ns, flops, bytes, flops_per_byte, tflops_per_s, gb_per_s, flops_per_s, of_roof,
        limit`; `flops_per_s` is `tflops_per_s` in the unit of `figures.roofline_plot`. of_roof and limit are null for
        an engine without a peak.
    """
    flops, size, spent_s = pl.col("flops"), pl.col("bytes"), pl.col("duration_ns") / 1e9
    by_engine = {} if peaks is None else peaks.flops_per_s
    peak = pl.col("engine").replace_strict(by_engine, default=None, return_dtype=pl.Float64)
    compute_s, memory_s = flops / peak, size / (peaks.bytes_per_s if peaks else 1.0)
    longer = pl.when(compute_s >= memory_s).then(pl.lit("compute")).otherwise(pl.lit("memory"))
    return (
        ops.filter((flops >= 0) & (size > 0) & (pl.col("duration_ns") > 0))
        .select(
            "name", "engine", "kind", "duration_ns", "flops", "bytes",
            (flops / size).alias("flops_per_byte"),
            (flops / spent_s / 1e12).alias("tflops_per_s"),
            (size / spent_s / 1e9).alias("gb_per_s"),
            (flops / spent_s).alias("flops_per_s"),
            pl.when(peak.is_not_null()).then(pl.max_horizontal(compute_s, memory_s) / spent_s).alias("of_roof"),
            pl.when(peak.is_not_null()).then(longer).alias("limit"),
        )
        .sort("duration_ns", "name", descending=[True, False])
    )  # fmt: skip

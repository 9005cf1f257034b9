"""GEMMs in isolation.

Terms
    thin: few rows, so that reading the weights takes all of the time. Sources give such weights in bytes only; the
        depth is then that of the projection, or assumed, which hardly matters to a GEMM that waits for memory.
"""

from __future__ import annotations

from overlap.devices.gaudi.validation.calls import Gemm, Term
from overlap.devices.gaudi.validation.cases import Case
from overlap.devices.gaudi.validation.models import find_model
from overlap.devices.gaudi.validation.readers.units import measure
from overlap.devices.gaudi.validation.rows import Inexpressible, Row

DTYPES = {"bf16": "bf16", "bf16 (assumed)": "bf16", "fp8": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "fp32": "fp32"}
BYTES = {"bf16": 2, "fp8": 1, "fp32": 4}
THIN_ROWS = 64
ASSUMED_DEPTH = 4096


def read_gemm(row: Row) -> Case:
    """A row that gives `M`: with `N` and `K`, or with the bytes of the weights."""
    if row.unit.startswith("%") or "fraction" in row.unit:
        raise Inexpressible("a share of a rate inside a larger recipe")
    dtype = DTYPES.get(row.dtype)
    if dtype is None:
        raise Inexpressible(f"dtype {row.dtype!r} of a GEMM")
    if "N" not in row.params and "K" not in row.params:
        return _by_bytes(row, dtype)
    m, n, k, batch = row.need("M"), row.need("N"), row.need("K"), row.count("E") or 1
    scaling = row.params.get("scaling")
    assumed = (f"{str(scaling).lower()} scaling costs nothing",) if scaling else ()
    return Case(
        row=row,
        kind="gemm_thin" if m <= THIN_ROWS else "gemm",
        terms=(Term(Gemm(dtype, m, n, k, batch)),),
        measure=measure(row, flops=2.0 * m * n * k * batch, nbytes=float(batch * n * k * BYTES[dtype])),
        workload=f"{m} x {k} x {n} {dtype}" + (f", {batch} of them" if batch > 1 else ""),
        assumed=assumed,
    )


def _by_bytes(row: Row, dtype: str) -> Case:
    nbytes = row.count("weight_bytes")
    if nbytes is None:
        raise Inexpressible("the sizes of a GEMM are not recorded")
    m, model = row.need("M"), row.params.get("model")
    assumed = ("the depth: only the bytes of the weights are known",)
    k = ASSUMED_DEPTH
    if isinstance(model, str):
        shape = find_model(model).shape
        k = shape.ffn if "down" in row.op else shape.hidden
        assumed = ("the width, from the bytes of the weights",)
    n = max(1, round(nbytes / BYTES[dtype] / k))
    return Case(
        row=row,
        kind="gemm_thin",
        terms=(Term(Gemm(dtype, m, n, k)),),
        measure=measure(row, nbytes=float(nbytes)),
        workload=f"{m} x {k} x {n} {dtype}",
        assumed=assumed,
    )

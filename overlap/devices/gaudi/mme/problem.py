"""What a GEMM is, and how it looks to the engine.

Terms
    C[m, n] = A[m, k] · B[k, n], once for every element of `batch`. `n` runs along a tile's width, `m` along its height.
    turned: an operand that the hardware transposes while it reads. Its natural row-major form is turned for A
        (ops ab, abt), and not for B (ops ab, atb).
    group: copies of the innermost batch dimension of A and C that share one B, as query heads share a KV head. It comes
        on top of `batch`: a problem is `m·n·k·group·prod(batch)` multiplications.
    flat: a group whose rows the engine stacks into one tall matrix; possible where A is turned.
"""

from __future__ import annotations

from math import prod
from operator import index
from typing import NamedTuple

from overlap.errors import ConfigError, WorkloadError
from overlap.similar import did_you_mean

ELEMENT_BYTES = {"bf16": 2, "fp16": 2, "fp8": 1, "tf32": 4, "fp32": 4}
ALIASES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
}
OPS = ("ab", "abt", "atb", "atbt")
# A descriptor counts elements and steps in 32 bits.
LARGEST = 2**31 - 1
# Tensors have five dimensions, two of which are the matrix.
BATCH_DIMS = 3


class Gemm(NamedTuple):
    """One batched GEMM; see the module for the terms.

    Args:
        dtype: of both inputs; a name of `ELEMENT_BYTES`, or one of torch's.
        op: how the inputs lie in memory: `t` follows the operand that is stored transposed.
        m: rows of one matrix of C.
        n: columns of C.
        k: depth, the common dimension.
        batch: up to three sizes, innermost first, without the group.
        group: matrices of A and C on top of `batch` that share one B.
    """

    dtype: str
    op: str
    m: int
    n: int
    k: int
    batch: tuple[int, ...] = (1, 1, 1)
    group: int = 1

    @property
    def macs(self) -> int:
        """Multiplications of the whole problem."""
        return self.m * self.n * self.k * self.group * prod(self.batch)


class Shape(NamedTuple):
    """A problem as the geometry rules see it: no dimensions of size 1, the group stacked where that is possible."""

    dtype: str
    element_bytes: int
    turned_a: bool
    turned_b: bool
    n: int
    k: int
    rows: int
    """Rows of C with the stacked group."""
    matrix_rows: int
    """Rows of C before the recipe stacks the group."""
    batch: tuple[int, int, int]
    """Batch dimensions of C, innermost first; a stacked group leaves a 1 in its place."""
    flat: bool
    shared_b: bool
    """Whether one B serves the whole innermost batch dimension."""

    @property
    def matrices(self) -> int:
        """Matrices that are still separate."""
        return prod(self.batch)


def checked(problem: Gemm) -> Gemm:
    """The same problem with the names and types of this package.

    Raises:
        ConfigError: no such dtype or op.
        WorkloadError: a size that no GEMM can have, or more dimensions than a tensor has.
    """
    dtype = str(problem.dtype).removeprefix("torch.")
    dtype = ALIASES.get(dtype, dtype)
    if dtype not in ELEMENT_BYTES:
        raise ConfigError(f"dtype {problem.dtype!r} of a GEMM", did_you_mean(dtype, list(ELEMENT_BYTES)))
    if problem.op not in OPS:
        raise ConfigError(f"op {problem.op!r} of a GEMM", did_you_mean(str(problem.op), OPS))
    try:
        batch = tuple(problem.batch)
    except TypeError:
        raise WorkloadError(f"batch of a GEMM is {problem.batch!r}", "a tuple of sizes, innermost first") from None
    m, n, k, group = (_size(name, getattr(problem, name)) for name in ("m", "n", "k", "group"))
    sizes = tuple(_size("batch", value) for value in batch)
    real = sum(size > 1 for size in (group, *sizes))
    if real > BATCH_DIMS:
        hint = f"a tensor has room for {BATCH_DIMS}, the group included; multiply some into one"
        raise WorkloadError(f"{real} batch dimensions of a GEMM", hint)
    return Gemm(dtype, problem.op, m, n, k, sizes, group)


def _size(name: str, value: object) -> int:
    try:
        size = index(value)  # type: ignore[arg-type]
    except TypeError:
        raise WorkloadError(f"{name} of a GEMM is {value!r}", "it must be a whole number") from None
    if not 1 <= size <= LARGEST:
        raise WorkloadError(f"{name} of a GEMM is {size}", f"it must be from 1 to {LARGEST}")
    return size


def shape_of(problem: Gemm) -> Shape:
    """How a checked problem looks to the engine."""
    turned_a = problem.op in ("ab", "abt")
    shared = problem.group > 1
    flat = shared and turned_a
    dims = [size for size in problem.batch if size > 1]
    if shared:
        dims.insert(0, 1 if flat else problem.group)
    dims += [1] * (BATCH_DIMS - len(dims))
    return Shape(
        dtype=problem.dtype,
        element_bytes=ELEMENT_BYTES[problem.dtype],
        turned_a=turned_a,
        turned_b=problem.op in ("abt", "atbt"),
        n=problem.n,
        k=problem.k,
        rows=problem.m * problem.group if flat else problem.m,
        matrix_rows=problem.m,
        batch=(dims[0], dims[1], dims[2]),
        flat=flat,
        shared_b=shared and not flat,
    )

"""Sizes and rates of memory, and what a GEMM reads and writes.

Terms
    die: memory on the chip; SRAM that the compiler fills (Gaudi2) or a cache (Gaudi3), of which a part is near.
    panel: the part of an operand that stays on the die while the other operand streams past it.

A GEMM whose slices fit the die twice (one in use, one on its way) reads its stationary operand once and the other once
per panel. If not even the slices of one output tile fit, operands stream from HBM tile by tile, which is why GEMMs
with a very large common dimension fall behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from overlap.devices.gaudi.mme import GemmCost
from overlap.devices.gaudi.mme.problem import ELEMENT_BYTES, Gemm


@dataclass(frozen=True)
class MemoryConstants:
    """`chips/*/memory.yaml`."""

    hbm_gib: float
    hbm_gb_per_s: float
    die_mib: float
    die_reserved_kib: float
    die_gb_per_s: float
    die_is_cache: bool
    near_mib: float
    far_slowdown: float
    line_bytes: int
    dma_engines: int
    dma_gb_per_s: float
    dma_node_ns: float
    workspace_mib: float

    @property
    def die_bytes(self) -> int:
        """Memory on the chip that programs can use."""
        return int(self.die_mib * 2**20 - self.die_reserved_kib * 2**10)

    def die_cost(self, nbytes: float) -> float:
        """Bytes that a transfer of `nbytes` counts as: what is too large for the near cache crosses the far one."""
        return nbytes if nbytes <= self.near_mib * 2**20 else nbytes * self.far_slowdown

    @property
    def hbm_bytes(self) -> int:
        """Memory beside the chip."""
        return int(self.hbm_gib * 2**30)

    @property
    def workspace_bytes(self) -> int:
        """What the software takes for itself."""
        return int(self.workspace_mib * 2**20)


def operand_bytes(memory: MemoryConstants, problem: Gemm, cost: GemmCost) -> int:
    """Bytes that a GEMM reads from memory for its two operands, over the whole batch."""
    itemsize = ELEMENT_BYTES[problem.dtype]
    a, b = problem.m * problem.group * problem.k * itemsize, problem.n * problem.k * itemsize
    tile = (cost.height + cost.width) * problem.k * itemsize
    panel = memory.die_bytes // 2
    if 2 * tile > memory.die_bytes:
        # Every tile of the result reads its rows of A and its columns of B anew.
        each = a * ceil(problem.n / cost.width) + b * ceil(problem.m * problem.group / cost.height)
    else:
        each = min(a + b * ceil(a / panel), b + a * ceil(b / panel))
    return each * prod(problem.batch)

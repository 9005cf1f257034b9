"""Sizes and rates of memory, and what a GEMM reads and writes.

Terms
    die: memory on the chip; SRAM that the compiler fills (Gaudi2) or a cache (Gaudi3), of which a part is near.
    panel: the part of an operand that stays on the die while the other operand streams past it.

A GEMM whose tiles leave room on the die reads its stationary operand once and the other once per panel. The more of the
die the operands of one output tile take, the more of them stream from HBM anew for every tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

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
    reuse_from: float
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


def operand_reads(memory: MemoryConstants, problem: Gemm, cost: GemmCost) -> tuple[float, float]:
    """How often a GEMM reads its operands A and B from memory."""
    itemsize = ELEMENT_BYTES[problem.dtype]
    rows = problem.m * problem.group
    a, b = rows * problem.k * itemsize, problem.n * problem.k * itemsize
    panel = memory.die_bytes // 2
    streamed = (ceil(problem.n / cost.width), ceil(rows / cost.height))
    panels = ((1, ceil(a / panel)), (ceil(b / panel), 1), streamed)
    kept = min(panels, key=lambda reads: reads[0] * a + reads[1] * b)
    share = reuse(memory, (cost.height + cost.width) * problem.k * itemsize)
    return (
        kept[0] * share + streamed[0] * (1.0 - share),
        kept[1] * share + streamed[1] * (1.0 - share),
    )


def reuse(memory: MemoryConstants, tile_bytes: int) -> float:
    """Share of the operands that is still on the die when the next tile wants it: 1 for small tiles, 0 for large.

    SRAM holds the operands of a tile twice, one being used and one on its way; a cache holds them once. Calibration
    knows two points: all of it where tiles take half the SRAM (GEMM-0210), nothing where they take all (GEMM-0212).
    """
    taken = tile_bytes * (1 if memory.die_is_cache else 2) / memory.die_bytes
    return min(1.0, max(0.0, (1.0 - taken) / (1.0 - memory.reuse_from)))

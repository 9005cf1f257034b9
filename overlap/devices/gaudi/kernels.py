"""What one kernel costs on its engine, whole or cut into equal slices; memory's own limits come on top.

A slice of a GEMM takes whole matrices of the batch while there are any, then rows; the other operand stays. A slice of
vector work takes a share of its rows. Costs are kept per kernel and number of slices, since the layers and chunks of a
model repeat the same few kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, gcd, prod
from typing import NamedTuple

import torch

from overlap.devices.gaudi import nic, tpc
from overlap.devices.gaudi.machine import Machine
from overlap.devices.gaudi.memory import operand_reads
from overlap.devices.gaudi.mme import cost as mme_cost
from overlap.devices.gaudi.mme.problem import Gemm
from overlap.program import CallWork, Engine, Geometry, Kernel, Op

# Added to the name of an op that the CPU computes.
CPU_PART = ".cpu"
DTYPES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.float8_e4m3fn: "fp8",
    torch.float8_e5m2: "fp8",
}
# Matrix calls that are given what they add before their operands.
ADDING = ("addmm", "baddbmm")

# (position of a ref, bytes) pairs.
Accesses = list[tuple[int, int]]


class KernelCost(NamedTuple):
    """Cost of one slice. `work_ns` is the engine alone, `fixed_ns` comes on top of every node.

    `port_gb_per_s` limits what vector work moves through the cores' own ports (0: no such limit). `reads` says how
    often each operand of a GEMM is read from memory, over all slices; `utilisation` is that of the MME; `unknown` names
    calls whose cost nobody has written down.
    """

    work_ns: float
    fixed_ns: float
    port_gb_per_s: float = 0.0
    reads: tuple[float, float] = (1.0, 1.0)
    utilisation: float = 1.0
    unknown: tuple[str, ...] = ()


class Costs:
    """Costs of kernels on one machine, computed once each."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._known: dict[tuple[str, str, int], KernelCost] = {}
        self._cuts: dict[str, int] = {}
        self._accesses: dict[str, tuple[Accesses, Accesses]] = {}

    def of(self, kernel: Kernel, calls: Sequence[CallWork], engine: Engine, slices: int, part: str = "") -> KernelCost:
        """Cost of one of `slices` equal parts of `calls`, which are those of `kernel` or the `part` of them."""
        key = (kernel.key + part, engine.value, slices)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._compute(kernel, calls, engine, slices, part)
        return found

    def accesses(self, op: Op) -> tuple[Accesses, Accesses]:
        """(ref, bytes) that an op reads, and that it writes in place; its kernel knows the geometry of refs.

        A matrix op's operand A, whose rows are sliced, comes first.
        """
        found = self._accesses.get(op.kernel.key)
        if found is None:
            reads, writes = ([(at, op.refs[at].bytes) for at in positions] for positions in (op.reads, op.writes))
            if any(call.name in ADDING for call in op.kernel.work[:1]):
                reads.append(reads.pop(0))
            found = self._accesses[op.kernel.key] = (reads, writes)
        return found

    def unknown_calls(self, kernel: Kernel) -> tuple[str, ...]:
        """Calls of a vector kernel whose cost nobody has written down."""
        if kernel.engine is not Engine.TPC:
            return ()
        return self.of(kernel, kernel.work, Engine.TPC, 1).unknown

    def most_slices(self, kernel: Kernel) -> int:
        """Into how many equal parts a kernel can be cut at most without losing tiles or splitting a reduction."""
        found = self._cuts.get(kernel.key)
        if found is None:
            found = self._cuts[kernel.key] = self._most_slices(kernel)
        return found

    def _compute(self, kernel: Kernel, calls: Sequence[CallWork], engine: Engine, slices: int, part: str) -> KernelCost:
        machine = self.machine
        if engine is Engine.MME:
            return self._gemms(calls, slices)
        if engine is Engine.NIC:
            nbytes = prod(calls[0].given[0].size) * calls[0].given[0].dtype.itemsize
            return KernelCost(nic.all_reduce_ns(machine.nic, nbytes, int(kernel.calls[0].args[1])), 0.0)
        if part == CPU_PART:
            host = machine.host
            copied_ns = (kernel.read_bytes + kernel.write_bytes) / host.pcie_gb_per_s
            return KernelCost(host.fallback_us * 1e3 + copied_ns, 0.0)
        if engine is Engine.DMA:
            moved = sum(prod(call.made[0].size) * call.made[0].dtype.itemsize for call in calls)
            return KernelCost(moved / slices / machine.memory.dma_gb_per_s, machine.memory.dma_node_ns)
        return self._vector(calls, slices)

    def _vector(self, calls: Sequence[CallWork], slices: int) -> KernelCost:
        constants = self.machine.tpc
        whole = tpc.vector_work(constants, calls)
        # The largest slice, so that no cut makes work vanish.
        units = ceil(whole.units / slices)
        work = tpc.VectorWork(whole.cycles * units / whole.units, units)
        port = tpc.port_gb_per_s(constants, work.units)
        return KernelCost(tpc.arithmetic_ns(constants, work), constants.node_ns, port, unknown=whole.unknown)

    def _gemms(self, calls: Sequence[CallWork], slices: int) -> KernelCost:
        """Several calls are the rows of a batch that one batched GEMM could not take; they run one after the other."""
        constants, memory = self.machine.gemm, self.machine.memory
        work, best = 0.0, 1.0
        read, whole = [0.0, 0.0], [0, 0]
        for call in calls:
            problem = gemm_of(call)
            part = sliced(problem, slices)
            cost = mme_cost(self.machine.mme, part)
            efficiency = constants.fp8_efficiency if part.dtype == "fp8" else constants.efficiency
            work += (cost.drained_ns if constants.rollup_follows_rows else cost.hw_ns) / efficiency
            best = min(best, cost.efficiency)
            a_reads, b_reads = operand_reads(memory, part, cost)
            a_bytes, b_bytes = (prod(one.size) * one.dtype.itemsize for one in operands(call))
            # Slices of rows share B: it stays if it fits, else each of them reads it.
            sharing = slices * prod(part.batch) // prod(problem.batch)
            stays = 2 * b_bytes <= memory.die_bytes
            read[0] += a_bytes * a_reads
            read[1] += b_bytes * b_reads * (1 if stays else max(1, sharing))
            whole[0] += a_bytes
            whole[1] += b_bytes
        reads = (read[0] / whole[0], read[1] / whole[1])
        return KernelCost(work, constants.node_ns, reads=reads, utilisation=best)

    def least_ns(self, kernel: Kernel) -> float:
        """Least work of a kernel on its engine, whole or cut in any way."""
        found, slices, most = float("inf"), 1, self.most_slices(kernel)
        while slices <= min(most, self.machine.compiler.max_slices):
            if self.divides(kernel, slices):
                found = min(found, slices * self.of(kernel, kernel.work, kernel.engine, slices).work_ns)
            slices += 1
        return found

    def divides(self, kernel: Kernel, slices: int) -> bool:
        """Whether a kernel can be cut into `slices` equal parts."""
        if slices == 1:
            return True
        if kernel.engine is not Engine.MME:
            return self.most_slices(kernel) % slices == 0
        problem = gemm_of(kernel.work[0])
        batch = prod(problem.batch)
        if batch % slices == 0:
            return True
        return slices % batch == 0 and problem.m % (slices // batch) == 0

    def _most_slices(self, kernel: Kernel) -> int:
        if kernel.engine is Engine.MME:
            problem = gemm_of(kernel.work[0]) if kernel.kind != "fused_attention" else None
            if problem is None or len(kernel.work) > 1:
                return 1
            tile = mme_cost(self.machine.mme, problem).height
            return prod(problem.batch) * max(1, problem.m // tile)
        rows = 0
        for call in kernel.work:
            here, _ = tpc.rows_and_vectors(self.machine.tpc, max(call.given + call.made, key=lambda g: prod(g.size)))
            rows = gcd(rows, here)
        return max(rows, 1)


def operands(call: CallWork) -> tuple[Geometry, Geometry]:
    """A and B of a matrix call; `addmm` and `baddbmm` are given what they add first, `out` comes last."""
    first = 1 if call.name in ADDING else 0
    return call.given[first], call.given[first + 1]


def gemm_of(call: CallWork) -> Gemm:
    """The problem of a matrix call, its layout read off the strides."""
    a, b = operands(call)
    layout = ("at" if _turned(a) else "a") + ("bt" if _turned(b) else "b")
    batch = a.size[:-2]
    return Gemm(DTYPES[a.dtype], layout, a.size[-2], b.size[-1], a.size[-1], batch or (1,))


def _turned(tensor: Geometry) -> bool:
    """Whether a matrix lies in memory column by column."""
    rows, columns = tensor.size[-2:]
    return rows > 1 and columns > 1 and tensor.stride[-1] != 1 and tensor.stride[-2] == 1


def sliced(problem: Gemm, slices: int) -> Gemm:
    """One of `slices` parts, the largest if they differ: whole matrices of the batch, or rows if those are too few."""
    if slices == 1:
        return problem
    batch = prod(problem.batch)
    if batch >= slices:
        return problem._replace(batch=(ceil(batch / slices),))
    by_batch = gcd(batch, slices)
    return problem._replace(batch=(batch // by_batch,), m=ceil(problem.m * by_batch / slices))

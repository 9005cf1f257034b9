"""Least times of a program's ops in any order.

Everything here must hold however the compiler bundles, so each op gets the best that it could have: the cut with the
least work, every operand on the die that might lie there, and no bandwidth taken by others. What no order avoids is
counted: the fixed cost of a node, inputs that come from HBM, and on chips without a cache what an MME unit hands to a
vector unit that feeds the MME again, since no bundle holds all three (`bundles.py`).
"""

from __future__ import annotations

from overlap.devices.gaudi.chains import attention_of
from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.settings import GaudiConfig
from overlap.devices.gaudi.simulate import rates_of, simulate
from overlap.devices.gaudi.threads import fused_threads, in_turns, number_nodes
from overlap.program import Engine, Op, Program, RootSpec


def least_times(program: Program, costs: Costs, config: GaudiConfig) -> list[int]:
    """Ns of every op."""
    read_bytes: dict[int, int] = {}
    for op in program.ops:
        for at in op.reads:
            ref = op.refs[at]
            read_bytes[ref.root] = read_bytes.get(ref.root, 0) + ref.bytes
    forced = _forced_bytes(program, costs)
    read = set(read_bytes).union(ref.root for ref in program.outputs.values())
    found = []
    for number, op in enumerate(program.ops):
        refs = [op.refs[at] for at in op.reads]
        cold = sum(ref.bytes for ref in refs if _is_cold(costs, program.roots[ref.root], read_bytes[ref.root]))
        touched = sum(ref.bytes for ref in refs)
        touched += sum(n for root, n in zip(op.outputs, op.kernel.output_bytes, strict=True) if root in read)
        # Rounded down, for a chain of many must not be above what it really takes.
        found.append(max(1, int(_least_ns(op, cold, forced[number], touched, costs, config))))
    return found


def _is_cold(costs: Costs, root: RootSpec, read_bytes: int) -> bool:
    """Whether no read of an input finds it on the die: SRAM keeps nothing, a cache only what was read before."""
    memory = costs.machine.memory
    read_again = read_bytes > root.bytes and root.bytes <= memory.die_bytes
    return bool(root.name) and not (memory.die_is_cache and read_again)


def _forced_bytes(program: Program, costs: Costs) -> list[int]:
    """Bytes per op that cross HBM because no bundle could hold them."""
    forced = [0] * len(program.ops)
    rules, memory = costs.machine.compiler, costs.machine.memory
    if memory.die_is_cache or rules.attention_seeds or rules.consumers_first:
        return forced
    made_by = {root: number for number, op in enumerate(program.ops) for root in op.outputs}
    for number, op in enumerate(program.ops):
        feeds_mme = any(program.ops[user].engine is Engine.MME for user in program.successors[number])
        if op.engine is not Engine.TPC or op.kernel.kind == "copy" or not feeds_mme:
            continue
        for root in {op.refs[at].root for at in op.reads}:
            maker = made_by.get(root)
            if maker is not None and program.ops[maker].engine is Engine.MME:
                read = sum(op.refs[at].bytes for at in op.reads if op.refs[at].root == root)
                nbytes = min(read, program.roots[root].bytes)
                forced[maker] += nbytes
                forced[number] += nbytes
    return forced


def _least_ns(op: Op, cold: int, forced: int, touched: int, costs: Costs, config: GaudiConfig) -> float:
    kernel, machine = op.kernel, costs.machine
    # A copy may be a new name only, or the DMA's, which keeps the queue that it is counted in free.
    if kernel.kind == "copy":
        return 1.0
    streamed = (cold + forced) / machine.memory.hbm_gb_per_s
    if kernel.kind == "fused_attention":
        return max(streamed, fused_ns(op, costs, config))
    if op.engine is Engine.NIC:
        return costs.least_ns(kernel)
    if op.engine is Engine.MME:
        edge = min(cold * machine.gemm.edge_fraction, machine.memory.die_bytes / 2) / machine.memory.hbm_gb_per_s
        return machine.gemm.node_ns + max(costs.least_ns(kernel) + edge, streamed)
    cost = costs.of(kernel, kernel.work, op.engine, 1)
    # Whatever memory they lie in, bytes go through the ports of the cores.
    through = touched / cost.port_gb_per_s if cost.port_gb_per_s and op.engine is Engine.TPC else 0.0
    return machine.tpc.node_ns + max(costs.least_ns(kernel), streamed, through)


def fused_ns(op: Op, costs: Costs, config: GaudiConfig) -> float:
    """How long a fused attention keeps the MME's queue at least: nothing enters between its nodes.

    From the start of its first node on the MME to the end of the last one, simulated alone with all else on the die.
    """
    width = config.chains or costs.machine.compiler.chains
    threads = fused_threads(costs.machine, attention_of(op.kernel, config.fast_fused_softmax), width)
    nodes = number_nodes(in_turns(threads, width))
    run = simulate(nodes, rates_of(costs, config), {})
    return run.time_ns

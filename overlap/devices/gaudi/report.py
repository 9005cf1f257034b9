"""What a simulated run looks like from outside: its event table, and what it could not price."""

from __future__ import annotations

import polars as pl

from overlap.devices.gaudi.kernels import CPU_PART
from overlap.devices.gaudi.node import ENGINES
from overlap.devices.gaudi.plan import Plan
from overlap.devices.gaudi.simulate import MME, Run
from overlap.traces.schema import filled

# Share of the time that ops without a known cost may take.
UNKNOWN_SHARE = 0.01


def events(plan: Plan, run: Run) -> pl.DataFrame:
    """One row per node, lanes named after their engine. Slices share an op's flops, which are all the MME's."""
    ops, units = plan.program.ops, plan.units
    nodes = plan.nodes
    picked = [ops[units[node.unit].op] for node in nodes]
    frame = pl.DataFrame(
        {
            "engine": [ENGINES[node.engine].value for node in nodes],
            "lane": [f"{ENGINES[node.engine].value} 0" for node in nodes],
            "name": [op.name + node.part for op, node in zip(picked, nodes, strict=True)],
            "kind": [op.kernel.kind for op in picked],
            "op_id": [units[node.unit].op for node in nodes],
            "layer": [op.layer for op in picked],
            "chunk": [op.chunk for op in picked],
            "phase": [op.phase for op in picked],
            "start_ns": run.start_ns,
            "end_ns": run.end_ns,
            "correlation": [node.index for node in nodes],
            "flops": [
                op.kernel.flops // node.slices if node.engine == MME else 0
                for op, node in zip(picked, nodes, strict=True)
            ],
            "bytes": [round((node.hbm + node.die) * node.alone_ns) for node in nodes],
        }
    )
    return filled(frame)


def unknown_times(plan: Plan, known: dict[str, tuple[str, ...]]) -> dict[str, float]:
    """Time alone, ns, of units that hold calls without a known cost, by the names of those calls.

    `known` maps kernels to such calls. What the CPU computes has a cost of its own.
    """
    found: dict[str, float] = {}
    for node in plan.nodes:
        unit = plan.units[node.unit]
        here = {call.name for call in unit.calls} if unit.part != CPU_PART else set()
        calls = [name for name in known.get(unit.kernel.key, ()) if name in here]
        if calls:
            name = ", ".join(calls)
            found[name] = found.get(name, 0.0) + node.alone_ns
    return found

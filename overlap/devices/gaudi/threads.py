"""Chains of nodes that take turns: the slices of a bundle, and the blocks of a fused attention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from overlap.devices.gaudi.chains import FusedAttention, make_chains
from overlap.devices.gaudi.machine import Machine
from overlap.devices.gaudi.node import NUMBER, Node
from overlap.program import Engine

# What the nodes of a fused attention do.
FUSED_PARTS = (".qk", ".softmax", ".pv")


def in_turns(threads: Sequence[Sequence[Node]], width: int) -> Iterator[Node]:
    """Nodes of `width` threads at a time, one of each in turn; when one ends the next begins."""
    waiting = iter(threads)
    active = [iter(thread) for _, thread in zip(range(width), waiting, strict=False)]
    while active:
        going = []
        for thread in active:
            node = next(thread, None)
            if node is None:
                # The next thread is fetched as soon as one ends, in the same turn.
                thread = iter(next(waiting, ()))
                node = next(thread, None)
            if node is not None:
                yield node
                going.append(thread)
        active = going


def number_nodes(nodes: Iterable[Node]) -> list[Node]:
    """All nodes in the order in which they enter the queues, ready to be simulated."""
    found = list(nodes)
    for number, node in enumerate(found):
        node.index = number
        for one in node.waits:
            one.users.append(node)
    return found


def fused_threads(
    machine: Machine, attention: FusedAttention, width: int, outer_bytes: float = 0.0, cached_bytes: float = 0.0
) -> list[list[Node]]:
    """QK^T, softmax and PV of every chain, waiting for each other.

    `outer_bytes` cross HBM and `cached_bytes` come from the die on each of the two MME nodes of all chains together.
    """
    chains = make_chains(machine, attention, width)
    outer, cached = outer_bytes / len(chains), cached_bytes / len(chains)
    threads = []
    for chain in chains:
        fixed = machine.gemm.node_ns * chain.merged
        vector = machine.tpc.node_ns * chain.merged
        qk = _node(machine, Engine.MME, fixed, chain.qk_ns, outer, chain.die_bytes / 4 + cached)
        soft = _node(machine, Engine.TPC, vector, chain.softmax_ns, 0, chain.die_bytes / 2)
        pv = _node(machine, Engine.MME, fixed, chain.pv_ns, outer, chain.die_bytes / 4 + cached)
        soft.waits.append(qk)
        pv.waits.append(soft)
        qk.part, soft.part, pv.part = FUSED_PARTS
        qk.slices = pv.slices = 2 * len(chains)
        soft.slices = len(chains)
        threads.append([qk, soft, pv])
    return threads


def _node(machine: Machine, engine: Engine, fixed: float, work: float, hbm: float, die: float) -> Node:
    memory = machine.memory
    alone = fixed + max(work, hbm / memory.hbm_gb_per_s, die / memory.die_gb_per_s)
    return Node(0, NUMBER[engine], 0, alone, hbm / alone, die / alone)

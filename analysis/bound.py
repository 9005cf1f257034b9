"""The least time that any order of a program could take, from the times of its ops.

Terms
    head of an op: the longest chain of ops that must end before it may start. tail: the longest chain after it.
    critical path: the longest chain of all.

Method: on one engine, any set of ops takes at least (least head + total work + least tail) of the set, since the
engine runs one op at a time. The set of all ops gives the work of the engine; single ops give the critical path; the
largest over all sets is the length of Jackson's preemptive schedule (J. Carlier, The one-machine sequencing problem,
EJOR 11, 1982, proposition 3), found in O(n log n). The bound is the largest over the engines. Graphs are fenced off
from each other, so their bounds add up. All times are integer ns.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from overlap.program import Program

NETWORK = "NIC"
OpTimes = Mapping[str, int] | Sequence[int]


@dataclass(frozen=True)
class Bound:
    """Least time of any order, and what it consists of; all sums over the graphs.

    `critical_path_ns` is the longest chain; `work_ns` the total work by engine; `limit` says what decides: an engine's
    name, or `critical path` where that is as long as the bound.
    """

    time_ns: int
    critical_path_ns: int
    work_ns: Mapping[str, int]
    limit: str


def bound(program: Program, op_times: OpTimes, whole_ops: bool = True) -> Bound:
    """Lower bound of the time of `program` in any order.

    Args:
        program: ops and edges.
        op_times: ns by `Kernel.key`, or one ns per op in program order.
        whole_ops: an op starts when the ops before it have ended. Where a device cuts ops into slices that follow each
            other through a chain, chains bound nothing and only the work of each engine does.

    Raises:
        ValueError: if a sequence has not one time per op.
        KeyError: if a mapping lacks a kernel.
    """
    times = _per_op(program, op_times)
    graphs: dict[int, list[int]] = {}
    for index, op in enumerate(program.ops):
        graphs.setdefault(op.graph, []).append(index)
    heads, tails = _heads(program, times), _tails(program, times)
    parts = [_of_graph(program, ops, times, heads, tails, whole_ops) for ops in graphs.values()]
    work = {engine.value: sum(part.work_ns.get(engine.value, 0) for part in parts) for engine in program.engines()}
    slowest = max(parts, key=lambda part: part.time_ns, default=Bound(0, 0, {}, ""))
    fenced_ns, network_ns = sum(part.time_ns for part in parts), work.get(NETWORK, 0)
    if not whole_ops and network_ns > fenced_ns:
        return Bound(network_ns, sum(part.critical_path_ns for part in parts), work, NETWORK)
    return Bound(fenced_ns, sum(part.critical_path_ns for part in parts), work, slowest.limit)


def gap(time_ns: float, bound_ns: float) -> float:
    """How far a time is above its bound: `time / bound - 1`; 0 for an empty program (bound 0)."""
    return time_ns / bound_ns - 1.0 if bound_ns else 0.0


def _per_op(program: Program, op_times: OpTimes) -> list[int]:
    if isinstance(op_times, Mapping):
        return [op_times[op.kernel.key] for op in program.ops]
    if len(op_times) != len(program.ops):
        raise ValueError(f"{len(op_times)} op times for {len(program.ops)} ops")
    return list(op_times)


def _heads(program: Program, times: Sequence[int]) -> list[int]:
    """Head of every op within its graph; program order is topological."""
    heads = [0] * len(program.ops)
    for index, before in enumerate(program.predecessors):
        graph = program.ops[index].graph
        chains = (heads[one] + times[one] for one in before if program.ops[one].graph == graph)
        heads[index] = max(chains, default=0)
    return heads


def _tails(program: Program, times: Sequence[int]) -> list[int]:
    """Tail of every op within its graph."""
    tails = [0] * len(program.ops)
    for index in range(len(program.ops) - 1, -1, -1):
        for one in program.predecessors[index]:
            if program.ops[one].graph == program.ops[index].graph:
                tails[one] = max(tails[one], tails[index] + times[index])
    return tails


def _of_graph(
    program: Program,
    ops: Sequence[int],
    times: Sequence[int],
    heads: Sequence[int],
    tails: Sequence[int],
    whole_ops: bool,
) -> Bound:
    queues: dict[str, list[int]] = {}
    for index in ops:
        queues.setdefault(program.ops[index].engine.value, []).append(index)
    chain = max(heads[i] + times[i] + tails[i] for i in ops)
    work = {engine: sum(times[i] for i in queue) for engine, queue in queues.items()}
    # Where a device is known to cut ops, its fences do not wait for the network.
    least = {engine: ns for engine, ns in work.items() if engine != NETWORK} or {"": 0}
    if whole_ops:
        least = {name: _one_machine([(heads[i], times[i], tails[i]) for i in queue]) for name, queue in queues.items()}
    limit = max(least, key=lambda engine: least[engine])
    return Bound(least[limit], chain, work, "critical path" if whole_ops and chain >= least[limit] else limit)


def _one_machine(jobs: Sequence[tuple[int, int, int]]) -> int:
    """Length of Jackson's preemptive schedule of (head, work, tail) jobs: always run the ready job of longest tail."""
    pending = sorted(jobs, reverse=True)
    ready: list[tuple[int, int]] = []  # (-tail, work that is left)
    now = length = 0
    while pending or ready:
        if not ready:
            now = max(now, pending[-1][0])
        while pending and pending[-1][0] <= now:
            _, work, tail = pending.pop()
            heapq.heappush(ready, (-tail, work))
        negative_tail, left = heapq.heappop(ready)
        spent = min(left, pending[-1][0] - now) if pending else left
        now += spent
        if spent < left:
            heapq.heappush(ready, (negative_tail, left - spent))
        else:
            length = max(length, now - negative_tail)
    return length

"""The least time that any order of a program could take, from the times of its ops.

Terms
    head of an op: time that passes at least before it may start. tail: time that passes at least after its end.
    critical path: the longest chain, head + time + tail.
    whole edge: the op behind starts when the one before has ended, and a signal later.
    cut edge: the op before is cut into parts. The op behind starts when the first is done at the earliest, and ends
        no earlier than one part of its own after the end of the op before.

Method: on one engine, any set of ops takes at least (least head + total work + least tail) of the set, since the
engine runs one op at a time. The set of all ops gives the work of the engine; single ops give the critical path; the
largest over all sets is the length of Jackson's preemptive schedule (J. Carlier, The one-machine sequencing problem,
EJOR 11, 1982, proposition 3), found in O(n log n). It allows preemption, so it also holds for ops that are cut. The
bound is the largest over the engines. Graphs are fenced off from each other, so their bounds add up. All times are
integer ns.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from overlap.program import Engine, Program
from overlap.queues import PLAIN, WHOLE, Cuts, QueueRules, edges_without

OpTimes = Mapping[str, int] | Sequence[int]
NETWORK = Engine.NIC.value


@dataclass(frozen=True)
class Bound:
    """Least time of any order, and what it consists of; all sums over the graphs.

    `critical_path_ns` is the longest chain; `work_ns` the total work by engine; `limit` says what decides: an engine's
    name, `host` for its launches, or `critical path` where that is as long as the bound; one of 0 ns is not known.
    """

    time_ns: int
    critical_path_ns: int
    work_ns: Mapping[str, int]
    limit: str


def bound(program: Program, op_times: OpTimes, rules: QueueRules = PLAIN, cuts: Cuts = WHOLE) -> Bound:
    """Lower bound of the time of `program` in any order.

    Args:
        program: ops and edges.
        op_times: ns by `Kernel.key`, or one ns per op in program order.
        rules: what the queues cost beside the ops.
        cuts: cut edges, and ops that are no work; all other edges are whole.

    Raises:
        ValueError: if a sequence has not one time per op.
        KeyError: if a mapping lacks a kernel.
    """
    times = _per_op(program, op_times)
    graphs: dict[int, list[int]] = {}
    for index, op in enumerate(program.ops):
        graphs.setdefault(op.graph if rules.fenced else 0, []).append(index)
    fenced_network = rules.fences_hold_network or len(graphs) < 2
    chains = _Chains(program, times, rules, cuts, fenced_network)
    work = {engine.value: 0 for engine in program.engines()}
    for op, ns in zip(program.ops, times, strict=True):
        work[op.engine.value] += ns
    found = [_of_graph(program, ops, times, chains, fenced_network) for ops in graphs.values()]
    slowest = max(found, key=lambda part: part.time_ns, default=Bound(0, 0, {}, ""))
    total_ns, chain_ns = sum(part.time_ns for part in found), sum(part.critical_path_ns for part in found)
    start_ns = rules.recipe_launch_ns if program.ops else 0
    limit = slowest.limit
    for name, least_ns in ((NETWORK, work.get(NETWORK, 0)), ("host", _launches_ns(program, times, chains, rules))):
        if least_ns > total_ns:
            total_ns, limit = least_ns, name
    return Bound(start_ns + total_ns, start_ns + chain_ns, work, limit)


def _launches_ns(program: Program, times: Sequence[int], chains: _Chains, rules: QueueRules) -> int:
    """The host launches one collective after the other, each behind what lies before it in the order."""
    each_ns = rules.collective_launch_ns
    jobs = [(0, each_ns, times[i] + chains.tails[i]) for i, op in enumerate(program.ops) if op.engine is Engine.NIC]
    return _one_machine(jobs) - each_ns if jobs else 0


def gap(time_ns: float, bound_ns: float) -> float:
    """How far a time is above its bound: `time / bound - 1`; 0 for an empty program (bound 0)."""
    return time_ns / bound_ns - 1.0 if bound_ns else 0.0


def _per_op(program: Program, op_times: OpTimes) -> list[int]:
    if isinstance(op_times, Mapping):
        return [op_times[op.kernel.key] for op in program.ops]
    if len(op_times) != len(program.ops):
        raise ValueError(f"{len(op_times)} op times for {len(program.ops)} ops")
    return list(op_times)


class _Chains:
    """Heads and tails of all ops, each within its graph where graphs are fenced; program order is topological."""

    def __init__(
        self, program: Program, times: Sequence[int], rules: QueueRules, cuts: Cuts, fenced_network: bool
    ) -> None:
        ops = program.ops
        self.heads = [0] * len(ops)
        self.tails = [0] * len(ops)
        edges = [
            (one, index, rules.signal(ops[one].engine, ops[index].engine), cuts.parts.get((one, index), 1))
            for index, before in enumerate(edges_without(program, cuts.names))
            for one in before
            if not rules.fenced or ops[one].graph == ops[index].graph
        ]
        for one, index, signal, count in edges:
            self.heads[index] = max(self.heads[index], self.heads[one] + times[one] // count + signal)
        for one, index, signal, count in reversed(edges):
            # Work of the network that nothing in the graph waits for does not keep the graph from ending.
            if fenced_network or ops[index].engine is not Engine.NIC or self.tails[index]:
                self.tails[one] = max(self.tails[one], self.tails[index] + times[index] // count + signal)


def _of_graph(
    program: Program, ops: Sequence[int], times: Sequence[int], chains: _Chains, fenced_network: bool
) -> Bound:
    queues: dict[str, list[int]] = {}
    for index in ops:
        # Where fences do not wait for the network, its work may end in a later graph.
        if fenced_network or program.ops[index].engine is not Engine.NIC:
            queues.setdefault(program.ops[index].engine.value, []).append(index)
    jobs = {name: [(chains.heads[i], times[i], chains.tails[i]) for i in queue] for name, queue in queues.items()}
    chain = max((sum(job) for queue in jobs.values() for job in queue), default=0)
    least = {name: _one_machine(queue) for name, queue in jobs.items()} or {"": 0}
    limit = max(least, key=lambda engine: least[engine])
    work = {name: sum(work for _, work, _ in queue) for name, queue in jobs.items()}
    return Bound(least[limit], chain, work, "critical path" if chain >= least[limit] else limit)


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

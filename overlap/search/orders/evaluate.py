"""The time of an order, and orders out of priorities.

`finish_ns` runs a given order through the queues. `decode` makes an order: whenever a queue is free it takes the ready
op of least priority value (list scheduling, Graham 1969), so that an order is a vector of numbers that a search may
change as it likes. Both know signals, fences and launches.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from overlap.search.orders.problem import ENGINES, NETWORK, Problem

QUEUES = range(len(ENGINES))


def finish_ns(problem: Problem, order: Sequence[int]) -> int:
    """Time of `order`."""
    times, queues, before, graphs = problem.times_ns, problem.queues, problem.before, problem.graphs
    end = [0] * len(times)
    free = [0] * len(ENGINES)
    last = graph = 0
    fence = launched = problem.first_launch_ns
    collectives = problem.collectives_fence
    for op in order:
        queue = queues[op]
        if graphs[op] != graph:
            graph = graphs[op]
            fence = max(max(free[:NETWORK]) + problem.fence_ns, launched)
        begin = free[queue]
        gate = launched if queue == NETWORK else fence
        if gate > begin:
            begin = gate
        for one, signal in before[op]:
            ready = end[one] + signal
            if ready > begin:
                begin = ready
        end[op] = free[queue] = begin = begin + times[op]
        if begin > last:
            last = begin
        if collectives and queue == NETWORK:
            launched += problem.next_launch_ns
            fence = max(max(free[:NETWORK]) + problem.fence_ns, launched)
    return last


def decode(problem: Problem, priorities: Sequence[float]) -> list[int]:
    """The list schedule of all graphs, one after the other; ties go to program order."""
    members: dict[int, list[int]] = {}
    for op, graph in enumerate(problem.graphs):
        members.setdefault(graph, []).append(op)
    return [op for graph in sorted(members) for op in _schedule(problem, priorities, members[graph])]


def _schedule(problem: Problem, priorities: Sequence[float], members: Sequence[int]) -> list[int]:
    """Ops of one graph in the order in which they start.

    Step by step the queue that can start an op soonest takes the most urgent of those that are there by then. What
    starts later ends later, so nothing that is not known yet could have been there.
    """
    times, queues, after = problem.times_ns, problem.queues, problem.after
    missing = _missing(problem, members)
    ready: list[list[tuple[float, int]]] = [[] for _ in QUEUES]
    coming: list[list[tuple[int, int]]] = [[] for _ in QUEUES]
    for op, count in missing.items():
        if not count:
            coming[queues[op]].append((0, op))
    used = sorted({queues[op] for op in members})
    earliest = dict.fromkeys(members, 0)
    free = [0] * len(ENGINES)
    fence = launched = problem.first_launch_ns
    order: list[int] = []
    for _ in members:
        soonest, queue = -1, -1
        for one in used:
            if ready[one] or coming[one]:
                then = max(free[one], launched if one == NETWORK else fence)
                if not ready[one] and coming[one][0][0] > then:
                    then = coming[one][0][0]
                if queue < 0 or then < soonest:
                    soonest, queue = then, one
        waiting, line = coming[queue], ready[queue]
        while waiting and waiting[0][0] <= soonest:
            op = heappop(waiting)[1]
            heappush(line, (priorities[op], op))
        op = heappop(line)[1]
        order.append(op)
        end = free[queue] = soonest + times[op]
        for user, signal in after[op]:
            if user in missing:
                if end + signal > earliest[user]:
                    earliest[user] = end + signal
                missing[user] -= 1
                if not missing[user]:
                    heappush(coming[queues[user]], (earliest[user], user))
        if queue == NETWORK and problem.collectives_fence:
            launched += problem.next_launch_ns
            fence = max(max(free[:NETWORK]) + problem.fence_ns, launched)
    return order


def _missing(problem: Problem, members: Sequence[int]) -> dict[int, int]:
    """How many ops of the same graph each op waits for."""
    graphs = problem.graphs
    if len(members) == problem.size:
        return {op: len(problem.before[op]) for op in members}
    return {op: sum(graphs[one] == graphs[op] for one, _ in problem.before[op]) for op in members}

"""The time of an order, and orders out of priorities.

`finish_ns` runs a given order through the queues. `decode` makes an order: whenever a queue is free it takes the ready
op of least priority value (list scheduling, Graham 1969), so that an order is a vector of numbers that a search may
change as it likes. Both know signals, fences and launches.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

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
    return [op for graph in sorted(members) for op in _Decoder(problem, priorities, members[graph]).run()]


class _Decoder:
    """List scheduling of the ops of one graph."""

    def __init__(self, problem: Problem, priorities: Sequence[float], members: Sequence[int]) -> None:
        self._problem = problem
        self._priorities = priorities
        graphs = problem.graphs
        self._missing = {op: sum(graphs[one] == graphs[op] for one, _ in problem.before[op]) for op in members}
        self._ready: list[list[tuple[float, int]]] = [[] for _ in QUEUES]
        for op in members:
            if not self._missing[op]:
                heapq.heappush(self._ready[problem.queues[op]], (priorities[op], op))
        self._earliest = dict.fromkeys(members, 0)
        self._waking: list[tuple[int, int]] = []
        self._free = [0] * len(ENGINES)
        self._launched = self._fence = problem.first_launch_ns

    def run(self) -> list[int]:
        """Ops in the order in which they start."""
        ready, free, waking = self._ready, self._free, self._waking
        queues, priorities = self._problem.queues, self._priorities
        order: list[int] = []
        now, total = 0, len(self._missing)
        while len(order) < total:
            for queue in QUEUES:
                while ready[queue] and free[queue] <= now and self._gate(queue) <= now:
                    op = heapq.heappop(ready[queue])[1]
                    order.append(op)
                    self._start(op, queue, now)
            now = self._next(now)
            while waking and waking[0][0] <= now:
                op = heapq.heappop(waking)[1]
                heapq.heappush(ready[queues[op]], (priorities[op], op))
        return order

    def _gate(self, queue: int) -> int:
        return self._launched if queue == NETWORK else self._fence

    def _start(self, op: int, queue: int, now: int) -> None:
        problem, earliest, missing = self._problem, self._earliest, self._missing
        end = self._free[queue] = now + problem.times_ns[op]
        for user, signal in problem.after[op]:
            if user in missing:
                if end + signal > earliest[user]:
                    earliest[user] = end + signal
                missing[user] -= 1
                if not missing[user]:
                    heapq.heappush(self._waking, (earliest[user], user))
        if problem.collectives_fence and queue == NETWORK:
            self._launched += problem.next_launch_ns
            self._fence = max(max(self._free[:NETWORK]) + problem.fence_ns, self._launched)

    def _next(self, now: int) -> int:
        """When something may change next."""
        soonest = self._waking[0][0] if self._waking else -1
        for queue in QUEUES:
            if self._ready[queue]:
                then = max(self._free[queue], self._gate(queue))
                if then > now and (soonest < 0 or then < soonest):
                    soonest = then
        return max(soonest, now)

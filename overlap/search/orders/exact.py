"""The best order of a small program, by branch and bound over all that differ.

An order is built op by op. What can still become of it is bounded from below by the work that each queue has left and
by the longest chain behind each op that is left; if that is no better than the best order known, it is given up. Ops of
two queues that do not depend on each other give the same times whichever enters first, so only one of the two ways is
followed (the queue of lower number first), unless fences make a difference.
"""

from __future__ import annotations

from collections.abc import Sequence

from overlap.search.orders.evaluate import finish_ns
from overlap.search.orders.problem import ENGINES, NETWORK, Problem

# Ops up to which the search ends soon: 10 independent ones on one queue are 10! orders, cut down by the bound.
MOST_OPS = 10


def best_order(problem: Problem, known: Sequence[int]) -> list[int]:
    """An order of least time; `known` is one to start from."""
    return _Search(problem, known).run()


class _Search:
    """State of one search."""

    def __init__(self, problem: Problem, known: Sequence[int]) -> None:
        self._problem = problem
        self.best, self._best_ns = list(known), finish_ns(problem, known)
        self._tails = [0] * problem.size
        for op in range(problem.size - 1, -1, -1):
            behind = (signal + self._tails[user] for user, signal in problem.after[op])
            self._tails[op] = problem.times_ns[op] + max(behind, default=0)
        self._missing = [len(ones) for ones in problem.before]
        self._order: list[int] = []
        self._end = [0] * problem.size

    def run(self) -> list[int]:
        """Search from the empty order."""
        self._extend([0] * len(ENGINES), self._problem.first_launch_ns, self._problem.first_launch_ns)
        return self.best

    def _extend(self, free: list[int], fence: int, launched: int) -> None:
        problem = self._problem
        if len(self._order) == problem.size:
            found = max(self._end, default=0)
            if found < self._best_ns:
                self.best, self._best_ns = self._order[:], found
            return
        choices = self._choices()
        if choices and self._order and problem.graphs[choices[0]] != problem.graphs[self._order[-1]]:
            fence = max(max(free[:NETWORK]) + problem.fence_ns, launched)
        for op in choices:
            begin = self._begin(op, free, fence, launched)
            queue = problem.queues[op]
            now_free, now_fence, now_launched = free[:], fence, launched
            self._end[op] = now_free[queue] = begin + problem.times_ns[op]
            if problem.collectives_fence and queue == NETWORK:
                now_launched += problem.next_launch_ns
                now_fence = max(max(now_free[:NETWORK]) + problem.fence_ns, now_launched)
            self._enter(op)
            if self._least(now_free, now_fence, now_launched) < self._best_ns:
                self._extend(now_free, now_fence, now_launched)
            self._leave(op)

    def _begin(self, op: int, free: Sequence[int], fence: int, launched: int) -> int:
        problem, queue = self._problem, self._problem.queues[op]
        begin = max(free[queue], launched if queue == NETWORK else fence)
        return max([begin, *(self._end[one] + signal for one, signal in problem.before[op])])

    def _choices(self) -> list[int]:
        """Ops that may enter next, in the graph that is first, longest chain first."""
        problem, entered = self._problem, set(self._order)
        left = [op for op in range(problem.size) if op not in entered]
        graph = min(problem.graphs[op] for op in left)
        ready = [op for op in left if not self._missing[op] and problem.graphs[op] == graph]
        if self._order and not self._fences():
            # An op that could have entered before the last one, on a queue of lower number, would have.
            last = self._order[-1]
            behind = {user for user, _ in problem.after[last]}
            ready = [op for op in ready if op in behind or problem.queues[op] >= problem.queues[last]]
        return sorted(ready, key=lambda op: -self._tails[op])

    def _fences(self) -> bool:
        problem = self._problem
        return len(set(problem.graphs)) > 1 or (problem.collectives_fence and NETWORK in problem.queues)

    def _least(self, free: Sequence[int], fence: int, launched: int) -> int:
        """What no completion of the order can beat."""
        problem, entered = self._problem, set(self._order)
        work = list(free)
        least = max(self._end[op] for op in self._order)
        for op in range(problem.size):
            if op not in entered:
                queue = problem.queues[op]
                work[queue] += problem.times_ns[op]
                ends = [self._end[one] + signal for one, signal in problem.before[op] if one in entered]
                begin = max([free[queue], launched if queue == NETWORK else fence, *ends])
                least = max(least, begin + self._tails[op])
        return max(least, *work)

    def _enter(self, op: int) -> None:
        self._order.append(op)
        for user, _ in self._problem.after[op]:
            self._missing[user] -= 1

    def _leave(self, op: int) -> None:
        self._order.pop()
        for user, _ in self._problem.after[op]:
            self._missing[user] += 1
        self._end[op] = 0

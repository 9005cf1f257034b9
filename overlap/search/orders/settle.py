"""How the queues of an order are woven into one sequence.

What each queue does, and when, depends only on the sequence of its own ops and on fences. A compiler that bundles
neighbours sees the whole sequence, though: a vector op that comes right before the matrix op that it feeds may be cut
together with it, so that what passes between them never leaves the die. `settled` keeps every queue's own sequence and
every fence where it is, and puts the ops of other queues as late as the MME's need for them allows.
"""

from __future__ import annotations

from collections.abc import Sequence

from overlap.search.orders.problem import ENGINES, NETWORK, Problem


def settled(problem: Problem, order: Sequence[int]) -> list[int]:
    """`order` with the vector ops right before the matrix ops that need them."""
    found: list[int] = []
    segment: list[int] = []
    graph = problem.graphs[order[0]] if order else 0
    for op in order:
        if problem.graphs[op] != graph or (problem.collectives_fence and problem.queues[op] == NETWORK):
            found += _Segment(problem, segment).run()
            segment, graph = [], problem.graphs[op]
        if problem.collectives_fence and problem.queues[op] == NETWORK:
            found.append(op)
        else:
            segment.append(op)
    return found + _Segment(problem, segment).run()


class _Segment:
    """Ops between two fences."""

    def __init__(self, problem: Problem, ops: Sequence[int]) -> None:
        self._problem = problem
        self._inside = set(ops)
        self._lines = [[op for op in ops if problem.queues[op] == queue] for queue in range(len(ENGINES))]
        self._place = {op: place for line in self._lines for place, op in enumerate(line)}
        self._at = [0] * len(ENGINES)
        self._done: list[int] = []
        self._seen: set[int] = set()

    def run(self) -> list[int]:
        """The MME's ops in their sequence, each behind what it needs; then the rest."""
        for line in self._lines:
            for op in line:
                self._emit(op)
        return self._done

    def _emit(self, op: int) -> None:
        stack = [op]
        while stack:
            top = stack[-1]
            need = None if top in self._seen else self._needs(top)
            if need is not None:
                stack.append(need)
                continue
            stack.pop()
            if top not in self._seen:
                self._seen.add(top)
                self._done.append(top)
                self._at[self._problem.queues[top]] += 1

    def _needs(self, op: int) -> int | None:
        """An op that must come before, if there is one that has not."""
        queue = self._problem.queues[op]
        if self._at[queue] < self._place[op]:
            return self._lines[queue][self._at[queue]]
        for one, _ in self._problem.before[op]:
            if one in self._inside and one not in self._seen:
                return one
        return None

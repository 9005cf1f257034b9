"""Local search over orders, by changing priorities and by moving ops.

`by_priorities` changes some priorities at random and decodes again. Most orders of a program differ in nothing that
matters; those that a decoder makes keep queues fed, so few trials are wasted. `by_moves` takes an op out of an order
and puts it elsewhere between the ops that it depends on, which reaches orders that let a queue wait on purpose, and can
be used with any clock, such as a device's own prediction.

Both accept what is no worse than a few steps ago (late acceptance; E. K. Burke and Y. Bykov, The late acceptance
hill-climbing heuristic, EJOR 258, 2017), keep the best, and give the same result for the same seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from overlap.search.orders.evaluate import decode, finish_ns
from overlap.search.orders.problem import Problem

T = TypeVar("T")
Clock = Callable[[Sequence[int]], float]
# Steps that late acceptance looks back.
MEMORY = 20
# Priorities that one trial changes, and by how many places on average.
CHANGES, SPREADS = (1, 1, 2, 4, 8), (2.0, 10.0, 30.0, 100.0)
# Ops that one trial moves, and how far at most.
MOVES, REACHES = (1, 1, 2, 3), (2, 8, 30)


class _Late(Generic[T]):
    """Late acceptance: what is current, and the best so far."""

    def __init__(self, state: T, order: list[int], time: float) -> None:
        self.state, self.order, self.time = state, order, time
        self._current = time
        self._past = [time] * MEMORY
        self._step = 0

    def offer(self, state: T, time: float) -> bool:
        """Take `state` or leave it; whether it is a new best."""
        at = self._step % MEMORY
        self._step += 1
        if time <= self._current or time <= self._past[at]:
            self.state, self._current = state, time
        self._past[at] = min(self._past[at], self._current)
        return time < self.time


def by_priorities(
    problem: Problem,
    priorities: Sequence[float],
    trials: int,
    seed: int,
    fits: Callable[[Sequence[int]], bool] = lambda order: True,
) -> tuple[list[int], float]:
    """The best order found from `priorities` on, and its time."""
    draw = random.Random(seed)
    rank = sorted(range(problem.size), key=lambda op: (priorities[op], op))
    places = [0.0] * problem.size
    for place, op in enumerate(rank):
        places[op] = float(place)
    order = decode(problem, places)
    late = _Late(places, order, finish_ns(problem, order))
    for _ in range(trials):
        changed = late.state[:]
        spread = draw.choice(SPREADS)
        for _ in range(draw.choice(CHANGES)):
            changed[draw.randrange(problem.size)] += draw.gauss(0.0, spread)
        order = decode(problem, changed)
        time = finish_ns(problem, order)
        if late.offer(changed, time) and fits(order):
            late.order, late.time = order, time
    return late.order, late.time


def by_moves(
    problem: Problem,
    order: Sequence[int],
    trials: int,
    seed: int,
    clock: Clock,
    fits: Callable[[Sequence[int]], bool] = lambda order: True,
) -> tuple[list[int], float]:
    """The best order found from `order` on by the time that `clock` gives, and that time."""
    draw = random.Random(seed)
    late = _Late(list(order), list(order), clock(order))
    for _ in range(trials if problem.size > 1 else 0):
        changed = late.state[:]
        for _ in range(draw.choice(MOVES)):
            _move(problem, changed, draw)
        if changed == late.state:
            continue
        time = clock(changed)
        if late.offer(changed, time) and fits(changed):
            late.order, late.time = changed, time
    return late.order, late.time


def _move(problem: Problem, order: list[int], draw: random.Random) -> None:
    """Take one op out and put it elsewhere between the ops that it depends on, in its graph."""
    at = draw.randrange(len(order))
    op, reach = order[at], draw.choice(REACHES)
    before = {one for one, _ in problem.before[op]}
    after = {user for user, _ in problem.after[op]}
    graph = problem.graphs[op]
    low = high = at
    while low > max(0, at - reach) and order[low - 1] not in before and problem.graphs[order[low - 1]] == graph:
        low -= 1
    last = min(len(order) - 1, at + reach)
    while high < last and order[high + 1] not in after and problem.graphs[order[high + 1]] == graph:
        high += 1
    order.insert(draw.randint(low, high), order.pop(at))

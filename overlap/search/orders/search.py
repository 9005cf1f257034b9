"""The order of a program, searched within a budget.

1. Lower effort first: every rule gives an order, and program order is one too.
2. Small programs are solved exactly.
3. The best rules' priorities are changed at random, then ops are moved.
4. What came out best is woven so that neighbours can be bundled, and moved about by the device's own clock, if it has
   one: only that knows bandwidth, bundles and reuse of memory.

Contract: the order returned is never slower, by the clock that decides, than program order or any rule. The same
arguments give the same order, unless `seconds` ran out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from overlap.program import Program
from overlap.search.orders.evaluate import decode, finish_ns
from overlap.search.orders.exact import MOST_OPS, best_order
from overlap.search.orders.improve import Clock, by_moves, by_priorities
from overlap.search.orders.problem import Problem
from overlap.search.orders.rules import starts
from overlap.search.orders.settle import settled

# Rules whose priorities are worked on.
BEGINNINGS = 2
# Trials between two looks at the watch.
STRIDE = 100


@dataclass(frozen=True)
class Budget:
    """Trials on the program as numbers, trials by the device's clock, and the time after which no more are begun."""

    trials: int
    refinements: int
    seconds: float = float("inf")


@dataclass(frozen=True)
class Found:
    """An order and its time by the clock that decided."""

    order: list[int]
    time_ns: float


def quick_order(problem: Problem, program: Program) -> Found:
    """The best of program order and all rules."""
    found = [list(range(problem.size)), *(decode(problem, priorities) for priorities in starts(problem, program))]
    return min((Found(order, finish_ns(problem, order)) for order in found), key=lambda one: one.time_ns)


def search_order(
    problem: Problem,
    program: Program,
    budget: Budget,
    seed: int = 0,
    clock: Clock | None = None,
    fits: Callable[[Sequence[int]], bool] = lambda order: True,
) -> Found:
    """The best order within `budget` that `fits` (program order if none does)."""
    deadline = time.monotonic() + budget.seconds
    straight = list(range(problem.size))
    orders = [straight]
    ranked = sorted(
        (finish_ns(problem, order), number, priorities, order)
        for number, priorities in enumerate(starts(problem, program))
        for order in [decode(problem, priorities)]
    )
    orders += [order for _, _, _, order in ranked if fits(order)]
    if problem.size <= MOST_OPS:
        orders.append(best_order(problem, min(orders, key=lambda order: finish_ns(problem, order))))
    else:
        orders += _worked(problem, [one[2] for one in ranked[:BEGINNINGS]], budget, seed, fits, deadline)
    return _decided(
        problem, [order for order in orders if fits(order)] or [straight], budget, seed, clock, fits, deadline
    )


def _worked(
    problem: Problem,
    beginnings: Sequence[Sequence[float]],
    budget: Budget,
    seed: int,
    fits: Callable[[Sequence[int]], bool],
    deadline: float,
) -> list[list[int]]:
    """Orders that local search makes of the priorities of each beginning."""
    found = []
    for number, priorities in enumerate(beginnings):
        share = budget.trials // len(beginnings)
        if time.monotonic() > deadline:
            break
        order, _ = by_priorities(problem, priorities, share * 3 // 4, seed + number, fits)
        found.append(order)
        found.append(by_moves(problem, order, share // 4, seed + number, lambda one: finish_ns(problem, one), fits)[0])
    return found


def _decided(
    problem: Problem,
    orders: Sequence[list[int]],
    budget: Budget,
    seed: int,
    clock: Clock | None,
    fits: Callable[[Sequence[int]], bool],
    deadline: float,
) -> Found:
    """The best of `orders` by the clock that counts, moved about by it."""
    if clock is None:
        best = min(orders, key=lambda order: finish_ns(problem, order))
        return Found(best, float(finish_ns(problem, best)))
    woven = {tuple(one): None for order in orders for one in (order, settled(problem, order)) if fits(one)}
    found = min((Found(list(order), clock(order)) for order in woven), key=lambda one: one.time_ns)
    return refined(problem, found, budget.refinements, seed, clock, fits, deadline)


def refined(
    problem: Problem,
    found: Found,
    trials: int,
    seed: int,
    clock: Clock,
    fits: Callable[[Sequence[int]], bool] = lambda order: True,
    deadline: float = float("inf"),
) -> Found:
    """`found`, moved about by the device's own clock, until `trials` are spent or `deadline` has passed."""
    left = trials
    while left > 0 and time.monotonic() < deadline:
        order, time_ns = by_moves(problem, found.order, min(left, STRIDE), seed + left, clock, fits)
        left -= STRIDE
        if time_ns < found.time_ns:
            found = Found(order, time_ns)
    return found

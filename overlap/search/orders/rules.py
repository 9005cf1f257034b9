"""Priorities to begin with: one list per rule, least value first.

Tails are the work that an op still has behind it along its heaviest path; weighting the engines differently asks for
what feeds the engine that is short of work (longest tail first is the upward rank of HEFT). Chunk rules let one chunk
run ahead, or hold all of them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from overlap.program import Program
from overlap.search.orders.problem import ENGINES, Problem

# Weights of (MME, TPC, DMA, NIC) in a tail.
WEIGHTS = (
    (1.0, 1.0, 1.0, 1.0),
    (1.0, 2.0, 1.0, 1.0),
    (2.0, 1.0, 1.0, 1.0),
    (0.0, 1.0, 0.0, 0.0),
    (1.0, 0.0, 0.0, 0.0),
    (1.0, 1.0, 1.0, 4.0),
    (1.0, 4.0, 1.0, 1.0),
)


def tails(problem: Problem, weights: Sequence[float] = (1.0,) * len(ENGINES)) -> list[float]:
    """Weighted work from the start of each op to the end along its heaviest path."""
    found = [0.0] * problem.size
    times, queues, after = problem.times_ns, problem.queues, problem.after
    for op in range(problem.size - 1, -1, -1):
        found[op] = times[op] * weights[queues[op]] + max((found[user] for user, _ in after[op]), default=0.0)
    return found


def feeds(problem: Problem) -> list[float]:
    """Ns of work on other queues that wait for each op directly: what starves them if it comes late."""
    times, queues = problem.times_ns, problem.queues
    return [
        float(sum(times[user] for user, _ in users if queues[user] != queues[op]))
        for op, users in enumerate(problem.after)
    ]


def starts(problem: Problem, program: Program) -> Iterator[list[float]]:
    """All rules."""
    size = problem.size
    for weights in WEIGHTS:
        yield [-tail for tail in tails(problem, weights)]
    by_time = sum(problem.times_ns) + 1.0
    longest = tails(problem)
    for sign in (1.0, -1.0):
        # The first chunk, or the last, before all others; longest tail first within a chunk.
        yield [sign * op.chunk * by_time - longest[number] for number, op in enumerate(program.ops)]
    first = feeds(problem)
    yield [-first[op] - longest[op] / by_time for op in range(size)]
    yield [float(op) for op in range(size)]

"""Orders by name: the sequence in which a program's ops enter the in-order queues.

    program     as captured; in a tile a matrix op waits for the vector op before it, so the queues take turns
    list        the best of several list schedules (`orders/rules.py`)
    searched    what a search found within its budget (`orders/search.py`); kept in the journal, for it takes seconds

Contract: every order is topological and keeps graphs apart, so a device runs it without deadlock. The same times give
the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from overlap.errors import ConfigError
from overlap.program import Engine, Program
from overlap.search.config import LIST, PROGRAM
from overlap.search.orders.problem import Problem
from overlap.search.orders.search import quick_order


def op_times(program: Program, by_kernel: Mapping[str, int]) -> list[int]:
    """Ns per op from ns per kernel."""
    return [by_kernel[op.kernel.key] for op in program.ops]


def find_order(program: Program, name: str, problem: Problem) -> list[int]:
    """The order called `name`, of those that take no search."""
    if name == PROGRAM:
        return list(range(len(program.ops)))
    if name == LIST:
        return quick_order(problem, program).order
    raise ConfigError(f"order {name!r}", f"one of {PROGRAM}, {LIST}")


def makespan_ns(program: Program, order: Sequence[int], times: Sequence[int], serial: bool = False) -> int:
    """Time that in-order queues take for `order`, without launch costs; fences between graphs included."""
    end = [0] * len(program.ops)
    free = dict.fromkeys(Engine, 0)
    graph, fence = 0, 0
    for op in order:
        node = program.ops[op]
        if node.graph != graph:
            graph, fence = node.graph, max(free.values())
        begin = max(free[node.engine], fence, max((end[one] for one in program.predecessors[op]), default=0))
        if serial:
            begin = max(begin, *free.values())
        end[op] = free[node.engine] = begin + times[op]
    return max(end, default=0)

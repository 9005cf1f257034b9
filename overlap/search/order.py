"""Orders: the sequence in which a program's ops enter the in-order queues.

Terms
    program order: as captured; in a tile a matrix op waits for the vector op before it, so the queues take turns.
    list order: list scheduling by critical path. Whenever an engine is free it takes the ready op from which the
        longest path leads to the end (Graham 1969; priorities as in HEFT's upward rank).
    times: ns per op, by position in the program.

Contract: every order returned is topological and keeps graphs apart, so a device runs it without deadlock. Ties are
broken by program order, so that the same times give the same order.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from overlap.errors import ConfigError
from overlap.program import Engine, Program

PROGRAM, LIST = "program", "list"
ORDERS = (PROGRAM, LIST)


def op_times(program: Program, by_kernel: Mapping[str, int]) -> list[int]:
    """Ns per op from ns per kernel."""
    return [by_kernel[op.kernel.key] for op in program.ops]


def find_order(program: Program, name: str, times: Sequence[int]) -> list[int]:
    """The order called `name`."""
    if name == PROGRAM:
        return list(range(len(program.ops)))
    if name == LIST:
        return list_order(program, times)
    raise ConfigError(f"order {name!r}", f"one of {', '.join(ORDERS)}")


def upward_ranks(program: Program, times: Sequence[int]) -> list[int]:
    """Longest path in ns from the start of each op to the end of the program."""
    ranks = [0] * len(program.ops)
    for op in range(len(program.ops) - 1, -1, -1):
        ranks[op] = times[op] + max((ranks[after] for after in program.successors[op]), default=0)
    return ranks


def list_order(program: Program, times: Sequence[int]) -> list[int]:
    """Ops by the start times of a simulated list schedule, graph after graph."""
    ranks = upward_ranks(program, times)
    order: list[int] = []
    graphs = sorted({op.graph for op in program.ops})
    for graph in graphs:
        order += _schedule_graph(program, times, ranks, graph)
    return order


def _schedule_graph(program: Program, times: Sequence[int], ranks: Sequence[int], graph: int) -> list[int]:
    """List schedule of one graph; its ops in order of their start."""
    members = [op for op, node in enumerate(program.ops) if node.graph == graph]
    inside = set(members)
    missing = {op: sum(one in inside for one in program.predecessors[op]) for op in members}
    ready: dict[Engine, list[tuple[int, int]]] = {engine: [] for engine in Engine}
    for op in members:
        if not missing[op]:
            heapq.heappush(ready[program.ops[op].engine], (-ranks[op], op))
    free_ns = dict.fromkeys(Engine, 0)
    running: list[tuple[int, int]] = []
    order: list[int] = []
    now = 0
    while len(order) < len(members):
        for engine in Engine:
            if ready[engine] and free_ns[engine] <= now:
                op = heapq.heappop(ready[engine])[1]
                order.append(op)
                free_ns[engine] = now + times[op]
                heapq.heappush(running, (free_ns[engine], op))
        now, finished = heapq.heappop(running)
        batch = [finished]
        while running and running[0][0] == now:
            batch.append(heapq.heappop(running)[1])
        for done in batch:
            for after in program.successors[done]:
                if after in inside:
                    missing[after] -= 1
                    if not missing[after]:
                        heapq.heappush(ready[program.ops[after].engine], (-ranks[after], after))
    return order


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

"""A program laid out for in-order queues: who waits for whom, who signals whom, and when memory may go.

Terms
    queue: the ops of one engine, in the order they run.
    wait: before an op starts, one op of another queue must have ended. Queues run in order, so the last such op of each
        other queue is enough, and it is enough once: later ops of the waiting queue need not ask again.

No deadlock: queues are cut out of one topological order, so the first unfinished op of that order has everything it
waits for behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from overlap.program import Engine, Program, check_order

QUEUES = (Engine.MME, Engine.TPC)
# The queue that takes the ops of an engine. The host has no network: one rank runs alone and its collectives do
# nothing, so that any queue will do.
QUEUE_OF = {Engine.MME: 0, Engine.TPC: 1, Engine.NIC: 1}


@dataclass(frozen=True)
class Plan:
    """`queues` hold op indices; `waits[op]` are ops of other queues; `signals[op]` are the ops that wait for it.

    `users[root]` counts the ops that touch a root that may be freed; other roots are kept.
    """

    program: Program
    order: tuple[int, ...]
    queues: tuple[tuple[int, ...], ...]
    waits: tuple[tuple[int, ...], ...]
    signals: tuple[tuple[int, ...], ...]
    users: dict[int, int]


def make_plan(program: Program, order: Sequence[int], serial: bool = False) -> Plan:
    """Lay out `program` in `order`; `serial` makes every op wait for the one before it.

    Raises:
        ProgramError: `order` is not a topological order of the program.
    """
    check_order(program, order)
    queues: list[list[int]] = [[] for _ in QUEUES]
    for op in order:
        queues[QUEUE_OF[program.ops[op].engine]].append(op)
    waits = _waits(program, order, serial)
    signals: list[list[int]] = [[] for _ in program.ops]
    for op, before in enumerate(waits):
        for one in before:
            signals[one].append(op)
    return Plan(
        program=program,
        order=tuple(order),
        queues=tuple(tuple(queue) for queue in queues),
        waits=tuple(waits),
        signals=tuple(tuple(ops) for ops in signals),
        users=_users(program),
    )


def _waits(program: Program, order: Sequence[int], serial: bool) -> list[tuple[int, ...]]:
    """Ops of other queues that each op waits for, pruned to those that say something new."""
    position = {op: number for number, op in enumerate(order)}
    waits: list[tuple[int, ...]] = [() for _ in program.ops]
    seen = [[-1] * len(QUEUES) for _ in QUEUES]
    last = [-1] * len(QUEUES)
    fence: list[int] = []
    graph, before = 0, -1
    for op in order:
        mine = QUEUE_OF[program.ops[op].engine]
        if program.ops[op].graph != graph:
            graph, fence = program.ops[op].graph, [one for one in last if one >= 0]
        needed = [*program.predecessors[op], *fence, *([before] if serial and before >= 0 else [])]
        found = []
        for other in range(len(QUEUES)):
            if other == mine:
                continue
            theirs = [one for one in needed if QUEUE_OF[program.ops[one].engine] == other]
            newest_one = max(theirs, key=position.__getitem__, default=-1)
            if newest_one >= 0 and position[newest_one] > seen[mine][other]:
                seen[mine][other] = position[newest_one]
                found.append(newest_one)
        waits[op] = tuple(found)
        last[mine] = before = op
    return waits


def _users(program: Program) -> dict[int, int]:
    """Ops that touch each root which is neither an input nor an output."""
    keep = {ref.root for ref in program.outputs.values()}
    users: dict[int, int] = {}
    for index in range(len(program.ops)):
        for root in program.touched(index):
            if root not in keep and not program.roots[root].name:
                users[root] = users.get(root, 0) + 1
    return users

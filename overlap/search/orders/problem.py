"""A program as numbers, for searches that look at thousands of its orders.

Terms
    queue: an engine's number; queues take their ops in the order in which these enter.
    signal: ns from the end of an op to the start of one that waits for it.
    fence: ops that enter after it start only when all ops before it, but those of the network, have ended, and
        `fence_ns` later. Fences lie between graphs and, where the device says so, behind every collective.
    launch: the host launches what lies between two fences one after the other; nothing of it starts before.

Contract: `times_ns`, `queues`, `before`, `after` and `graphs` have one entry per op, in program order; `before` and
`after` hold (op, signal) pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from overlap.program import Engine, Program
from overlap.queues import PLAIN, QueueRules

ENGINES = tuple(Engine)
NETWORK = ENGINES.index(Engine.NIC)

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Problem:
    """What an order search needs to know of a program on a device; all times in ns."""

    times_ns: tuple[int, ...]
    queues: tuple[int, ...]
    before: tuple[Pairs, ...]
    after: tuple[Pairs, ...]
    graphs: tuple[int, ...]
    fence_ns: int = 0
    collectives_fence: bool = False
    first_launch_ns: int = 0
    next_launch_ns: int = 0

    @property
    def size(self) -> int:
        """How many ops there are."""
        return len(self.times_ns)

    @classmethod
    def of(
        cls, program: Program, times_ns: Sequence[int], rules: QueueRules = PLAIN, names: frozenset[int] = frozenset()
    ) -> Problem:
        """The problem of `program` with one time per op; names take none, and signal with the op behind them."""
        signals = _signals(program, rules, names)
        before = tuple(tuple((one, signals[one, op]) for one in ones) for op, ones in enumerate(program.predecessors))
        after = tuple(tuple((user, signals[op, user]) for user in users) for op, users in enumerate(program.successors))
        return cls(
            times_ns=tuple(0 if op in names else ns for op, ns in enumerate(times_ns)),
            queues=tuple(ENGINES.index(op.engine) for op in program.ops),
            before=before,
            after=after,
            graphs=tuple(op.graph if rules.fenced else 0 for op in program.ops),
            fence_ns=rules.fence_ns,
            collectives_fence=rules.collectives_fence,
            first_launch_ns=rules.recipe_launch_ns,
            next_launch_ns=rules.recipe_launch_ns + rules.collective_launch_ns,
        )


def _signals(program: Program, rules: QueueRules, names: frozenset[int]) -> dict[tuple[int, int], int]:
    """Signal of every edge; one that leads to a name costs nothing, one that comes from it what its source's does."""
    found: dict[tuple[int, int], int] = {}
    source: dict[int, int] = {}
    for op, ones in enumerate(program.predecessors):
        if op in names and ones:
            source[op] = source.get(ones[-1], ones[-1])
        for one in ones:
            first = program.ops[source.get(one, one)].engine
            found[one, op] = 0 if op in names else rules.signal(first, program.ops[op].engine)
    return found

"""What in-order queues cost beside the work of the ops: the part of a device that orders and bounds depend on.

Terms
    signal: ns from the end of an op to the start of one that waits for it.
    fence: a point in the queues; what enters behind it starts only when all work before it has ended.
    parts: into how many parts an op is cut at most on an edge; the op behind it may start when the first part is done,
        and ends one part after it at the earliest.
    name: an op that is no work on the device, such as a copy that only gives a tensor another name; what waits for it
        waits for what it waits for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from overlap.program import Engine, Program


@dataclass(frozen=True)
class Cuts:
    """How a device may pass results on: `parts` by edge (before, after), whole on all others, and ops that are names.

    Edges are those of `edges_without`.
    """

    parts: Mapping[tuple[int, int], int] = field(default_factory=dict)
    names: frozenset[int] = frozenset()


def edges_without(program: Program, names: frozenset[int]) -> list[tuple[int, ...]]:
    """Predecessors of every op, by way of names; names have none."""
    found: list[tuple[int, ...]] = []
    through: dict[int, tuple[int, ...]] = {}
    for number, before in enumerate(program.predecessors):
        real = tuple(dict.fromkeys(op for one in before for op in through.get(one, (one,)))) if names else before
        if number in names:
            through[number] = real
        found.append(() if number in names else real)
    return found


@dataclass(frozen=True)
class QueueRules:
    """Times in ns.

    Args:
        to_mme_ns: signal to an op on the MME from another engine.
        to_other_ns: signal to an op on any other engine.
        same_ns: signal between two ops of one engine.
        fenced: whether a fence lies between two graphs.
        fence_ns: what a fence itself takes.
        collectives_fence: whether a fence lies behind every collective, too.
        recipe_launch_ns: what the host takes to launch what lies between two fences; nothing starts before.
        collective_launch_ns: what it takes to launch a collective.
        fences_hold_network: whether work of the network waits at fences, and fences for it.
    """

    to_mme_ns: int = 0
    to_other_ns: int = 0
    same_ns: int = 0
    fenced: bool = True
    fence_ns: int = 0
    collectives_fence: bool = False
    recipe_launch_ns: int = 0
    collective_launch_ns: int = 0
    fences_hold_network: bool = True

    def signal(self, before: Engine, after: Engine) -> int:
        """Ns from the end of an op to the start of one that waits for it."""
        if before is after:
            return self.same_ns
        return self.to_mme_ns if after is Engine.MME else self.to_other_ns


PLAIN = QueueRules()
WHOLE = Cuts()

"""The event loop: in-order queues, waits, fences between recipes, and bandwidth shared by what runs at once.

A node starts when it heads its queue, everything it waits for has ended long enough ago, and its recipe has been
launched and, unless fences are off, the one before it is done. While the nodes that run want more of a memory than it
has, all that use it slow down in proportion. There is no preemption, and the head of a queue blocks what is behind it.

Times are floats in ns until the end; `Run` holds whole ns, rounded once, so that the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.node import ENGINES, NUMBER, Node
from overlap.devices.gaudi.settings import GaudiConfig
from overlap.program import Engine

MME, NIC = NUMBER[Engine.MME], NUMBER[Engine.NIC]
# Less than this of a node's time left, in ns, is rounding.
NEARLY_NS = 1e-6


class Rates(NamedTuple):
    """What nodes share and how long signals take, ns and bytes per ns; `fenced` is false where recipes may overlap."""

    hbm: float
    die: float
    sync_to_mme: float
    sync_to_other: float
    sync_same: float
    fence: float
    fenced: bool = True


def rates_of(costs: Costs, config: GaudiConfig) -> Rates:
    """What the event loop needs to know of the machine."""
    memory, rules = costs.machine.memory, costs.machine.compiler
    return Rates(
        memory.hbm_gb_per_s,
        memory.die_gb_per_s,
        rules.sync_to_mme_ns,
        rules.sync_to_tpc_ns,
        rules.sync_same_ns,
        costs.machine.host.fence_ns,
        config.fence,
    )


class Run(NamedTuple):
    """Start and end of every node, in the order they entered the queues."""

    start_ns: list[int]
    end_ns: list[int]

    @property
    def time_ns(self) -> int:
        """End of the last node."""
        return max(self.end_ns, default=0)


def simulate(nodes: Sequence[Node], rates: Rates, launched_ns: dict[int, float], serial: bool = False) -> Run:
    """Run all nodes. `launched_ns` says when each recipe is there; `serial` runs one node at a time, in order."""
    return _Loop(nodes, rates, launched_ns, serial).run()


class _Loop:
    """State of one simulation."""

    def __init__(self, nodes: Sequence[Node], rates: Rates, launched_ns: dict[int, float], serial: bool) -> None:
        self._rates = rates
        self._launched = launched_ns
        self._start = [0.0] * len(nodes)
        self._end = [0.0] * len(nodes)
        self._missing = [len(node.waits) for node in nodes]
        self._ready = [0.0] * len(nodes)
        inside = [node.recipe for node in nodes if node.engine != NIC]
        self._recipes = sorted(set(inside))
        self._left = [0] * (max(inside, default=0) + 1)
        for recipe in inside:
            self._left[recipe] += 1
        by_engine: list[list[Node]] = [[] for _ in ENGINES]
        for node in nodes:
            by_engine[0 if serial else node.engine].append(node)
        self._queues = [queue for queue in by_engine if queue]
        count = len(self._queues)
        self._at = [0] * count
        self._running: list[Node | None] = [None] * count
        self._to_go = [0.0] * count
        self._alone = [1.0] * count
        self._open = 0
        self._open_ns = launched_ns.get(self._recipes[0], 0.0) if self._recipes else 0.0
        self._total = len(nodes)

    def run(self) -> Run:
        """Go from event to event until every node has ended."""
        now, done = 0.0, 0
        running, to_go = self._running, self._to_go
        while done < self._total:
            opens = self._start_heads(now)
            busy = [(queue, node) for queue, node in enumerate(running) if node is not None]
            slow = self._slowdown() if len(busy) > 1 else self._alone
            step = opens - now
            for queue, _ in busy:
                if to_go[queue] * slow[queue] < step:
                    step = to_go[queue] * slow[queue]
            now += step
            for queue, node in busy:
                to_go[queue] -= step / slow[queue]
                if to_go[queue] <= NEARLY_NS:
                    running[queue] = None
                    done += 1
                    self._finish(node, now)
        return Run([round(value) for value in self._start], [round(value) for value in self._end])

    def _start_heads(self, now: float) -> float:
        """Start every head that may; the time at which the next one may for which nothing is missing any more."""
        soonest = float("inf")
        for queue, at in enumerate(self._at):
            if self._running[queue] is not None or at >= len(self._queues[queue]):
                continue
            node = self._queues[queue][at]
            if self._missing[node.index]:
                continue
            if node.engine == NIC or not self._rates.fenced:
                begin = max(self._ready[node.index], self._launched.get(node.recipe, 0.0))
            elif node.recipe == self._recipes[self._open]:
                begin = max(self._ready[node.index], self._open_ns)
            else:
                continue
            if begin <= now:
                self._running[queue] = node
                self._to_go[queue] = node.alone_ns
                self._start[node.index] = now
                self._at[queue] = at + 1
            elif begin < soonest:
                soonest = begin
        return soonest

    def _slowdown(self) -> list[float]:
        """By queue, how much longer than alone its node takes right now."""
        hbm = die = 0.0
        for node in self._running:
            if node is not None:
                hbm += node.hbm
                die += node.die
        over_hbm, over_die = hbm / self._rates.hbm, die / self._rates.die
        if over_hbm <= 1.0 and over_die <= 1.0:
            return self._alone
        return [
            1.0 if node is None else max(1.0, over_hbm if node.hbm else 1.0, over_die if node.die else 1.0)
            for node in self._running
        ]

    def _finish(self, node: Node, now: float) -> None:
        self._end[node.index] = now
        rates = self._rates
        for user in node.users:
            if user.engine == node.engine:
                sync = rates.sync_same
            else:
                sync = rates.sync_to_mme if user.engine == MME else rates.sync_to_other
            ready = now + sync
            if ready > self._ready[user.index]:
                self._ready[user.index] = ready
            self._missing[user.index] -= 1
        if node.engine == NIC:
            return
        self._left[node.recipe] -= 1
        while self._open + 1 < len(self._recipes) and not self._left[self._recipes[self._open]]:
            self._open += 1
            self._open_ns = max(now + rates.fence, self._launched.get(self._recipes[self._open], 0.0))

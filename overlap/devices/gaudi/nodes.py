"""From units and bundles to nodes in queues: slices, waits and the order in which slices enter.

Order of a bundle: every slice is a chain of nodes; a few chains are in flight and take turns node by node, and when one
ends the next begins. Units outside of bundles enter whole, or in the parts that signal on their own.

Waits: slice i of a bundle's unit waits for slice i of the unit before it. A consumer that is cut itself, behind an MME
unit that signals per part, waits for the parts that it reads. Everything else waits for the last node of its producer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

from overlap.devices.gaudi.bundles import Bundle
from overlap.devices.gaudi.chains import attention_of
from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.node import NUMBER, Node
from overlap.devices.gaudi.place import Traffic
from overlap.devices.gaudi.settings import GaudiConfig
from overlap.devices.gaudi.threads import fused_threads, in_turns, number_nodes
from overlap.devices.gaudi.units import Unit
from overlap.program import Engine


class Builder:
    """Makes the nodes of one list of units."""

    def __init__(
        self,
        units: Sequence[Unit],
        bundles: Sequence[Bundle],
        traffic: Sequence[Traffic],
        extra: Sequence[Sequence[int]],
        costs: Costs,
        config: GaudiConfig,
    ) -> None:
        self._units = units
        self._bundles = bundles
        self._traffic = traffic
        self._extra = extra
        self._costs = costs
        self._machine = costs.machine
        self._config = config
        self._nodes: list[list[Node]] = [[] for _ in units]
        self._shapes: dict[tuple[object, ...], list[tuple[float, float, float]]] = {}
        self._bundle_of = [number for number, bundle in enumerate(bundles) for _ in range(bundle.first, bundle.end)]

    def run(self) -> list[Node]:
        """All nodes in the order in which they enter the queues, their waits set."""
        found: list[Node] = []
        for bundle in self._bundles:
            if bundle.end - bundle.first == 1 and self._units[bundle.first].kernel.kind == "fused_attention":
                found += self._fused(bundle.first)
            else:
                found += self._bundle(bundle)
        return number_nodes(found)

    def _bundle(self, bundle: Bundle) -> Iterator[Node]:
        members = range(bundle.first, bundle.end)
        make = self._slices if len(members) > 1 else self._parts
        for number in members:
            self._nodes[number] = make(number, bundle.slices)
        for number in members:
            self._wait(number, bundle)
        if len(members) == 1:
            return iter(self._nodes[bundle.first])
        return in_turns([[self._nodes[number][i] for number in members] for i in range(bundle.slices)], self._width)

    def _parts(self, number: int, parts: int) -> list[Node]:
        """One node that signals at equal parts of its time: no new tiles, no second fixed cost."""
        unit = self._units[number]
        alone, hbm, die = self._shapes_of(unit, self._traffic[number], 1)[0]
        nodes = [Node(number, NUMBER[unit.engine], unit.recipe, alone / parts, hbm, die) for _ in range(parts)]
        for node in nodes:
            node.part, node.slices = unit.part, parts
        return nodes

    def _slices(self, number: int, slices: int) -> list[Node]:
        unit = self._units[number]
        shapes = self._shapes_of(unit, self._traffic[number], slices)
        engine = NUMBER[unit.engine]
        nodes = [Node(number, engine, unit.recipe, *shape) for shape in shapes]
        for node in nodes:
            node.part, node.slices = unit.part, slices
        return nodes

    def _shapes_of(self, unit: Unit, traffic: Traffic, slices: int) -> list[tuple[float, float, float]]:
        """`_node_shapes`, once for units that are alike."""
        key = (unit.kernel.key, unit.part, slices, traffic.hbm_read, traffic.hbm_write, traffic.die)
        shapes = self._shapes.get(key)
        if shapes is None:
            shapes = self._shapes[key] = self._node_shapes(unit, traffic, slices)
        return shapes

    def _node_shapes(self, unit: Unit, traffic: Traffic, slices: int) -> list[tuple[float, float, float]]:
        """Time alone and the rates on both memories of each slice of a unit."""
        cost = self._costs.of(unit.kernel, unit.calls, unit.engine, slices, unit.part)
        memory = self._machine.memory
        hbm = (traffic.hbm_read + traffic.hbm_write) / slices
        die = traffic.die / slices
        port_ns = (hbm + die) / cost.port_gb_per_s if cost.port_gb_per_s else 0.0
        first, last = self._edges_ns(unit, traffic)
        shapes = []
        for part in range(slices):
            work = cost.work_ns + (first if part == 0 else 0.0) + (last if part == slices - 1 else 0.0)
            busy = max(work, port_ns, hbm / memory.hbm_gb_per_s, die / memory.die_gb_per_s)
            alone = max(cost.fixed_ns + busy, 1.0)
            shapes.append((alone, hbm / alone, die / alone))
        return shapes

    def _edges_ns(self, unit: Unit, traffic: Traffic) -> tuple[float, float]:
        """Time in which the MME waits for its first operands, and in which its last results leave."""
        if unit.engine is not Engine.MME:
            return 0.0, 0.0
        memory, fraction = self._machine.memory, self._machine.gemm.edge_fraction
        most = memory.die_bytes / 2
        rate = memory.hbm_gb_per_s
        return min(traffic.hbm_read * fraction, most) / rate, min(traffic.hbm_write * fraction, most) / rate

    def _wait(self, number: int, bundle: Bundle) -> None:
        unit, nodes = self._units[number], self._nodes[number]
        for before in unit.needs:
            theirs = self._nodes[before]
            if before >= bundle.first and len(theirs) == len(nodes):
                for mine, other in zip(nodes, theirs, strict=True):
                    mine.waits.append(other)
            elif len(nodes) > 1 and len(theirs) > 1 and self._signals_parts(before, number):
                for part, mine in enumerate(nodes):
                    mine.waits.append(theirs[ceil((part + 1) * len(theirs) / len(nodes)) - 1])
            elif theirs:
                nodes[0].waits.append(theirs[-1])
        for before in self._extra[number]:
            if self._nodes[before] and before not in unit.needs and before < bundle.first:
                nodes[0].waits.append(self._nodes[before][-1])

    def _signals_parts(self, before: int, after: int) -> bool:
        """Whether `after` may start on the first part of `before`, whose rows it shares."""
        one, other = self._units[before], self._units[after]
        if not (self._machine.compiler.mme_signals_per_roi and self._config.roi_pipelining):
            return False
        if one.engine is not Engine.MME or not other.reads:
            return False
        return other.reads[0][0] in {root for root, _ in one.writes}

    def _fused(self, number: int) -> Iterator[Node]:
        """Chains of a fused attention; the bytes of Q, K, V and the result are shared out over them."""
        unit, traffic = self._units[number], self._traffic[number]
        attention = attention_of(unit.kernel, self._config.fast_fused_softmax)
        outer = (traffic.hbm_read + traffic.hbm_write) / 2
        threads = fused_threads(self._machine, attention, self._width, outer, traffic.die / 2)
        for thread in threads:
            for node in thread:
                node.unit, node.recipe = number, unit.recipe
        self._nodes[number] = [thread[0] for thread in threads]
        self._wait(number, Bundle(number, number + 1))
        self._nodes[number] = [node for thread in threads for node in thread]
        return in_turns(threads, self._width)

    @property
    def _width(self) -> int:
        return self._config.chains or self._machine.compiler.chains

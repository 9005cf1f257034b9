"""Edges on which an op may start before the one before it has ended, because the compiler cuts both.

Terms
    bundled: two units may be cut into slices together (`bundles.py`); slice i of one waits for slice i of the other.
    signalled: an MME unit that is cut signals per part, and a unit behind it that is cut as well starts on the first.

Which bundles come about depends on the order. Here all that any order could bring about are looked at: from an MME unit
up along vector units that only feed it, and down along those that only it feeds.

Contract: every edge on which parts pass in some order is found, with the most parts of any. Some are found on which
they never do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from overlap.devices.gaudi.bundles import Bundler
from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.settings import GaudiConfig
from overlap.devices.gaudi.units import Unit, make_units
from overlap.program import Engine, Op, Program
from overlap.queues import Cuts, edges_without


def find_cuts(program: Program, costs: Costs, config: GaudiConfig) -> Cuts:
    """Cut edges and names of `program`."""
    finder = _Finder(program, costs, config)
    return Cuts({} if config.mode == "eager" else finder.run(), finder.names)


class _Finder:
    """The rules on one program."""

    def __init__(self, program: Program, costs: Costs, config: GaudiConfig) -> None:
        self._ops = program.ops
        self._costs = costs
        self._config = config
        self._rules = costs.machine.compiler
        units = make_units(program, range(len(program.ops)), costs, config)
        self._bundler = Bundler(units, costs, config)
        self._units: dict[int, list[Unit]] = {}
        for unit in units:
            self._units.setdefault(unit.op, []).append(unit)
        self.names = frozenset(range(len(program.ops))) - frozenset(self._units)
        self._before = edges_without(program, self.names)
        self._after: list[list[int]] = [[] for _ in program.ops]
        for number, before in enumerate(self._before):
            for one in before:
                self._after[one].append(number)
        self._known: dict[tuple[str, ...], int] = {}

    def run(self) -> dict[tuple[int, int], int]:
        """All edges."""
        found: dict[tuple[int, int], int] = {}
        most: dict[int, int] = {}
        for one, after in self._edges():
            if self._is_open(one) or self._is_open(after):
                found[one, after] = self._rules.max_slices
        if self._config.bundles:
            for members in self._bundles():
                slices = self._slices(members)
                for op in members:
                    most[op] = max(most.get(op, 1), slices)
                for after in members:
                    for one in self._before[after]:
                        if one in members and slices > 1:
                            found[one, after] = max(found.get((one, after), 1), slices)
        for one, after in self._edges():
            if self._signalled(one, after, most):
                found[one, after] = max(found.get((one, after), 1), self._rules.roi_depth, most.get(one, 1))
        return found

    def _edges(self) -> Iterator[tuple[int, int]]:
        return ((one, after) for after, before in enumerate(self._before) for one in before)

    def _is_open(self, op: int) -> bool:
        """Whether an op is several units: where parts pass between those is not looked at."""
        return len(self._units[op]) > 1

    def _bundles(self) -> Iterator[tuple[int, ...]]:
        """All sets of ops that could be a bundle."""
        for number, op in enumerate(self._ops):
            if op.engine is not Engine.MME or op.kernel.kind == "fused_attention":
                continue
            ups = list(self._up(number))
            for up in ups:
                for shared in self._sharing(number):
                    yield (*up, *shared)
                for down in self._down(number):
                    yield (*up, number, *down)
            if self._rules.attention_seeds:
                for middle in self._after[number]:
                    for last in self._after[middle]:
                        if self._ops[last].engine is Engine.MME:
                            yield (number, middle, last)

    def _up(self, last: int, left: int | None = None) -> Iterator[tuple[int, ...]]:
        """Chains of vector ops that end before `last`, each feeding only the next; the empty one first."""
        yield ()
        left = self._rules.max_producers if left is None else left
        for one in self._before[last] if left else ():
            if self._ops[one].engine is Engine.TPC and not self._is_open(one) and self._feeds_only(one, last):
                for chain in self._up(one, left - 1):
                    yield (*chain, one)

    def _down(self, first: int) -> Iterator[tuple[int, ...]]:
        """Chains of vector ops behind `first`, each fed only by the one before; not the empty one."""
        chain: tuple[int, ...] = ()
        while len(chain) < self._rules.max_consumers:
            users = [user for user in self._after[first] if not self._is_open(user)]
            if len(users) != 1 or self._ops[users[0]].engine is not Engine.TPC:
                return
            first = users[0]
            chain = (*chain, first)
            yield chain

    def _sharing(self, number: int) -> Iterator[tuple[int, ...]]:
        """`number` alone, and with others that read the same first operand."""
        yield (number,)
        root = self._first_root(number)
        others = [
            other
            for other, op in enumerate(self._ops)
            if other != number and op.engine is Engine.MME and self._first_root(other) == root
        ][: self._rules.max_sharing]
        for end in range(1, min(len(others), self._rules.max_sharing - 1) + 1):
            yield (number, *others[:end])

    def _feeds_only(self, one: int, last: int) -> bool:
        """Whether all that wait for `one` are `last`, or MME ops that may share it."""
        users = [user for user in self._after[one] if not self._is_open(user)]
        if self._ops[last].engine is not Engine.MME:
            return users == [last]
        return len(users) <= self._rules.max_sharing and all(self._ops[user].engine is Engine.MME for user in users)

    def _first_root(self, number: int) -> int:
        op = self._ops[number]
        reads = self._costs.accesses(op)[0]
        return op.refs[reads[0][0]].root if reads else -1

    def _slices(self, members: Sequence[int]) -> int:
        """Into how many slices the compiler would cut these ops."""
        if any(len(self._units.get(op, ())) != 1 for op in members):
            return self._rules.max_slices
        units = [self._units[op][0] for op in members]
        key = tuple(unit.kernel.key for unit in units)
        if key not in self._known:
            self._known[key] = self._bundler.slices_of(units)
        return self._known[key]

    def _signalled(self, one: int, after: int, most: dict[int, int]) -> bool:
        if not (self._config.roi_pipelining and self._rules.mme_signals_per_roi):
            return False
        first, second = self._ops[one], self._ops[after]
        if first.engine is not Engine.MME or _is_fused(first) or _is_fused(second):
            return False
        return second.engine is Engine.MME or most.get(after, 1) > 1


def _is_fused(op: Op) -> bool:
    return op.kernel.kind == "fused_attention"

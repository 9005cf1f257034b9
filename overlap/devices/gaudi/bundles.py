"""Which units are cut into slices together, so that the slices of one run beside the slices of another.

Terms
    bundle: neighbours in the order, an MME unit and vector units around it, cut into the same number of slices; slice i
        of one waits only for slice i of the one before.
    seed: the unit a bundle grows from. On Gaudi3 an attention seed (MME, one TPC unit, MME) goes first.

Rules (files of the vendor's compiler are named in `chips/*/compiler.yaml`):
    Gaudi2      an MME unit, up to 3 vector units before it, and one behind it if that one feeds no later MME unit
    Gaudi3      an attention seed as it is; else an MME unit with vector units behind it and before it
    both        up to 3 MME units that share their first operand, with vector units before them only
A neighbour is one in the order that is given: work of another chunk in between keeps two units apart, as a hint that
pins the order does. A unit joins only if it alone feeds, or is fed by, its neighbour through the operand that is
sliced, and if it can be cut that often.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.settings import GaudiConfig
from overlap.devices.gaudi.units import Unit
from overlap.program import Engine


class Bundle(NamedTuple):
    """Units [first, end) in `slices` parts; one unit in one part where nothing is bundled."""

    first: int
    end: int
    slices: int = 1
    attention: bool = False


class Bundler:
    """Finds the bundles of one list of units."""

    def __init__(self, units: Sequence[Unit], costs: Costs, config: GaudiConfig) -> None:
        self._units = units
        self._costs = costs
        self._config = config
        self._rules = costs.machine.compiler
        self._known_slices: dict[tuple[str, ...], int] = {}

    def run(self) -> list[Bundle]:
        """Every unit in exactly one bundle, in order."""
        found: list[Bundle] = []
        at = 0
        while at < len(self._units):
            bundle = self._next(at, found)
            found.append(bundle)
            at = bundle.end
        return found

    def _next(self, at: int, found: Sequence[Bundle]) -> Bundle:
        if not self._config.bundles or self._config.mode == "eager":
            return Bundle(at, at + 1)
        for bundle in (self._attention(at), self._around_mme(at)):
            if bundle is not None:
                return bundle
        return Bundle(at, at + 1, self._roi_slices(at))

    def _attention(self, at: int) -> Bundle | None:
        """MME, exactly one TPC unit, MME; what is between them larger than what comes in and goes out."""
        if not (self._rules.attention_seeds and self._config.attention_seeds) or at + 3 > len(self._units):
            return None
        first, middle, last = self._units[at : at + 3]
        if first.engine is not Engine.MME or middle.engine is not Engine.TPC or last.engine is not Engine.MME:
            return None
        if not (self._linked(at, at + 1) and self._linked(at + 1, at + 2)):
            return None
        if _bytes(first.writes) <= _bytes(first.reads) or _bytes(middle.writes) <= _bytes(last.writes):
            return None
        slices = self._slices(at, at + 3)
        return Bundle(at, at + 3, slices, True) if slices > 1 else None

    def _around_mme(self, at: int) -> Bundle | None:
        """Vector units, MME units that share their first operand, vector units behind a single one."""
        mme, end = self._producers(at)
        if mme < 0:
            return None
        first_end = end
        if end - mme == 1:
            while end < len(self._units) and end - mme <= self._rules.max_consumers and self._may_consume(end):
                end += 1
        while end - at > 1 and end >= first_end:
            slices = self._slices(at, end)
            if slices > 1:
                return Bundle(at, end, slices)
            end -= 1
        return None

    def _producers(self, at: int) -> tuple[int, int]:
        """The first MME unit behind a run of vector units that starts at `at`, and the end of those that share with it.

        (-1, -1) if the run does not feed one.
        """
        units, mme = self._units, at
        while mme < len(units) and units[mme].engine is Engine.TPC and mme - at < self._rules.max_producers:
            end = self._sharing(mme + 1)
            if mme + 1 >= len(units) or not self._linked(mme, mme + 1, end):
                return -1, -1
            mme += 1
        if mme >= len(units) or units[mme].engine is not Engine.MME:
            return -1, -1
        return mme, self._sharing(mme)

    def _sharing(self, at: int) -> int:
        """The end of the MME units from `at` on that all read the same first operand, as the projections of QKV do."""
        units, end = self._units, at + 1
        if at >= len(units) or units[at].engine is not Engine.MME or not units[at].reads:
            return end
        shared = units[at].reads[0][0]
        while end < min(len(units), at + self._rules.max_sharing):
            other = units[end]
            if other.engine is not Engine.MME or not other.reads or other.reads[0][0] != shared:
                break
            end += 1
        return end

    def _may_consume(self, at: int) -> bool:
        """Whether the vector unit at `at` may join the MME unit before it."""
        if self._units[at].engine is not Engine.TPC or not self._linked(at - 1, at):
            return False
        return self._rules.consumers_first or not self._feeds_mme[at]

    def _linked(self, before: int, after: int, end: int = 0) -> bool:
        """Whether `after` takes what `before` makes, through the operand whose rows are sliced.

        Nobody else may take it, but the units up to `end`.
        """
        one, other = self._units[before], self._units[after]
        if before not in other.needs or one.recipe != other.recipe:
            return False
        if any(not after <= user < max(end, after + 1) for user in self._users[before]):
            return False
        if other.engine is not Engine.MME:
            return True
        made = {root for root, _ in one.writes}
        return bool(other.reads) and other.reads[0][0] in made

    def _slices(self, first: int, end: int) -> int:
        """How often units [first, end) are cut: at least the least, on until two slices fit the die, or 1 for not."""
        units = self._units[first:end]
        kernels = tuple(unit.kernel.key + unit.part for unit in units)
        found = self._known_slices.get(kernels)
        if found is None:
            found = self._known_slices[kernels] = self.slices_of(units)
        return found

    def slices_of(self, units: Sequence[Unit]) -> int:
        """How often `units` would be cut as one bundle; 1 for not at all."""
        rules = self._rules
        most = min([rules.max_slices, *(self._costs.most_slices(unit.kernel) for unit in units)])
        between = sum(_bytes(unit.writes) for unit in units[:-1])
        able = [
            slices
            for slices in range(rules.min_slices, most + 1)
            if all(self._costs.divides(unit.kernel, slices) for unit in units)
        ]
        if not able:
            return 1
        die_bytes = self._costs.machine.memory.die_bytes
        slices = next((one for one in able if 2 * between <= one * die_bytes), able[-1])
        return slices if self._keeps_utilisation(units, slices) else 1

    def _keeps_utilisation(self, units: Sequence[Unit], slices: int) -> bool:
        """Gaudi3 turns slices down that leave too many multipliers without work."""
        for unit in units:
            if unit.engine is Engine.MME:
                whole = self._costs.of(unit.kernel, unit.calls, unit.engine, 1, unit.part).utilisation
                cut = self._costs.of(unit.kernel, unit.calls, unit.engine, slices, unit.part).utilisation
                if cut < self._rules.min_utilisation_ratio * whole:
                    return False
        return True

    def _roi_slices(self, at: int) -> int:
        """Parts of an unbundled unit that signal on their own; only where its engine does so and somebody waits."""
        unit = self._units[at]
        if not self._config.roi_pipelining or not self._rules.mme_signals_per_roi or unit.engine is not Engine.MME:
            return 1
        if unit.kernel.kind == "fused_attention" or not self._users[at]:
            return 1
        return max(1, min(self._rules.roi_depth, self._costs.most_slices(unit.kernel)))

    @cached_property
    def _users(self) -> list[list[int]]:
        """Units that wait for each unit."""
        users: list[list[int]] = [[] for _ in self._units]
        for number, unit in enumerate(self._units):
            for one in unit.needs:
                users[one].append(number)
        return users

    @cached_property
    def _feeds_mme(self) -> list[bool]:
        """Whether an MME unit waits for a unit directly, so that it could be that one's producer."""
        return [any(self._units[one].engine is Engine.MME for one in users) for users in self._users]


def _bytes(traffic: Sequence[tuple[int, int]]) -> int:
    return sum(nbytes for _, nbytes in traffic)

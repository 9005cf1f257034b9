"""How far a simulated time moves with the constants that nobody knows exactly.

Every constant with an interval is set to its low and to its high end, one at a time; the whole program is compiled and
simulated anew. Deviations of independent constants are added in squares, those that make it faster and those that make
it slower apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from overlap.devices.base import Effect, Uncertainty
from overlap.devices.gaudi.constants import Constants
from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.machine import Machine
from overlap.devices.gaudi.plan import compile_program
from overlap.devices.gaudi.settings import GaudiConfig
from overlap.program import Program


def uncertainty(
    program: Program, order: Sequence[int], constants: Constants, config: GaudiConfig, serial: bool = False
) -> Uncertainty:
    """Simulate `program` once as it is, and twice for every uncertain constant."""

    def time_ns(changed: Constants) -> int:
        costs = Costs(Machine.of(changed))
        return compile_program(program, order, costs, config, serial).run().time_ns

    base = time_ns(constants)
    effects = []
    for name, entry in constants.entries.items():
        if entry.low is None or entry.high is None:
            continue
        # A count stays a whole number.
        whole = isinstance(entry.value, int)
        ends = [round(end) if whole else end for end in (entry.low, entry.high)]
        at_low, at_high = (time_ns(constants.replaced({name: end})) for end in ends)
        effects.append(Effect(name, at_low, at_high, entry.source))
    effects.sort(key=lambda one: -max(abs(one.at_low_ns - base), abs(one.at_high_ns - base)))
    return Uncertainty(base, *interval(base, effects), tuple(effects))


def interval(base_ns: int, effects: Sequence[Effect]) -> tuple[float, float]:
    """Least and largest time, deviations added in squares."""
    faster = sqrt(sum(min(0, one.at_low_ns - base_ns, one.at_high_ns - base_ns) ** 2 for one in effects))
    slower = sqrt(sum(max(0, one.at_low_ns - base_ns, one.at_high_ns - base_ns) ** 2 for one in effects))
    return base_ns - faster, base_ns + slower

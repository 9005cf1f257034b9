"""How far a simulated time, or the quotient of two, moves with the constants that nobody knows exactly.

Every constant with an interval is set to its low and to its high end, one at a time; the programs are compiled and
simulated anew. Deviations of independent constants are added in squares, those upwards and those downwards apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import sqrt

from overlap.devices.base import Effect, Uncertainty
from overlap.devices.gaudi.constants import Constants
from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.machine import Machine
from overlap.stats import Interval

# A value of the model, from the costs of a machine.
Question = Callable[[Costs], float]


def uncertainty(time_ns: Question, constants: Constants) -> Uncertainty:
    """Ask for a time as the constants are, and twice for every uncertain one."""
    base = round(time_ns(_costs(constants)))
    effects = [
        Effect(name, round(time_ns(_costs(low))), round(time_ns(_costs(high))), constants.entries[name].source)
        for name, low, high in _variations(constants)
    ]
    effects.sort(key=lambda one: -max(abs(one.at_low_ns - base), abs(one.at_high_ns - base)))
    low_ns, high_ns = spread(base, [(one.at_low_ns, one.at_high_ns) for one in effects])
    return Uncertainty(base, low_ns, high_ns, tuple(effects))


def quotient_interval(quotient: Question, constants: Constants) -> Interval:
    """The interval of a quotient of two times under the same constants."""
    base = quotient(_costs(constants))
    ends = [(quotient(_costs(low)), quotient(_costs(high))) for _, low, high in _variations(constants)]
    low_end, high_end = spread(base, ends)
    return Interval(base, low_end, high_end, 1 + 2 * len(ends))


def spread(base: float, ends: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least and largest value, deviations added in squares."""
    below = sqrt(sum(min(0.0, low - base, high - base) ** 2 for low, high in ends))
    above = sqrt(sum(max(0.0, low - base, high - base) ** 2 for low, high in ends))
    return base - below, base + above


def _costs(constants: Constants) -> Costs:
    return Costs(Machine.of(constants))


def _variations(constants: Constants) -> Iterator[tuple[str, Constants, Constants]]:
    """Uncertain constants, and all constants with that one at its low and at its high end."""
    for name, entry in constants.entries.items():
        if entry.low is None or entry.high is None:
            continue
        # A count stays a whole number.
        whole = isinstance(entry.value, int)
        low, high = (round(end) if whole else end for end in (entry.low, entry.high))
        yield name, constants.replaced({name: low}), constants.replaced({name: high})

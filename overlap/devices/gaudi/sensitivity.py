"""How far a simulated time, or the quotient of two, moves with the constants that nobody knows exactly.

Every constant with an interval is set to its low and to its high end, one at a time; the programs are compiled and
simulated anew. Deviations of independent constants are added in squares, those upwards and those downwards apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import NamedTuple

from overlap.devices.base import Effect, Uncertainty
from overlap.devices.gaudi.constants import Constants
from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.machine import Machine
from overlap.stats import Interval

# A time by the model, in ns, from the costs of a machine.
Question = Callable[[Costs], float]


class Variation(NamedTuple):
    """One uncertain constant, and the costs of machines that have it at its low and at its high end."""

    name: str
    source: str
    low: Costs
    high: Costs


class Varied(NamedTuple):
    """A time as the constants are, and with each uncertain one at its low and at its high end."""

    base: float
    ends: tuple[tuple[float, float], ...]


def variations(constants: Constants) -> list[Variation]:
    """Every uncertain constant. The costs remember the kernels that they were asked for: make them once."""
    found = []
    for name, entry in constants.entries.items():
        if entry.low is None or entry.high is None:
            continue
        # A count stays a whole number.
        whole = isinstance(entry.value, int)
        ends = (round(end) if whole else end for end in (entry.low, entry.high))
        low, high = (Costs(Machine.of(constants.replaced({name: end}))) for end in ends)
        found.append(Variation(name, entry.source, low, high))
    return found


def vary(time_ns: Question, costs: Costs, around: Sequence[Variation]) -> Varied:
    """Ask for a time as the constants are, and twice for every uncertain one."""
    return Varied(time_ns(costs), tuple((time_ns(one.low), time_ns(one.high)) for one in around))


def uncertainty(varied: Varied, around: Sequence[Variation]) -> Uncertainty:
    """A time with its interval, and what each constant does to it."""
    base = round(varied.base)
    effects = [
        Effect(one.name, round(low), round(high), one.source)
        for one, (low, high) in zip(around, varied.ends, strict=True)
    ]
    effects.sort(key=lambda one: -max(abs(one.at_low_ns - base), abs(one.at_high_ns - base)))
    low_ns, high_ns = spread(base, [(one.at_low_ns, one.at_high_ns) for one in effects])
    return Uncertainty(base, low_ns, high_ns, tuple(effects))


def quotient_interval(over: Varied, under: Varied) -> Interval:
    """The interval of a quotient of two times under the same constants."""
    base = over.base / under.base
    pairs = zip(over.ends, under.ends, strict=True)
    ends = [(one[0] / other[0], one[1] / other[1]) for one, other in pairs]
    low_end, high_end = spread(base, ends)
    return Interval(base, low_end, high_end, 1 + 2 * len(ends))


def spread(base: float, ends: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least and largest value, deviations added in squares."""
    below = sqrt(sum(min(0.0, low - base, high - base) ** 2 for low, high in ends))
    above = sqrt(sum(max(0.0, low - base, high - base) ** 2 for low, high in ends))
    return base - below, base + above

"""From the metric and unit of a row to a `Measure`."""

from __future__ import annotations

import math
import re

from overlap.devices.gaudi.validation.cases import TIMES_NS, Measure
from overlap.devices.gaudi.validation.rows import Inexpressible, Row
from overlap.errors import ConfigError

_TERA = 1e12
_RATES = {"TFLOPS": "flops", "TFLOPS/HPU": "flops", "GFLOPS": "flops", "TB/s": "bytes", "GB/s": "bytes"}


def measure(row: Row, tokens: float = 0.0, flops: float = 0.0, nbytes: float = 0.0) -> Measure:
    """The measure of a row, given what the whole of its predicted time achieves.

    Args:
        row: as published.
        tokens: that its source counts.
        flops: likewise; per card where the unit says so.
        nbytes: moved.

    Raises:
        Inexpressible: the unit is neither a time nor one of these rates.
        ConfigError: the value gives no time.
    """
    unit = row.unit
    if unit in TIMES_NS:
        return checked(row, Measure(TIMES_NS[unit]))
    if re.match(r"tok(en)?s?/s", unit) and tokens:
        return checked(row, Measure(tokens * 1e9, rate=True))
    amount = {"flops": flops, "bytes": nbytes}.get(_RATES.get(unit, ""), 0.0)
    if amount:
        scale = _TERA if unit.startswith("T") else _TERA / 1e3
        return checked(row, Measure(amount * 1e9 / scale, rate=True))
    raise Inexpressible(f"{row.metric} in {unit or 'no unit'} is no time or rate of this workload")


def checked(row: Row, how: Measure) -> Measure:
    """The measure, if it makes a time of the row's value; raises `ConfigError` otherwise."""
    if not row.value > 0:
        raise ConfigError(f"row {row.id}, column value, is {row.value:g}", "a time or a rate is above 0")
    if not 0 < how.time_of(row.value) < math.inf:
        raise ConfigError(f"row {row.id}, column value, is {row.value:g}", f"out of range for {row.unit}")
    return how

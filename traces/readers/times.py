"""Decimal µs, as trace files hold them, to integer ns.

Contract: exact to the ns; digits below a ns are rounded half away from zero. What is no number, or is further from zero
than int64 ns can hold, is None.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import numpy.typing as npt

# Rather more than 100 years; beyond this a time is not one.
ABSURD_NS = 4 * 10**18
# No kernel runs for longer than a day; a row that says so would be all of the window.
LONGEST_NS = 86_400 * 10**9


def micros_to_ns(text: bytes | str) -> int | None:
    """Ns of a JSON number or a JSON string that holds one; None for anything else."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    try:
        value = (Decimal(text.strip('" \t\r\n')) * 1000).to_integral_value(ROUND_HALF_UP)
        return int(value) if abs(value) < ABSURD_NS else None
    except (ArithmeticError, ValueError):
        return None


def doubles_to_ns(micros: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Ns of µs below 2**43 in size, or of any whole µs.

    The whole part and the rest are converted apart: their difference is exact, so the rest is off by half a ns at most.
    """
    whole = np.floor(micros)
    return whole.astype(np.int64) * 1000 + np.rint((micros - whole) * 1000).astype(np.int64)


def double_loses_ns(micros: npt.NDArray[np.float64]) -> bool:
    """Whether ns were lost already when these µs were read as doubles, or are more than int64 holds."""
    far = micros[np.abs(micros) >= 2.0**43]
    return bool(far.size) and bool(np.any(far % 1.0) or np.abs(far).max() >= ABSURD_NS / 1000)

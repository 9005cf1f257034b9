"""Numbers as people read them."""

from __future__ import annotations

UNITS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"))


def time_text(time_ns: int) -> str:
    """A time with three or four digits and its unit: `873 ns`, `12.3 µs`, `1,204 s`."""
    size = abs(time_ns)
    for factor, unit in UNITS:
        if size >= factor:
            value = time_ns / factor
            digits = 2 if size < 10 * factor else 1 if size < 100 * factor else 0
            return f"{value:,.{digits}f} {unit}"
    return f"{time_ns} ns"


def share_text(share: float) -> str:
    """A fraction as a percentage with one decimal; `<0.1 %` for what would round to zero."""
    return "<0.1 %" if 0 < abs(share) < 0.0005 else f"{share:.1%}".replace("%", " %")


def elided(text: str, most: int) -> str:
    """Text with its middle cut out where it is long, since names differ at both ends."""
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[head + 1 - most :]}"


def counted(count: int, what: str) -> str:
    """`1 op`, `2 ops`, `12,000 ops`."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")

"""CSV files of the Gaudi tools as tables of text, and the few kinds of cell that they have.

Columns are known by name, never by position: releases add and leave out some. Names are compared without case, spaces
and punctuation. Times are decimal µs with up to six decimals, ps, which doubles would not keep; they are taken apart as
text into whole µs and ps of the rest.
"""

from __future__ import annotations

import re
import warnings
from decimal import Decimal

import polars as pl

from overlap.errors import TraceError
from overlap.traces.readers.times import ABSURD_NS
from overlap.traces.trace import Tally

# What the tools write where they know nothing.
MISSING = ("", "nan", "[]", "[error]", "n/a", "none", "null", "-nan", "[[]]")
CUT_ROW = "row that the file breaks off in"
# Missing cells that a table may have; each takes memory like any other.
_MOST_MISSING = 10_000_000
_DECIMAL = r"^\s*([+-]?)(\d{1,16})(?:\.(\d*))?\s*$"


def plain(name: str) -> str:
    """A column's name without case, spaces and punctuation."""
    return re.sub(r"[^a-z0-9²%]", "", name.lower())


def read_text_csv(data: bytes, source: str, tally: Tally) -> pl.DataFrame:
    """All cells as text, empty ones as null; columns have their `plain` names, the first of equal ones counts.

    Raises:
        TraceError: where there is no table.
    """
    whole = _without_cut_row(data, tally)
    _refuse_blank(whole, source)
    try:
        frame = _parsed(whole, '"')
    except pl.exceptions.NoDataError as error:
        raise TraceError(f"{source} is empty", "profile again, or check that it was copied whole") from error
    except pl.exceptions.PolarsError:
        # A quote that is never closed: take quotes as letters.
        try:
            frame = _parsed(whole, None)
        except pl.exceptions.PolarsError as error:
            reason = str(error).splitlines()[0]
            raise TraceError(f"{source} is no CSV table: {reason}", "check that it was copied whole") from error
    hidden = whole.removesuffix(b"\n").count(b"\n") - frame.height
    if hidden > 0:
        tally.warn(f"{hidden:,} line ends are inside quotes: rows are hidden there if one of those is stray")
    names: dict[str, str] = {}
    for name in frame.columns:
        names.setdefault(plain(name), name)
    return frame.select(pl.col(name).alias(short) for short, name in names.items())


def _parsed(data: bytes, quote: str | None) -> pl.DataFrame:
    with warnings.catch_warnings():
        # Polars reads in parts, and prints a line where a quote makes it guess the wrong beginning of one.
        warnings.filterwarnings("ignore", message="CSV malformed")
        return pl.read_csv(
            data,
            infer_schema=False,
            truncate_ragged_lines=True,
            ignore_errors=True,
            encoding="utf8-lossy",
            quote_char=quote,
        )


def _refuse_blank(data: bytes, source: str) -> None:
    """Refuse a table of hardly any cells, which would take gigabytes once every line has all its columns.

    Raises:
        TraceError: most cells are missing, and there are many.
    """
    lines = data.count(b"\n")
    columns = data.count(b",", 0, data.find(b"\n") + 1) + 1
    if lines * columns > 2 * (data.count(b",") + lines) + _MOST_MISSING:
        raise TraceError(f"{source} has {lines:,} lines, most of them without cells", "check that it was copied whole")


def _without_cut_row(data: bytes, tally: Tally) -> bytes:
    """Without a last line that has neither an end nor all its cells: its last number may lack digits."""
    head, last = data.find(b"\n"), data.rfind(b"\n")
    if head < 0 or last == len(data) - 1 or data.count(b",", last) >= data.count(b",", 0, head):
        return data
    tally.drop(CUT_ROW)
    return data[: last + 1]


def micros(text: pl.Series) -> pl.DataFrame:
    """`whole_us` and `rest_ps` of decimal µs, of one sign, both null for what is no time; ps are cut off below."""
    parts = text.to_frame("text").select(
        pl.col("text").str.extract(_DECIMAL, 1).alias("sign"),
        pl.col("text").str.extract(_DECIMAL, 2).cast(pl.Int64, strict=False).alias("whole_us"),
        (pl.col("text").str.extract(_DECIMAL, 3).fill_null("") + "000000").str.slice(0, 6).alias("rest"),
    )
    sign = pl.when(pl.col("sign") == "-").then(-1).otherwise(1)
    known = pl.col("whole_us") < ABSURD_NS // 1000
    found = parts.select(
        pl.when(known).then(pl.col("whole_us") * sign).alias("whole_us"),
        pl.when(known).then(pl.col("rest").cast(pl.Int64, strict=False) * sign).alias("rest_ps"),
    )
    return _with_odd(text, found)


def _with_odd(text: pl.Series, found: pl.DataFrame) -> pl.DataFrame:
    """Numbers that are written otherwise (`5.5e8`), one by one."""
    odd = text.to_frame("text").filter(found["whole_us"].is_null() & text.str.contains(r"(?i)\d\.?\d*e[+-]?\d"))
    if odd.is_empty():
        return found
    values = {one: _decimal_ps(one) for one in odd["text"].unique().to_list()}
    known = {one: ps for one, ps in values.items() if ps is not None}
    if not known:
        return found
    # Truncation keeps the sign of both parts equal.
    wholes = {one: (abs(ps) // 10**6) * (1 if ps >= 0 else -1) for one, ps in known.items()}
    rests = {one: ps - wholes[one] * 10**6 for one, ps in known.items()}
    return found.select(
        pl.coalesce(name, text.replace_strict(table, default=None, return_dtype=pl.Int64)).alias(name)
        for name, table in (("whole_us", wholes), ("rest_ps", rests))
    )


def _decimal_ps(text: str) -> int | None:
    try:
        value = Decimal(text.strip())
        return int(value.scaleb(6)) if abs(value) * 1000 < ABSURD_NS else None
    except (ArithmeticError, ValueError):
        return None


def ns_of(whole_us: str | pl.Expr = "whole_us", rest_ps: str | pl.Expr = "rest_ps") -> pl.Expr:
    """Ns of the two parts of a time; half a ns is rounded away from zero."""
    rest = pl.col(rest_ps) if isinstance(rest_ps, str) else rest_ps
    whole = pl.col(whole_us) if isinstance(whole_us, str) else whole_us
    return whole * 1000 + rest.sign() * ((rest.abs() + 500) // 1000)


def micros_as_ns(text: pl.Series) -> pl.Series:
    """Ns of decimal µs, null for what is no time."""
    return micros(text).select(ns_of().alias(text.name)).to_series()


def wrapped(text: pl.Series) -> pl.Series:
    """Int64 of whole numbers; what a counter stored as uint64 is read as the negative number that it was."""
    frame = text.str.strip_chars().to_frame("text")
    return frame.select(
        pl.coalesce(
            pl.col("text").cast(pl.Int64, strict=False),
            pl.col("text").cast(pl.UInt64, strict=False).reinterpret(signed=True),
            pl.col("text").cast(pl.Float64, strict=False).round().cast(pl.Int64, strict=False),
        ).alias(text.name)
    ).to_series()


def present(text: pl.Series) -> pl.Series:
    """Texts without blanks around them; null for every marker of a missing value."""
    frame = text.cast(pl.String).str.strip_chars().to_frame("text")
    missing = pl.col("text").str.to_lowercase().is_in(MISSING)
    found: pl.Series = frame.select(pl.when(missing.not_()).then("text").alias(text.name)).to_series()
    return found

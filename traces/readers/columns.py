"""Rows of a Chrome trace → columns: numbers as numpy arrays, repeated texts as codes.

Batches come and go; what stays of a row is about 60 bytes, whatever its names and args were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from overlap.traces.readers.decode import Batch
from overlap.traces.readers.times import ABSURD_NS, LONGEST_NS, double_loses_ns, doubles_to_ns
from overlap.traces.trace import Tally

Ints = npt.NDArray[np.int64]
_INT64_MAX = (1 << 63) - 1


class Codes(dict[Any, int]):
    """Gives every key a number, in order of first use."""

    def __missing__(self, key: Any) -> int:
        """The next number."""
        code = self[key] = len(self)
        return code

    def series(self, codes: Ints | Sequence[int], text: Callable[[Any], str] = str) -> pl.Series:
        """Texts of `codes`."""
        table = pl.Series([text(key) for key in self], dtype=pl.String)
        return table.gather(pl.Series(codes, dtype=pl.UInt32)) if len(table) else table


def integers(rows: Sequence[Any], attribute: str) -> Ints:
    """Int64 of whatever a JSON file has where an integer is due; -1 for what is none."""
    take = attrgetter(attribute)
    try:
        return np.fromiter(map(take, rows), np.int64, len(rows))
    except (TypeError, ValueError, OverflowError):
        return np.fromiter(map(integer, map(take, rows)), np.int64, len(rows))


def coded(rows: Sequence[Any], codes: Codes, *attributes: str) -> Ints:
    """Codes of an attribute, or of a tuple of several."""
    return np.fromiter(map(codes.__getitem__, map(attrgetter(*attributes), rows)), np.int64, len(rows))


def integer(value: Any) -> int:
    """Integer of a number or a text, wrapped to int64 as counters are; -1 for what is none."""
    try:
        found = int(value)
    except (TypeError, ValueError, OverflowError):
        return -1
    if abs(found) > 1 << 64:
        return -1
    return (found + (1 << 63)) % (1 << 64) - (1 << 63) if abs(found) > _INT64_MAX else found


class Columns:
    """Columns that grow part by part; all parts have the same names."""

    def __init__(self) -> None:
        self.parts: dict[str, list[Ints]] = {}
        self.rows = 0

    def add(self, rows: int, columns: Mapping[str, Ints]) -> None:
        """Append `rows` rows."""
        self.rows += rows
        for name, values in columns.items():
            self.parts.setdefault(name, []).append(values)

    def done(self) -> dict[str, Ints]:
        """All columns, each in one piece; the parts are freed on the way."""
        found = {}
        for name in list(self.parts):
            found[name] = np.concatenate(self.parts.pop(name))
        return found


def times_of(rows: list[Any], batch: Batch) -> tuple[Ints, Ints] | None:
    """Start and end in ns; None if the batch must be read again exactly.

    A row without a start begins at -1 - ABSURD_NS, one without a duration lasts -1.
    """
    count = len(rows)
    if batch.exact:
        nothing = -1 - ABSURD_NS
        starts = np.fromiter((nothing if row.ts is None else row.ts for row in rows), np.int64, count)
        return starts, starts + np.fromiter((-1 if row.dur is None else row.dur for row in rows), np.int64, count)
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    begin = np.fromiter(map(_TS, rows), np.float64, count)
    length = np.fromiter(map(_DUR, rows), np.float64, count)
    if double_loses_ns(begin) or double_loses_ns(length) or max(np.abs(begin).max(), length.max()) > 2.0**51:
        return None
    starts = doubles_to_ns(begin)
    return starts, starts + doubles_to_ns(length)


_TS, _DUR = attrgetter("ts"), attrgetter("dur")


def sound(rows: list[Any], starts: Ints, ends: Ints, tally: Tally, what: str) -> tuple[list[Any], Ints, Ints]:
    """Without the rows whose times cannot be; those are counted as dropped."""
    absurd = (starts <= -ABSURD_NS) | (np.abs(ends) >= ABSURD_NS)
    negative = ~absurd & (ends < starts)
    endless = ~absurd & (ends - starts > LONGEST_NS)
    bad = absurd | negative | endless
    if not bad.any():
        return rows, starts, ends
    tally.drop(f"{what} without a possible time", int(absurd.sum()))
    tally.drop(f"{what} of negative or unknown duration", int(negative.sum()))
    tally.drop(f"{what} that lasts longer than a day", int(endless.sum()))
    return [row for row, drop in zip(rows, bad, strict=True) if not drop], starts[~bad], ends[~bad]

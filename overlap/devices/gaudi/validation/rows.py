"""Rows of published measurements, read from a CSV file.

Contract: a file either gives all its rows or one `ConfigError` that names row and column. A parameter that is missing
or no whole number is the row's own imperfection, which `Row.need` reports as a reason, not as an error.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from overlap.errors import ConfigError

COLUMNS = (
    *("id", "source", "url_or_arxiv", "section_or_table", "chip", "op_or_workload", "dtype", "params_json"),
    *("metric", "value", "unit", "confidence", "use"),
)
SHIPPED = "published.csv"


class Inexpressible(Exception):
    """A row that cannot be put as questions to a predictor; the message is the reason, for people."""


@dataclass(frozen=True)
class Row:
    """One published number and its conditions; the fields are the columns of the file."""

    id: str
    source: str
    url: str
    section: str
    chip: str
    op: str
    dtype: str
    params: Mapping[str, Any]
    metric: str
    value: float
    unit: str
    confidence: str
    use: str

    @property
    def calibration(self) -> bool:
        """Whether constants may have been fitted to it."""
        return self.use.startswith("cal:")

    def count(self, name: str) -> int | None:
        """A parameter that counts something; None where the source does not say."""
        value = self.params.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST else None

    def need(self, name: str) -> int:
        """The same where nothing can be said without it; raises `Inexpressible`."""
        value = self.count(name)
        if value is None:
            raise Inexpressible(f"{NAMES.get(name, name)} is not recorded")
        return value


# Parameters as people call them, and the most that one may count.
NAMES = {
    "in_len": "prompt length",
    "out_len": "output length",
    "num_devices": "number of cards",
    "seq": "prompt length",
}
MOST = 10**12


def read_rows(path: Path | None = None) -> list[Row]:
    """The rows of a file, or those that are shipped.

    Raises:
        ConfigError: it cannot be read, lacks a column, or a cell is damaged.
    """
    if path is None:
        place, text = SHIPPED, files("overlap.devices.gaudi.validation").joinpath(SHIPPED).read_text(encoding="utf-8")
    else:
        place, text = str(path), _text(path)
    found: dict[str, Row] = {}
    for record in _records(place, text):
        row = _row(place, record)
        if row.id in found:
            raise ConfigError(f"{place}: row {row.id} stands there twice", "ids must differ")
        found[row.id] = row
    if not found:
        raise ConfigError(f"{place} has no rows", f"a CSV file with the columns {', '.join(COLUMNS)}")
    return list(found.values())


def _text(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", "rows=<a CSV file>") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error.reason}", "rows=<a CSV file>") from error


def _records(place: str, text: str) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ConfigError(f"{place} lacks the column {missing[0]!r}", f"columns: {', '.join(COLUMNS)}")
        for number, record in enumerate(reader, 1):
            if None in record or None in record.values():
                name = record.get("id") or f"number {number}"
                raise ConfigError(f"{place}: row {name} has more or fewer cells than the header", "quote commas")
            yield record
    except csv.Error as error:
        raise ConfigError(f"{place}, line {reader.line_num}, is no CSV: {error}", "rows=<a CSV file>") from error


def _row(place: str, record: Mapping[str, str]) -> Row:
    where = f"{place}: row {record['id'] or '?'}"
    if not record["id"]:
        raise ConfigError(f"{where}, column id, is empty", "every row needs a name of its own")
    return Row(
        id=record["id"],
        source=record["source"],
        url=record["url_or_arxiv"],
        section=record["section_or_table"],
        chip=record["chip"],
        op=record["op_or_workload"],
        dtype=record["dtype"],
        params=_params(where, record["params_json"]),
        metric=record["metric"],
        value=_value(where, record["value"]),
        unit=record["unit"],
        confidence=record["confidence"],
        use=record["use"],
    )


def _params(where: str, text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}, column params_json, is no JSON: {error}", 'such as {"batch":1}') from error
    if not isinstance(found, dict):
        raise ConfigError(f"{where}, column params_json, is {text!r}", 'a JSON object, such as {"batch":1}')
    return found


def _value(where: str, text: str) -> float:
    """The number of a cell; nan for sizes such as `128x512`, which some facts have in its place."""
    if re.fullmatch(r"\d+(x\d+)+", text):
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{where}, column value, is {text!r}", "it must be a number")
    return value

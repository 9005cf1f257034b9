"""What `overlap validate` prints: errors per group, the worst rows, comparisons that fail, and what is left out."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from overlap.commands.look import new_table
from overlap.devices.gaudi.validation.evaluate import Outcome, Validation
from overlap.devices.gaudi.validation.groups import meaning

NOTHING = "–"


def validation_tables(result: Validation, worst: int) -> Iterator[Table]:
    """The tables; `worst` is how many rows, and how many comparisons, are shown singly."""
    yield _groups(result)
    rows = worst_rows(result, worst)
    if rows:
        yield _worst(rows)
    if result.directions:
        yield _directions(result, worst)
    if result.refused:
        yield _refused(result)


def worst_rows(result: Validation, most: int) -> list[Outcome]:
    """Validation rows of any group with the largest errors, the largest first."""
    judged = [one for one in result.outcomes if one.groups and not one.case.row.calibration]
    return sorted(judged, key=lambda one: (-abs(one.error), one.case.row.id))[:most]


def percent(share: float | None, signed: bool = False) -> str:
    """A fraction as a percentage with one decimal."""
    return NOTHING if share is None else f"{share:{'+' if signed else ''}.1%}".replace("%", " %")


def _groups(result: Validation) -> Table:
    title = f"{result.chip}, simulated by {result.model} {result.version}: errors of time against published rows"
    table = new_table(escape(title), "group", "rows", "MAPE", "bias", "calibration", "of what")
    _last_is_text(table)
    for name, group in result.groups.items():
        cells = str(group.n), percent(group.mape), percent(group.bias, signed=True), str(group.calibration_n)
        table.add_row(name, *cells, meaning(name))
    return table


def _worst(rows: list[Outcome]) -> Table:
    table = new_table(f"the {len(rows)} rows with the largest errors", "row", "published", "predicted", "error", "")
    _last_is_text(table)
    for one in rows:
        row = one.case.row
        values = f"{row.value:,.4g} {row.unit}", f"{one.value:,.4g} {row.unit}"
        table.add_row(row.id, *map(escape, values), percent(one.error, signed=True), escape(one.case.workload))
    return table


def _directions(result: Validation, most: int) -> Table:
    wrong = [one for one in result.directions if not one.agrees]
    title = (
        f"{len(result.directions) - len(wrong)} of {len(result.directions)} published comparisons point the same way"
    )
    shown = sorted(wrong, key=lambda one: -abs(one.predicted / one.published - 1))[:most]
    title += f"; {len(shown)} of the {len(wrong)} that do not:" if shown else ""
    table = new_table(title, "switch", "published", "predicted", "")
    _last_is_text(table)
    for one in shown:
        table.add_row(one.switch, f"{one.published:.3f}×", f"{one.predicted:.3f}×", escape(one.workload))
    return table


def _last_is_text(table: Table) -> None:
    """The last column explains: it stands left, and it alone is broken into lines."""
    for column in table.columns:
        column.no_wrap = True
    table.columns[-1].justify, table.columns[-1].no_wrap = "left", False


def _refused(result: Validation) -> Table:
    count = sum(map(len, result.refused.values()))
    table = new_table(f"{count} rows are left out", "why", "rows")
    table.columns[0].no_wrap = False
    for reason, ids in sorted(result.refused.items(), key=lambda entry: -len(entry[1])):
        table.add_row(escape(reason), str(len(ids)))
    return table

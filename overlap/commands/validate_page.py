"""The page of a validation: errors, predicted against published, comparisons, and what is left out."""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import Any

import polars as pl

from overlap.analysis.figures.predicted import predicted_against_published
from overlap.analysis.html import badge, document, figure_html, listed, section, table_html
from overlap.app.config import ValidateRoot
from overlap.commands.validate_tables import percent, worst_rows
from overlap.devices.gaudi.validation.evaluate import Outcome, Validation
from overlap.devices.gaudi.validation.groups import meaning

EVIDENCE = "simulated"
MS = 1e6
# Columns of the largest errors, and what stands above them.
WORST = {name: name for name in ("row", "workload", "published", "predicted", "unit")}
WORST |= {"error share": "error", "source": "source"}
METHOD = (
    "An error is predicted time over published time, less 1: above 0 the model is slower than the measurement. Rates "
    "are turned into times first. MAPE is the mean of the errors' sizes, bias their mean.",
    "Calibration rows, which constants may have been fitted to, are shown hollow and counted in neither.",
    "Every other row stands below with the reason why it is not predicted.",
)


def page(result: Validation, root: ValidateRoot) -> str:
    """The page as text."""
    title = f"{result.chip} against published measurements"
    parts = [
        f"<header><h1>{escape(title)} {badge(EVIDENCE)}</h1>"
        f"<p class='muted'>{escape(result.model)} {escape(result.version)}</p></header>",
        section("Errors", table_html(_groups(result), most=100)),
        *_figures(result),
        section("Largest errors", table_html(_worst(result, root.worst), WORST, root.worst)) if result.outcomes else "",
        section("Comparisons", table_html(_comparisons(result), most=500)) if result.directions else "",
        section("Left out", table_html(_refused(result), most=500)) if result.refused else "",
        _method(root),
    ]
    return document(title, "\n".join(part for part in parts if part))


def _figures(result: Validation) -> list[str]:
    drawn = [one for one in result.outcomes if one.groups]
    times = [_point(one, MS) for one in drawn if not one.case.over]
    quotients = [_point(one, 1.0) for one in drawn if one.case.over]
    note = "A colour per group; hollow: calibration. Above the line the model is slower than the measurement."
    found = []
    if times:
        found.append(section("Times", figure_html(predicted_against_published(pl.DataFrame(times), "ms")), note))
    if quotients:
        figure = predicted_against_published(pl.DataFrame(quotients), "time with over without the switch")
        found.append(section("Quotients of times", figure_html(figure)))
    return found


def _point(one: Outcome, unit: float) -> dict[str, Any]:
    row = one.case.row
    return {
        "id": row.id,
        "group": one.groups[0],
        "workload": one.case.workload,
        "published": one.case.published / unit,
        "predicted": one.predicted / unit,
        "calibration": row.calibration,
    }


def _groups(result: Validation) -> pl.DataFrame:
    rows = [
        (name, str(one.n), percent(one.mape), percent(one.bias, signed=True), str(one.calibration_n), meaning(name))
        for name, one in result.groups.items()
    ]
    return pl.DataFrame(
        rows,
        schema=dict.fromkeys(("group", "rows", "MAPE", "bias", "calibration", "of what"), pl.String),
        orient="row",
    )


def _worst(result: Validation, most: int) -> pl.DataFrame:
    rows = [
        {
            "row": one.case.row.id,
            "workload": one.case.workload,
            "published": one.case.row.value,
            "predicted": one.value,
            "unit": one.case.row.unit,
            "error share": one.error,
            "source": one.case.row.source,
        }
        for one in worst_rows(result, most)
    ]
    return pl.DataFrame(rows)


def _comparisons(result: Validation) -> pl.DataFrame:
    rows = [
        {
            "switch": one.switch,
            "workload": one.workload,
            "published": one.published,
            "predicted": one.predicted,
            "agrees": "yes" if one.agrees else "no",
            "rows": " ".join(one.ids),
        }
        for one in sorted(result.directions, key=lambda one: one.agrees)
    ]
    return pl.DataFrame(rows)


def _refused(result: Validation) -> pl.DataFrame:
    rows = [
        {"why": f"{reason}.", "rows": len(ids), "ids": " ".join(ids) + "."} for reason, ids in result.refused.items()
    ]
    return pl.DataFrame(rows)


def _method(root: ValidateRoot) -> str:
    created = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    rows = (
        f"Rows: {root.rows}" if root.rows else "Rows: those that are shipped, each with its source in validation.json"
    )
    return section("How this was made", listed([*METHOD, f"{rows}."]) + f'<p class="muted">{escape(created)}</p>')

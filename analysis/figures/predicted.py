"""Predictions of a model against what was published."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from overlap.analysis.figures.style import INK, dress, plain

# Hues of the Okabe-Ito set, and darker ones of the same for what is left.
COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"),
    *("#66727f", "#b8a000", "#0b3c5d", "#8c4a00", "#7c2457", "#00614a"),
)
HOVER = "<b>%{customdata[0]}</b><br>%{customdata[1]}<br>published %{x:.4g}, predicted %{y:.4g}"


def predicted_against_published(rows: pl.DataFrame, unit: str) -> go.Figure:
    """A point per row on two logarithmic axes, with the line on which a perfect model would lie.

    Args:
        rows: columns `id, group, workload, published, predicted, calibration`; a colour per group, calibration rows
            hollow.
        unit: of both numbers.
    """
    figure = go.Figure()
    for number, group in enumerate(rows["group"].unique(maintain_order=True)):
        for calibration in (False, True):
            found = rows.filter(group=group, calibration=calibration)
            if not found.is_empty():
                figure.add_trace(_points(found, group, COLOURS[number % len(COLOURS)], calibration))
    if not rows.is_empty():
        ends = [*rows["published"].to_list(), *rows["predicted"].to_list()]
        low, high = min(ends) / 1.5, max(ends) * 1.5
        line = {"color": INK, "width": 1, "dash": "dot"}
        figure.add_trace(
            go.Scatter(x=[low, high], y=[low, high], mode="lines", line=line, name="equal", hoverinfo="skip")
        )
    figure.update_xaxes(type="log", title_text=f"published, {unit}")
    figure.update_yaxes(type="log", title_text=f"predicted, {unit}")
    return dress(figure, 520)


def _points(rows: pl.DataFrame, group: str, colour: str, calibration: bool) -> go.Scatter:
    return go.Scatter(
        name=f"{plain(group)}, calibration" if calibration else plain(group),
        mode="markers",
        x=rows["published"].to_list(),
        y=rows["predicted"].to_list(),
        marker={"color": colour, "size": 8, "symbol": "circle-open" if calibration else "circle", "opacity": 0.8},
        customdata=[(plain(row["id"]), plain(row["workload"])) for row in rows.iter_rows(named=True)],
        hovertemplate=f"{HOVER}<extra>{plain(group)}</extra>",
    )

"""All candidates: time against peak memory."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from overlap.analysis.figures.style import BASELINE, CANDIDATE, KEPT, dress

MIB = 2**20
# How a candidate got its time, and how that is drawn.
MARKS = {
    "baseline": {"color": BASELINE, "symbol": "diamond", "size": 13},
    "kept": {"color": KEPT, "symbol": "star", "size": 16},
    "final": {"color": "#0072b2", "symbol": "circle", "size": 10},
    "race": {"color": CANDIDATE, "symbol": "circle", "size": 9},
    "screen": {"color": "#c3ccd5", "symbol": "circle-open", "size": 8},
}


def candidates(frame: pl.DataFrame) -> go.Figure:
    """A point per candidate.

    Args:
        frame: columns `name`, `stage` (a key of `MARKS`: the last stage that gave it a time), `time_ms`, `low_ms`,
            `high_ms`, `peak_bytes`, `note`.
    """
    figure = go.Figure()
    for stage, mark in MARKS.items():
        group = frame.filter(pl.col("stage") == stage)
        if group.is_empty():
            continue
        above = (group["high_ms"] - group["time_ms"]).to_list()
        below = (group["time_ms"] - group["low_ms"]).to_list()
        figure.add_trace(
            go.Scatter(
                name="predicted only"
                if stage == "screen"
                else f"compared in the {stage}"
                if stage in ("race", "final")
                else stage,
                mode="markers",
                x=(group["peak_bytes"] / MIB).to_list(),
                y=group["time_ms"].to_list(),
                error_y={"type": "data", "symmetric": False, "array": above, "arrayminus": below, "width": 3},
                marker=mark,
                customdata=list(zip(group["name"].to_list(), group["note"].to_list(), strict=True)),
                hovertemplate="<b>%{customdata[0]}</b><br>%{y:.1f} ms, %{x:.0f} MiB<br>%{customdata[1]}<extra></extra>",
            )
        )
    figure.update_xaxes(title_text="peak memory beside the inputs, MiB", rangemode="tozero")
    figure.update_yaxes(title_text="ms")
    return dress(figure, 420)

"""What each part of attention cost on each engine, and how much of it was hidden."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from overlap.analysis.figures.style import ENGINE_COLOURS, OTHER_PART, dress, plain, unit_of

MOST_ROWS = 24


def phase_bars(phases: pl.DataFrame) -> go.Figure:
    """A bar per phase and engine, longest first: solid where exposed, striped where hidden.

    Args:
        phases: columns `attention_phase, engine, exposed_ns, hidden_ns`.
    """
    rows = phases.group_by("attention_phase", "engine").agg(pl.col("exposed_ns", "hidden_ns").sum())
    total = pl.col("exposed_ns") + pl.col("hidden_ns")
    keys = ["attention_phase", "engine"]
    rows = rows.sort(total, *keys, descending=[True, False, False]).head(MOST_ROWS)
    names = [f"{plain(row['attention_phase'])} · {plain(row['engine'])}" for row in rows.iter_rows(named=True)]
    colours = [ENGINE_COLOURS.get(engine, OTHER_PART) for engine in rows["engine"]]
    unit = unit_of(rows.select(total.max()).item() or 0)
    figure = go.Figure()
    for title, column, look in (
        ("exposed", "exposed_ns", {"color": colours}),
        ("hidden", "hidden_ns", {"color": colours, "opacity": 0.45, "pattern": {"shape": "/", "size": 6}}),
    ):
        figure.add_trace(
            go.Bar(
                name=title,
                orientation="h",
                y=list(range(rows.height)),
                x=(rows[column] / unit.ns).to_list(),
                marker=look,
                customdata=list(zip(names, rows[column].to_list(), strict=True)),
                hovertemplate=f"%{{customdata[0]}}: %{{customdata[1]:,d}} ns {title}<extra></extra>",
            )
        )
    figure.update_yaxes(tickvals=list(range(rows.height)), ticktext=names, autorange="reversed")
    figure.update_xaxes(title_text=f"{unit.name}; solid: exposed, striped: hidden", rangemode="tozero")
    return dress(figure, 110 + 28 * max(rows.height, 2), barmode="stack", bargap=0.25, showlegend=False)

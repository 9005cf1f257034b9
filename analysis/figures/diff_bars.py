"""What moved most between two traces."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from overlap.analysis.figures.style import KEPT, REJECTED, dress, plain, short, unit_of

MOST = 20


def diff_bars(changes: pl.DataFrame, most: int = MOST) -> go.Figure:
    """A bar per op and engine whose exposed time changed, largest change first; left of 0 it became less.

    Args:
        changes: `overlap.analysis.diff.diff`.
        most: number of bars.
    """
    moved = pl.col("exposed_delta_ns")
    rows = changes.filter(moved != 0).sort(moved.abs(), "engine", "name", descending=[True, False, False]).head(most)
    found = list(rows.iter_rows(named=True))
    unit = unit_of(max((abs(row["exposed_delta_ns"]) for row in found), default=0))
    figure = go.Figure(
        go.Bar(
            orientation="h",
            y=list(range(len(found))),
            x=[row["exposed_delta_ns"] / unit.ns for row in found],
            marker={"color": [KEPT if row["exposed_delta_ns"] < 0 else REJECTED for row in found]},
            customdata=[
                (plain(row["name"]), row["engine"], row["status"], row["exposed_a_ns"], row["exposed_b_ns"])
                for row in found
            ],
            hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}, %{customdata[2]}: exposed "
            "%{customdata[3]:,d} → %{customdata[4]:,d} ns<extra></extra>",
            showlegend=False,
        )
    )
    names = [f"{short(row['name'], 34)} · {row['engine']}" for row in found]
    figure.update_yaxes(tickvals=list(range(len(found))), ticktext=names, autorange="reversed")
    figure.update_xaxes(title_text=f"change of exposed time, {unit.name}")
    return dress(figure, 110 + 24 * max(len(found), 3), bargap=0.25)

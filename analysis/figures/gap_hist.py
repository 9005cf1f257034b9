"""Idle time by the length of the gaps that it consists of."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from overlap.analysis.figures.style import BASELINE, dress, unit_of
from overlap.analysis.numbers import time_text


def gap_hist(bins: pl.DataFrame) -> go.Figure:
    """A bar per range of lengths; its height is the idle time in such gaps, its hover text has their number.

    Args:
        bins: `overlap.analysis.buckets.length_bins` of the gaps' lengths.
    """
    rows = list(bins.iter_rows(named=True))
    unit = unit_of(max((row["total_ns"] for row in rows), default=0))
    figure = go.Figure(
        go.Bar(
            x=list(range(len(rows))),
            y=[row["total_ns"] / unit.ns for row in rows],
            marker={"color": BASELINE},
            customdata=[
                (time_text(row["from_ns"]), time_text(row["to_ns"]), row["count"], time_text(row["total_ns"]))
                for row in rows
            ],
            hovertemplate="%{customdata[2]:,d} gaps of %{customdata[0]} to %{customdata[1]}: %{customdata[3]} in all"
            "<extra></extra>",
            showlegend=False,
        )
    )
    # The edges between bars are what has a length.
    edges = [row["from_ns"] for row in rows] + [row["to_ns"] for row in rows[-1:]]
    step = max(1, -(-len(edges) // 8))
    places = range(0, len(edges), step)
    figure.update_xaxes(tickvals=[at - 0.5 for at in places], ticktext=[time_text(edges[at]) for at in places])
    figure.update_xaxes(title_text="length of a gap", ticklabelstandoff=6)
    figure.update_yaxes(title_text=f"idle in all, {unit.name}", rangemode="tozero")
    return dress(figure, 300, bargap=0.06)

"""How busy each engine was over time."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from overlap.analysis.figures.style import BOTH, ENGINE_COLOURS, dress, unit_of


def engines_over_time(buckets: pl.DataFrame) -> go.Figure:
    """A strip per engine on one time axis, and one for MME and TPC at once.

    Args:
        buckets: `overlap.analysis.buckets.busy_over_time`.
    """
    strips = [(engine, f"{engine}_ns", colour) for engine, colour in ENGINE_COLOURS.items()]
    strips = [("both", "both_ns", BOTH), *(strip for strip in strips if strip[1] in buckets.columns)]
    figure = make_subplots(rows=len(strips), cols=1, shared_xaxes=True, vertical_spacing=0.16 / len(strips))
    length = buckets["end_ns"] - buckets["start_ns"]
    origin_ns = buckets["start_ns"][0] if buckets.height else 0
    # A share holds from the start of its bucket to its end, so there is one edge more than there are shares.
    edges = [*buckets["start_ns"].to_list(), *buckets["end_ns"].tail(1).to_list()]
    unit = unit_of(edges[-1] - origin_ns if edges else 0)
    times = [(edge - origin_ns) / unit.ns for edge in edges]
    for row, (name, column, colour) in enumerate(strips, start=1):
        shares = (buckets[column] / length).to_list()
        strip = go.Scatter(
            name=name,
            mode="lines",
            x=times,
            y=[*shares, *shares[-1:]],
            line={"shape": "hv", "width": 0.6, "color": colour},
            fill="tozeroy",
            hovertemplate=f"%{{y:.1%}} from %{{x:,.3f}} {unit.name}<extra>%{{fullData.name}}</extra>",
            showlegend=False,
        )
        figure.add_trace(strip, row=row, col=1)
        figure.update_yaxes(range=[0, 1.05], tickvals=[0.5], ticktext=[name], showgrid=False, row=row, col=1)
    figure.update_xaxes(title_text=f"{unit.name}; full height: busy all the time", row=len(strips), col=1)
    return dress(figure, 110 + 46 * len(strips))

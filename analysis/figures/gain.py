"""The gain: speed-ups with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping

import plotly.graph_objects as go

from overlap.analysis.figures.style import BASELINE, INK, KEPT, dress
from overlap.stats import Interval


def speedups(found: Mapping[str, Interval]) -> go.Figure:
    """A point with an error bar per comparison; right of 1 the kept variant is faster."""
    figure = go.Figure()
    values = list(found.values())
    figure.add_trace(
        go.Scatter(
            mode="markers",
            y=list(found),
            x=[one.median for one in values],
            error_x={
                "type": "data",
                "symmetric": False,
                # An interval without an end is drawn without a bar on that side; the hover text says so.
                "array": [one.high - one.median if math.isfinite(one.high) else None for one in values],
                "arrayminus": [one.median - one.low if one.low > 0 else None for one in values],
                "thickness": 2,
                "width": 7,
            },
            marker={"size": 11, "color": [KEPT if one.low > 1 else BASELINE for one in values]},
            customdata=[(one.low, one.high, one.samples) for one in values],
            hovertemplate="%{y}: %{x:.3f}x [%{customdata[0]:.3f}, %{customdata[1]:.3f}], "
            "%{customdata[2]} pairs<extra></extra>",
            showlegend=False,
        )
    )
    figure.add_vline(x=1.0, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text="speed-up of the kept variant")
    figure.update_yaxes(autorange="reversed", type="category")
    return dress(figure, 120 + 50 * len(found))

"""Partitions side by side: the window of each run cut by which engines were busy."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from overlap.analysis.figures.style import OTHER_PART, PART_COLOURS, dress, unit_of
from overlap.analysis.partition import Partition

NAMES = {"MME": "exposed MME", "TPC": "exposed TPC", "MME+TPC": "both"}


def parts(runs: Mapping[str, Partition]) -> go.Figure:
    """One stacked bar per run, in one unit, so that both the length and the shares can be compared."""
    figure = go.Figure()
    titles = list(runs)
    unit = unit_of(max((one.window_ns for one in runs.values()), default=0))
    for key in dict.fromkeys(key for one in runs.values() for key in one.parts_ns):
        times = [one.parts_ns.get(key, 0) for one in runs.values()]
        if not any(times):
            continue
        shares = [one.fraction(time_ns) for one, time_ns in zip(runs.values(), times, strict=True)]
        figure.add_trace(
            go.Bar(
                name=NAMES.get(key, key),
                orientation="h",
                y=titles,
                x=[time_ns / unit.ns for time_ns in times],
                marker={"color": PART_COLOURS.get(key, OTHER_PART)},
                text=[f"{share:.0%}" if share >= 0.04 else "" for share in shares],
                textposition="inside",
                insidetextanchor="middle",
                customdata=list(zip(shares, times, strict=True)),
                hovertemplate="%{y}: %{fullData.name} %{customdata[0]:.2%}, %{customdata[1]:,d} ns<extra></extra>",
            )
        )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title_text=unit.name)
    figure.update_layout(legend={"traceorder": "normal"})
    return dress(figure, 140 + 48 * len(runs), barmode="stack")

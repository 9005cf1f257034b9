"""Lanes of several runs on one time axis: what ran on which engine, and where an engine waited."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from overlap.analysis.figures.style import ENGINE_COLOURS, OTHER_PART, PHASE_COLOURS, dress

NS_PER_MS = 1e6
HOVER = (
    "<b>%{customdata[0]}</b><br>%{customdata[1]:.3f} ms from %{customdata[2]:.3f} ms"
    "<br>lane %{customdata[3]}, layer %{customdata[4]}, chunk %{customdata[5]}<extra></extra>"
)


def lanes(runs: Mapping[str, pl.DataFrame]) -> go.Figure:
    """One row of lanes per run.

    Args:
        runs: title of a run → its event table (`overlap.traces.schema`).

    Returns:
        A figure with a shared axis in ms; each run begins at 0. One bar trace per engine and stage, so that thousands
        of ops stay quick.
    """
    figure = make_subplots(rows=len(runs), cols=1, shared_xaxes=True, vertical_spacing=0.14, subplot_titles=list(runs))
    shown: set[tuple[str, str]] = set()
    for row, events in enumerate(runs.values(), start=1):
        origin_ns = min(events["start_ns"].to_list(), default=0)
        for (engine, phase), group in sorted(events.partition_by("engine", "phase", as_dict=True).items()):
            figure.add_trace(
                _bars(str(engine), str(phase), group, origin_ns, (engine, phase) not in shown), row=row, col=1
            )
            shown.add((engine, phase))
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title_text="ms", row=len(runs), col=1)
    for title in figure.layout.annotations:
        title.update(x=0, xanchor="left", font={"size": 13})
    dress(figure, 150 + 120 * len(runs), barmode="overlay", bargap=0.25)
    return figure


def _bars(engine: str, phase: str, events: pl.DataFrame, origin_ns: int, legend: bool) -> go.Bar:
    start = (events["start_ns"] - origin_ns) / NS_PER_MS
    length = (events["end_ns"] - events["start_ns"]) / NS_PER_MS
    columns = [events["name"], length, start, events["lane"], events["layer"], events["chunk"]]
    return go.Bar(
        name=f"{engine} {phase}",
        legendgroup=f"{engine} {phase}",
        showlegend=legend,
        orientation="h",
        y=events["lane"].to_list(),
        base=start.to_list(),
        x=length.to_list(),
        marker={
            "color": PHASE_COLOURS.get((engine, phase), ENGINE_COLOURS.get(engine, OTHER_PART)),
            "line": {"width": 0},
        },
        customdata=list(zip(*(column.to_list() for column in columns), strict=True)),
        hovertemplate=HOVER,
    )

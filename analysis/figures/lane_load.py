"""How busy each lane was, engine by engine."""

from __future__ import annotations

import re

import plotly.graph_objects as go
import polars as pl

from overlap.analysis.figures.style import ENGINE_COLOURS, OTHER_PART, dress, plain, short

MOST_LANES = 256


def lane_load(lanes: pl.DataFrame) -> go.Figure:
    """A bar per lane, lanes of an engine side by side in the order of their numbers.

    Args:
        lanes: columns `engine, lane, busy_ns, share` (of the window); the busiest `MOST_LANES` are drawn.
    """
    shown = lanes.sort("busy_ns", "lane", descending=[True, False]).head(MOST_LANES)
    order = [engine for engine in ENGINE_COLOURS if engine in set(shown["engine"])]
    figure = go.Figure()
    place = 0
    ticks: list[float] = []
    for engine in order:
        group = sorted(shown.filter(engine=engine).iter_rows(named=True), key=lambda row: _natural(row["lane"]))
        figure.add_trace(
            go.Bar(
                name=engine,
                x=list(range(place, place + len(group))),
                y=[row["share"] for row in group],
                width=0.86,
                marker={"color": ENGINE_COLOURS.get(engine, OTHER_PART), "line": {"width": 0}},
                customdata=[(plain(row["lane"]), row["busy_ns"]) for row in group],
                hovertemplate="<b>%{customdata[0]}</b>: %{y:.2%}, %{customdata[1]:,d} ns<extra></extra>",
            )
        )
        ticks.append(place + (len(group) - 1) / 2)
        # One empty place between engines.
        place += len(group) + 1
    texts = [_title(engine, shown.filter(engine=engine).height, lanes.filter(engine=engine).height) for engine in order]
    few = place <= 24
    if few:
        ticks, texts = _own_ticks(figure)
    figure.update_xaxes(tickvals=ticks, ticktext=texts, range=[-1, max(place - 1, 1)])
    figure.update_yaxes(title_text="busy", tickformat=".0%", rangemode="tozero")
    return dress(figure, 300, showlegend=few)


def _title(engine: str, shown: int, known: int) -> str:
    return f"{engine} ({known:,})" if shown == known else f"{engine} ({shown:,} of {known:,})"


def _own_ticks(figure: go.Figure) -> tuple[list[float], list[str]]:
    """A name below every bar, where there are few."""
    bars = [(at, point[0]) for trace in figure.data for at, point in zip(trace.x, trace.customdata, strict=True)]
    return [float(at) for at, _ in bars], [short(name, 24) for _, name in bars]


def _natural(lane: str) -> list[tuple[int, str]]:
    """Sort key under which lane 10 comes after lane 9."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d{1,18})", lane)]

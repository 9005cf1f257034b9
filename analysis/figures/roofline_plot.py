"""Ops under the roof of their device: how fast they ran against how much they compute per byte."""

from __future__ import annotations

import math

import plotly.graph_objects as go
import polars as pl

from overlap.analysis.figures.style import ENGINE_COLOURS, INK, OTHER_PART, dress, plain

MOST_POINTS = 2000


def roofline_plot(points: pl.DataFrame, peak_flops: dict[str, float], peak_bytes_per_s: float) -> go.Figure:
    """A point per op or kind, and a roof per engine.

    Args:
        points: columns `name, engine, flops_per_byte, flops_per_s, duration_ns`; those with the longest duration are
            drawn, and only where both rates are above 0.
        peak_flops: flops per s that each engine can reach at most; empty where that is unknown.
        peak_bytes_per_s: of the memory; 0 where it is unknown.
    """
    known = points.filter((pl.col("flops_per_byte") > 0) & (pl.col("flops_per_s") > 0))
    known = known.filter(pl.col("flops_per_byte").is_finite() & pl.col("flops_per_s").is_finite())
    known = known.sort("duration_ns", "name", descending=[True, False]).head(MOST_POINTS)
    figure = go.Figure()
    for engine in (engine for engine in ENGINE_COLOURS if engine in set(known["engine"])):
        group = known.filter(engine=engine)
        figure.add_trace(
            go.Scatter(
                name=engine,
                mode="markers",
                x=group["flops_per_byte"].to_list(),
                y=(group["flops_per_s"] / 1e12).to_list(),
                marker={
                    "color": ENGINE_COLOURS.get(engine, OTHER_PART),
                    "size": [_size(share) for share in group["duration_ns"] / max(known["duration_ns"].max() or 1, 1)],
                    "opacity": 0.75,
                    "line": {"width": 0.5, "color": "white"},
                },
                customdata=[(plain(name), ns) for name, ns in group.select("name", "duration_ns").iter_rows()],
                hovertemplate="<b>%{customdata[0]}</b><br>%{x:.3g} flops per byte, %{y:.3g} Tflop/s, "
                "%{customdata[1]:,d} ns<extra></extra>",
            )
        )
    for engine, peak in peak_flops.items():
        _roof(figure, engine, peak, peak_bytes_per_s, known)
    figure.update_xaxes(type="log", title_text="flops per byte")
    figure.update_yaxes(type="log", title_text="Tflop/s")
    return dress(figure, 420)


def _size(share: float) -> float:
    """Diameter of a point whose area follows its share of the longest duration."""
    return 6 + 14 * math.sqrt(share)


def _roof(figure: go.Figure, engine: str, peak: float, bytes_per_s: float, points: pl.DataFrame) -> None:
    """Bandwidth up to the ridge, then the engine's peak."""
    reach = points["flops_per_byte"].to_list()
    ridge = peak / bytes_per_s if bytes_per_s > 0 else 0.0
    low, high = min([*reach, ridge or 1.0]) / 2, max([*reach, ridge or 1.0]) * 4
    corners = [(low, low * bytes_per_s), (ridge, peak)] if ridge else [(low, peak)]
    line = [*corners, (high, peak)]
    figure.add_trace(
        go.Scatter(
            name=f"roof of the {engine}",
            mode="lines",
            x=[x for x, _ in line],
            y=[y / 1e12 for _, y in line],
            line={"color": ENGINE_COLOURS.get(engine, INK), "width": 1.5, "dash": "dash"},
            hovertemplate=f"{plain(engine)}: %{{y:.4g}} Tflop/s at most<extra></extra>",
        )
    )

"""The space as parallel lines: an axis per part of the split that varies, a line per candidate."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from overlap.analysis.figures.style import FONT, INK, MUTED, dress, plain, short, unit_of

# Beyond this many lines a figure is a blot; the fastest are drawn.
MOST = 500
# From fast to slow; dark lines are drawn last.
SCALE = [[0.0, "#00614a"], [0.2, "#009e73"], [0.5, "#56b4e9"], [1.0, "#d5dbe1"]]
TIME = "time_ms"
NS_PER_MS = 1e6
# Lines of one value fan out over this part of the way to the next, the fastest lowest, or they would hide each other.
SPREAD = 0.5


def coordinates(frame: pl.DataFrame, most: int = MOST) -> go.Figure:
    """A line per candidate through the values of its axes to its time; the fastest are the darkest.

    Args:
        frame: `time_ms`, and a column per axis of the split, of numbers, texts or booleans. Columns with one value
            only are left out. Values are categories: each has a tick, equally far apart, and lines lie around it.
        most: lines; the title says how many were left out.
    """
    # Slow ones first, so that fast ones are drawn above them.
    best = frame.sort(TIME, maintain_order=True).head(most).reverse()
    names = [name for name in frame.columns if name != TIME and best[name].n_unique() > 1]
    unit = unit_of(max(best[TIME].to_list(), default=0.0) * NS_PER_MS)
    times = (best[TIME] * NS_PER_MS / unit.ns).to_list()
    low, high = (min(times), max(times)) if times else (0.0, 1.0)
    figure = go.Figure(
        go.Parcoords(
            line={"color": times, "colorscale": SCALE, "cmin": low, "cmax": high if high > low else low + 1},
            dimensions=[*(_axis(best[name]) for name in names), _time_axis(times, unit.name)],
            labelfont={"size": 12, "color": INK},
            tickfont={"size": 11, "color": INK, "family": FONT, "weight": 600},
            rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
            labelangle=-20 if len(names) > 6 else 0,
            domain={"x": [0.03, 0.96]},
        )
    )
    dress(figure, 470, showlegend=False)
    note = f"the fastest {best.height:,} of {frame.height:,} candidates" if frame.height > best.height else ""
    figure.add_annotation(
        text=note, x=0, y=-0.02, xref="paper", yref="paper", yanchor="top", showarrow=False, font={"color": MUTED}
    )
    return figure.update_layout(margin={"t": 80 if len(names) > 6 else 56, "l": 40, "r": 30, "b": 40})


def _axis(values: pl.Series) -> dict[str, object]:
    """A category per value, in the order of numbers or of the alphabet."""
    known = values.unique().sort().to_list()
    places = {value: place for place, value in enumerate(known)}
    return {
        "label": plain(values.name.replace("_", " ")),
        "values": [places[value] + off for value, off in zip(values.to_list(), _fan(len(values)), strict=True)],
        "tickvals": list(places.values()),
        "ticktext": [_text(value) for value in known],
        "range": [-0.5, len(known) - 0.5],
    }


def _fan(count: int) -> list[float]:
    """How far each of `count` lines lies beside its tick, the slowest first."""
    return [SPREAD * (0.5 - place / max(1, count - 1)) for place in range(count)] if count > 1 else [0.0]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else short(str(value), 24)


def _time_axis(times: list[float], unit: str) -> dict[str, object]:
    """Downwards from the slowest: a short time is low, and its line dark."""
    low, high = (min(times), max(times)) if times else (0.0, 1.0)
    room = (high - low) * 0.03 or max(abs(low) * 0.05, 1e-6)
    return {"label": f"time, {unit}", "values": times, "range": [low - room, high + room]}

"""Colours and layout that all figures share; hues from the Okabe-Ito set, which colour-blind readers can tell apart."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

import plotly.graph_objects as go

from overlap.analysis.numbers import elided

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
INK, MUTED, GRID = "#1f2933", "#66727f", "#e4e9ee"

# Parts of a partition.
PART_COLOURS = {
    "MME": "#0072b2",
    "TPC": "#e69f00",
    "MME+TPC": "#009e73",
    "FUSED": "#cc79a7",
    "DMA": "#56b4e9",
    "NIC": "#7b5ea7",
    # What the network hides behind keeps its hue, lighter.
    "MME+NIC": "#74b3d8",
    "TPC+NIC": "#f6d48a",
    "MME+TPC+NIC": "#7fd1b9",
    "idle": "#d5dbe1",
}
OTHER_PART = "#8d99a6"
# Engines; the MME's, the TPC's and both keep the colours of their parts.
ENGINE_COLOURS = {
    "MME": "#0072b2",
    "TPC": "#e69f00",
    "FUSED": "#cc79a7",
    "DMA": "#56b4e9",
    "NIC": "#7b5ea7",
    "OTHER": "#8d99a6",
}
BOTH = "#009e73"

# Stages of a layer per engine: blues for the MME, oranges for the TPC.
PHASE_COLOURS = {
    ("MME", "qkv"): "#56b4e9",
    ("MME", "attn"): "#0b3c5d",
    ("MME", "out"): "#328cc1",
    ("MME", "mlp"): "#0072b2",
    ("TPC", "qkv"): "#f7c873",
    ("TPC", "attn"): "#d55e00",
    ("TPC", "out"): "#f0e442",
    ("TPC", "mlp"): "#e69f00",
}
BASELINE, KEPT, CANDIDATE, REJECTED = "#66727f", "#009e73", "#56b4e9", "#d55e00"

# Below this many characters a name is drawn whole.
LONGEST = 40
LONGEST_HOVER = 1000


class Unit(NamedTuple):
    """A unit of time for an axis: what it is called, and how many ns it has."""

    name: str
    ns: float


def unit_of(longest_ns: float) -> Unit:
    """The unit in which the longest time of a figure has one to four digits; ms where all are zero."""
    size = abs(longest_ns)
    return next((Unit(name, ns) for name, ns in _UNITS if size >= ns), _UNITS[-1] if size else Unit("ms", 1e6))


_UNITS = (Unit("s", 1e9), Unit("ms", 1e6), Unit("µs", 1e3), Unit("ns", 1.0))


def plain(text: str) -> str:
    """Text that Plotly draws as it is; it takes `<…>` for markup otherwise, and names of C++ kernels have that.

    What no screen could show is cut out of its middle.
    """
    return escape(elided(text, LONGEST_HOVER), quote=False)


def short(text: str, most: int = LONGEST) -> str:
    """Text with its middle cut out where it is long, since names differ at both ends; ready to draw."""
    return plain(elided(text, most))


def dress(figure: go.Figure, height: int, **layout: object) -> go.Figure:
    """Apply the common look; without a legend there is no room left for one."""
    legend = layout.get("showlegend", any(one.name and one.showlegend is not False for one in figure.data))
    figure.update_layout(
        template="plotly_white",
        height=height - (14 if legend else 48),
        font={"family": FONT, "size": 13, "color": INK},
        margin={"l": 10, "r": 16, "t": 16, "b": 78 if legend else 44},
        hoverlabel={"font": {"family": FONT, "size": 12}, "align": "left"},
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0, "font": {"size": 12}},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        **{"showlegend": bool(legend), **layout},
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, automargin=True, ticksuffix="  ")
    return figure

"""Colours and layout that all figures share; hues from the Okabe-Ito set, which colour-blind readers can tell apart."""

from __future__ import annotations

from html import escape

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
    "NIC": "#d55e00",
    "idle": "#d5dbe1",
}
OTHER_PART = "#8d99a6"
# Engines; the MME's, the TPC's and both keep the colours of their parts.
ENGINE_COLOURS = {
    "MME": "#0072b2",
    "TPC": "#e69f00",
    "FUSED": "#cc79a7",
    "DMA": "#56b4e9",
    "NIC": "#d55e00",
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


def plain(text: str) -> str:
    """Text that Plotly draws as it is; it takes `<…>` for markup otherwise, and names of C++ kernels have that."""
    return escape(text, quote=False)


def short(text: str, most: int = LONGEST) -> str:
    """Text with its middle cut out where it is long, since names differ at both ends; ready to draw."""
    return plain(elided(text, most))


def dress(figure: go.Figure, height: int, **layout: object) -> go.Figure:
    """Apply the common look."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        font={"family": FONT, "size": 13, "color": INK},
        margin={"l": 10, "r": 16, "t": 30, "b": 78},
        hoverlabel={"font": {"family": FONT, "size": 12}, "align": "left"},
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0, "font": {"size": 12}},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        **layout,
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, automargin=True, ticksuffix="  ")
    return figure

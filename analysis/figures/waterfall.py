"""From the baseline to the kept variant, factor by factor, and what is left to the bound."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from overlap.analysis.figures.style import BASELINE, BOTH, INK, KEPT, MUTED, OTHER_PART, REJECTED, dress, plain, unit_of

# Kinds of steps that are whole times and stand on zero; all others are changes of time.
TOTALS = {"baseline": BASELINE, "kept": KEPT, "bound": "#b4bfca"}
GAP, RESIDUAL = "gap", "residual"
HATCHES = {GAP: "/", RESIDUAL: "."}
NS_PER_MS = 1e6


def waterfall(frame: pl.DataFrame, evidence: str) -> go.Figure:
    """A bar per step from left to right: times stand on zero, changes hang between them.

    Args:
        frame: rows in the order they are drawn, columns `step` (its name), `time_ms` and `kind`: `baseline`, `kept` and
            `bound` are times, `factor`, `residual` and `gap` are changes, negative where they save time.
        evidence: `measured` or `simulated`.
    """
    unit = unit_of(max(map(abs, frame["time_ms"].to_list()), default=0.0) * NS_PER_MS)
    rows = list(frame.with_columns(pl.col("time_ms") * NS_PER_MS / unit.ns).iter_rows(named=True))
    level, bars = 0.0, []
    for row in rows:
        total = row["kind"] in TOTALS
        end = row["time_ms"] if total else level + row["time_ms"]
        bars.append((0.0 if total else level, end))
        level = end
    figure = go.Figure(
        go.Bar(
            x=list(range(len(rows))),
            base=[min(bar) for bar in bars],
            y=[abs(end - start) for start, end in bars],
            marker={
                "color": [_colour(row) for row in rows],
                "pattern": {"shape": [HATCHES.get(row["kind"], "") for row in rows]},
            },
            text=[_text(row, unit.name) for row in rows],
            textposition="outside",
            cliponaxis=False,
            customdata=[
                (plain(row["step"]), _text(row, unit.name), end) for row, (_, end) in zip(rows, bars, strict=True)
            ],
            hovertemplate="<b>%{customdata[0]}</b>: %{customdata[1]}<br>then at %{customdata[2]:.4g} "
            f"{unit.name}<extra></extra>",
            showlegend=False,
        )
    )
    names = [plain(row["step"]) for row in rows]
    return _framed(figure, names, bars, unit.name, evidence)


def _framed(
    figure: go.Figure, names: list[str], bars: list[tuple[float, float]], unit: str, evidence: str
) -> go.Figure:
    """Axes, a title, and lines that join each bar's end with the next bar."""
    for place, (_, end) in enumerate(bars[:-1]):
        line = {"color": MUTED, "width": 1, "dash": "dot"}
        figure.add_shape(type="line", x0=place + 0.36, x1=place + 0.64, y0=end, y1=end, line=line)
    figure.update_xaxes(tickvals=list(range(len(names))), ticktext=names, tickangle=0)
    highest = max([1e-9, *(max(bar) for bar in bars)])
    figure.update_yaxes(title_text=unit, range=[0, highest * 1.12])
    dress(figure, 400, bargap=0.28, title={"text": plain(f"time of a run, {evidence}"), "x": 0, "font": {"size": 14}})
    figure.update_xaxes(showgrid=False)
    return figure.update_layout(margin={"t": 40, "b": 30}, title_font_color=INK)


def _colour(row: dict[str, object]) -> str:
    kind, change = str(row["kind"]), float(str(row["time_ms"]))
    if kind in TOTALS:
        return TOTALS[kind]
    if kind == GAP:
        return "#d5dbe1"
    if kind == RESIDUAL:
        return OTHER_PART
    return BOTH if change <= 0 else REJECTED


def _text(row: dict[str, object], unit: str) -> str:
    """Times plain, changes with their sign."""
    value = float(str(row["time_ms"]))
    if row["kind"] in TOTALS:
        return f"{value:.4g} {unit}"
    sign = "−" if value < 0 else "+" if value > 0 else "±"
    return f"{sign}{abs(value):.3g} {unit}"

"""Time against peak memory: all candidates, and the front of those that no other beats in both."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from overlap.analysis.figures.style import BASELINE, CANDIDATE, INK, KEPT, REJECTED, Unit, dress, plain, unit_of

MIB = 2**20
NS_PER_MS = 1e6
# More points than this of one kind would only cover each other; the fastest are drawn, and the legend says so.
MOST = 2000
# How a candidate got its time or its place, and how that is drawn; later ones lie above earlier ones.
MARKS: dict[str, tuple[str, dict[str, object]]] = {
    "screen": ("predicted only", {"color": "#b4bfca", "symbol": "circle-open", "size": 7}),
    "race": ("compared in the race", {"color": CANDIDATE, "symbol": "circle", "size": 9}),
    "final": ("compared in the final", {"color": "#0072b2", "symbol": "circle", "size": 10}),
    "recipe": ("recipe of the field", {"color": "#e69f00", "symbol": "square", "size": 10}),
    "baseline": ("baseline", {"color": BASELINE, "symbol": "diamond", "size": 13}),
    "kept": ("kept", {"color": KEPT, "symbol": "star", "size": 16}),
}


def pareto(frame: pl.DataFrame, cap_bytes: int | None = None) -> go.Figure:
    """A point per candidate, and the front as a step line.

    Args:
        frame: columns `name`, `stage` (a key of `MARKS`), `time_ms`, `peak_bytes`, `on_front` (bool), `note`; where
            it has `low_ms` and `high_ms`, those are drawn as bars.
        cap_bytes: the most memory that is allowed, if there is such a cap.
    """
    unit = unit_of(max(frame["time_ms"].to_list(), default=0.0) * NS_PER_MS)
    times = pl.col("time_ms", "^(low|high)_ms$") * NS_PER_MS / unit.ns
    frame = frame.with_columns(times)
    figure = go.Figure()
    _front(figure, frame)
    for stage, (title, mark) in MARKS.items():
        all_of_it = frame.filter(pl.col("stage") == stage)
        if not all_of_it.is_empty():
            _points(figure, all_of_it, title, mark, unit)
    if cap_bytes is not None:
        _cap(figure, cap_bytes)
    figure.update_xaxes(title_text="peak memory beside the inputs, MiB", rangemode="tozero")
    figure.update_yaxes(title_text=unit.name)
    return dress(figure, 440)


def _points(figure: go.Figure, found: pl.DataFrame, title: str, mark: dict[str, object], unit: Unit) -> None:
    """All candidates of one kind."""
    group = found.sort("time_ms", "peak_bytes", "name").head(MOST)
    more = f" (fastest {group.height:,} of {found.height:,})" if found.height > group.height else ""
    hover = f"<b>%{{customdata[0]}}</b><br>%{{y:.4g}} {unit.name}, %{{x:.4g}} MiB<br>%{{customdata[1]}}<extra></extra>"
    figure.add_trace(
        go.Scatter(
            name=title + more,
            mode="markers",
            x=(group["peak_bytes"] / MIB).to_list(),
            y=group["time_ms"].to_list(),
            error_y=_bars(group),
            marker=mark,
            cliponaxis=False,
            customdata=[(plain(name), plain(note)) for name, note in group.select("name", "note").iter_rows()],
            hovertemplate=hover,
        )
    )


def _cap(figure: go.Figure, cap_bytes: int) -> None:
    """What lies right of the line was not allowed."""
    figure.add_vline(
        x=cap_bytes / MIB,
        line={"color": REJECTED, "width": 1.5, "dash": "dash"},
        annotation={"text": f"cap {cap_bytes / MIB:,.0f} MiB", "font": {"color": REJECTED, "size": 12}},
        annotation_position="top left",
    )


def _front(figure: go.Figure, frame: pl.DataFrame) -> None:
    """Each step says: with this much memory, no candidate is faster."""
    # A point at least, since a line over nothing would still stand in the legend.
    points = frame.filter("on_front").sort("peak_bytes", "time_ms").unique("peak_bytes", keep="first")
    points = points.sort("peak_bytes")
    if points.is_empty():
        return
    # The line goes on to the hungriest candidate: more memory never makes the choice slower.
    x = [*points["peak_bytes"].to_list(), max(frame["peak_bytes"].to_list())]
    y = [*points["time_ms"].to_list(), points["time_ms"][-1]]
    figure.add_trace(
        go.Scatter(
            name="front: fastest for its memory",
            mode="lines",
            x=[value / MIB for value in x],
            y=y,
            line={"shape": "hv", "color": INK, "width": 1.2},
            hoverinfo="skip",
        )
    )


def _bars(group: pl.DataFrame) -> dict[str, object]:
    """Intervals of the times; nothing where they have no width, as in a simulation."""
    if not {"low_ms", "high_ms"} <= set(group.columns):
        return {"visible": False}
    above = (group["high_ms"] - group["time_ms"]).to_list()
    below = (group["time_ms"] - group["low_ms"]).to_list()
    return {
        "type": "data",
        "symmetric": False,
        "array": above,
        "arrayminus": below,
        "width": 3,
        "visible": any(above) or any(below),
    }

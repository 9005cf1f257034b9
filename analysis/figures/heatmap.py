"""Speed-up over buckets: a panel per phase, a square per bucket."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from overlap.analysis.figures.style import BASELINE, INK, dress, plain

# From slower over no change to faster; orange and blue stay apart for colour-blind readers.
SCALE = [[0.0, "#b35806"], [0.25, "#f1a340"], [0.5, "#f4f5f6"], [0.75, "#67a9cf"], [1.0, "#0b4f82"]]
STAYS = "baseline"
# A speed-up this small or smaller never has the strongest colour.
LEAST_RANGE = 1.1
# Height of a square, and room between panels: two lines of ticks, titles of the axis and of the next panel.
CELL_PX, BETWEEN_PX, MARGINS_PX = 36, 100, 160
# A square is at most this part of the page's width, so that a single bucket is no banner.
WIDEST = 1 / 8
# Columns up to which the text of a square has this size; with more there is text under the pointer only.
TEXT_SIZES = {10: 13, 16: 11, 22: 9}
# Sizes along a panel's horizontal axis, by phase: new tokens in a prefill, tokens in the cache in a decode.
ALONG = {"prefill": ("query", "query tokens"), "decode": ("context", "context tokens")}


def heatmap(frame: pl.DataFrame) -> go.Figure:
    """A square per bucket, coloured by the logarithm of its speed-up; a diamond where the baseline stays.

    Args:
        frame: columns `phase`, `batch`, `query`, `context`, `speedup`, `low`, `high`, and `kept`: the split in words,
            or `baseline`.
    """
    panels = [group for _, group in frame.group_by("phase", maintain_order=True)]
    rows = [group[_down(group)].n_unique() for group in panels] or [1]
    height = CELL_PX * sum(rows) + BETWEEN_PX * (len(rows) - 1)
    figure = make_subplots(
        rows=len(rows),
        cols=1,
        row_heights=[count / sum(rows) for count in rows],
        vertical_spacing=BETWEEN_PX / height if len(rows) > 1 else 0,
        subplot_titles=[group["phase"][0] for group in panels] or None,
    )
    for row, group in enumerate(panels, start=1):
        _panel(figure, group, row)
    figure.update_layout(coloraxis=_colours(frame["speedup"].to_list(), height))
    figure.update_annotations(font={"size": 13, "color": INK}, x=0, xanchor="left")
    dress(figure, height + MARGINS_PX)
    figure.update_xaxes(visible=bool(panels), showgrid=False)
    figure.update_yaxes(visible=bool(panels), showgrid=False)
    return figure.update_layout(margin={"t": 36})


def _colours(speedups: list[float], height: int) -> dict[str, object]:
    """The scale that all panels share, as far from 1 on either side as the largest change."""
    most = max([LEAST_RANGE, *(max(value, 1 / value) for value in speedups if value > 0)])
    ticks = [1 / most, 1.0, most]
    return {
        "colorscale": SCALE,
        "cmin": -math.log(most),
        "cmax": math.log(most),
        "colorbar": {
            "thickness": 12,
            "outlinewidth": 0,
            "tickvals": [math.log(tick) for tick in ticks],
            "ticktext": [f"{tick:.2f}×" for tick in ticks],
            "lenmode": "pixels",
            "len": min(160, max(60, height)),
            "y": 1,
            "yanchor": "top",
        },
    }


def _panel(figure: go.Figure, group: pl.DataFrame, row: int) -> None:
    """The squares of one phase, and diamonds on those where nothing was kept."""
    main, title = ALONG.get(group["phase"][0], ALONG["prefill"])
    other, down = _other(main), _down(group)
    names = [main, other] if down != other and group[other].n_unique() > 1 else [main]
    columns = group.select(names).unique().sort(names).rows()
    lines = group[down].unique().sort().to_list()
    cells = {(one[down], tuple(one[name] for name in names)): one for one in group.iter_rows(named=True)}
    grid = [[cells.get((line, column)) for column in columns] for line in lines]
    size = next((size for most, size in TEXT_SIZES.items() if len(columns) <= most), 0)
    figure.add_trace(
        go.Heatmap(
            z=[[math.log(one["speedup"]) if one and one["speedup"] > 0 else None for one in line] for line in grid],
            text=[[f"{one['speedup']:.2f}×" if one else "" for one in line] for line in grid],
            customdata=[[_hover(one) if one else "" for one in line] for line in grid],
            texttemplate="%{text}" if size else "",
            textfont={"size": size or 13},
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            xgap=2,
            ygap=2,
            coloraxis="coloraxis",
        ),
        row=row,
        col=1,
    )
    # In the corner, beside a text; in the middle where there is none.
    _diamonds(figure, grid, row, (0.5 - 0.01 * max(len(columns), 8), 0.31) if size else (0.0, 0.0))
    titles = [title, *(f"+ {name} tokens" for name in names[1:])]
    _axes(figure, row, titles, columns, f"{down} tokens" if down == other else down, lines)


def _other(main: str) -> str:
    return "context" if main == "query" else "query"


def _down(group: pl.DataFrame) -> str:
    """The size along a panel's vertical axis: the batch, or, with one batch only, what else differs."""
    other = _other(ALONG.get(group["phase"][0], ALONG["prefill"])[0])
    return other if group["batch"].n_unique() == 1 and group[other].n_unique() > 1 else "batch"


def _axes(
    figure: go.Figure, row: int, titles: list[str], columns: list[tuple[int, ...]], down: str, lines: list[int]
) -> None:
    """Ticks that name sizes; places of squares are their numbers."""
    crowded = len(columns) > max(TEXT_SIZES)
    figure.update_xaxes(
        title_text=" ".join(titles),
        tickvals=list(range(len(columns))),
        ticktext=[("+" if crowded else "<br>+").join(f"{size:,}" for size in column) for column in columns],
        tickangle=60 if crowded else 0,
        tickfont={"size": 13 if len(columns) <= 10 else 10},
        domain=[0, min(1.0, len(columns) * WIDEST)],
        range=[-0.5, len(columns) - 0.5],
        row=row,
        col=1,
    )
    figure.update_yaxes(
        title_text=down,
        tickvals=list(range(len(lines))),
        ticktext=[f"{line:,}" for line in lines],
        range=[len(lines) - 0.5, -0.5],
        row=row,
        col=1,
    )


def _diamonds(
    figure: go.Figure, grid: Sequence[Sequence[dict[str, object] | None]], row: int, off: tuple[float, float]
) -> None:
    """Marks on squares whose baseline stays, off their middles."""
    places = [
        (x, y) for y, line in enumerate(grid) for x, one in enumerate(line) if one is not None and one["kept"] == STAYS
    ]
    known = any(one.name for one in figure.data)
    if places:
        figure.add_trace(
            go.Scatter(
                name="the baseline stays",
                mode="markers",
                x=[x - off[0] for x, _ in places],
                y=[y - off[1] for _, y in places],
                marker={"symbol": "diamond", "size": 7, "color": BASELINE},
                hoverinfo="skip",
                showlegend=not known,
            ),
            row=row,
            col=1,
        )


def _hover(one: dict[str, object]) -> str:
    low, high = float(str(one["low"] or "nan")), float(str(one["high"] or "nan"))
    interval = f"{low:.3f} to {high:.3f}" if math.isfinite(low) and math.isfinite(high) and low > 0 else "no interval"
    where = f"{one['phase']}, batch {one['batch']}, query {one['query']}, context {one['context']}"
    return f"<b>{float(str(one['speedup'])):.3f}×</b>, {interval}<br>{where}<br>{plain(str(one['kept']))}"

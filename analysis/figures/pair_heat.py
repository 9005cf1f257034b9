"""Which kinds of ops ran beside which."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from overlap.analysis.figures.style import dress, plain, short, unit_of

MOST = 12
# From the page's white to the colour of both.
SCALE = [[0.0, "#ffffff"], [0.5, "#7fcfb9"], [1.0, "#00614a"]]


def pair_heat(pairs: pl.DataFrame, most: int = MOST) -> go.Figure:
    """A square per pair of kinds, those with the most shared time first.

    Args:
        pairs: columns `engine_a, kind_a, engine_b, kind_b, overlap_ns`.
        most: kinds per side; the others are summed as `all others`.
    """
    columns, rows = _side(pairs, "a", most), _side(pairs, "b", most)
    named = pairs.select(_place("a", columns).alias("a"), _place("b", rows).alias("b"), "overlap_ns")
    times = {(a, b): ns for a, b, ns in named.group_by("a", "b").agg(pl.col("overlap_ns").sum()).iter_rows()}
    places_a, places_b = range(named["a"].n_unique()), range(named["b"].n_unique())
    grid = [[times.get((a, b), 0) for a in places_a] for b in places_b]
    texts_a, texts_b = [*columns, "all others"][: len(places_a)], [*rows, "all others"][: len(places_b)]
    unit = unit_of(max(times.values(), default=0))
    figure = go.Figure(
        go.Heatmap(
            z=[[ns / unit.ns for ns in row] for row in grid],
            customdata=[[(plain(texts_a[a]), plain(texts_b[b]), grid[b][a]) for a in places_a] for b in places_b],
            colorscale=SCALE,
            zmin=0,
            zmax=max(times.values(), default=0) / unit.ns or 1.0,
            xgap=1,
            ygap=1,
            colorbar={
                "title": unit.name,
                "thickness": 12,
                "outlinewidth": 0,
                "nticks": 4,
                "lenmode": "pixels",
                "len": 120,
            },
            hovertemplate="%{customdata[0]}<br>beside %{customdata[1]}: %{customdata[2]:,d} ns<extra></extra>",
        )
    )
    figure.update_xaxes(tickvals=list(places_a), ticktext=[short(text, 30) for text in texts_a], tickangle=40)
    figure.update_yaxes(tickvals=list(places_b), ticktext=[short(text, 30) for text in texts_b], autorange="reversed")
    figure = dress(figure, 190 + 26 * max(len(places_b), 3))
    return figure.update_layout(margin={"b": 20})


def _side(pairs: pl.DataFrame, side: str, most: int) -> list[str]:
    """Names of the kinds of one side, most time first."""
    found = pairs.group_by(_named(side).alias("name")).agg(pl.col("overlap_ns").sum())
    return found.sort("overlap_ns", "name", descending=[True, False]).head(most)["name"].to_list()


def _named(side: str) -> pl.Expr:
    return pl.col(f"engine_{side}") + " · " + pl.col(f"kind_{side}")


def _place(side: str, kept: list[str]) -> pl.Expr:
    """Index of a row's kind among the kept ones; the place after the last for all others."""
    return _named(side).replace_strict(kept, list(range(len(kept))), default=len(kept), return_dtype=pl.Int64)

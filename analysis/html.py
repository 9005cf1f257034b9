"""Pieces of HTML that the report pages are made of.

Contract: all text that comes in is escaped, since names come from files; only `section`, `document` and `scroll` take
HTML, made by the functions here. A cell's format follows from its column's name: `_ns` is a time, `share` and
`of_window` are fractions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape

import plotly.graph_objects as go
import plotly.io
import polars as pl
from plotly.offline import get_plotlyjs

from overlap.analysis.numbers import elided, share_text, time_text
from overlap.analysis.page import STYLE

LONGEST_CELL = 60
LONGEST_TITLE = 1000
NOTHING = "–"


def document(title: str, body: str, scripts: bool = True) -> str:
    """A page that needs nothing besides itself; `body` is HTML, and `scripts` are for its figures."""
    plotly = f"<script>{get_plotlyjs()}</script>" if scripts else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>overlap: {escape(title)}</title><style>{STYLE}</style>"
        f"{plotly}</head><body><main>{body}</main></body></html>"
    )


def section(title: str, content: str, note: str = "") -> str:
    """A box with a title; `content` is HTML, title and note are text."""
    extra = f'<p class="muted">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{extra}{content}</section>"


def figure_html(figure: go.Figure) -> str:
    """A figure as a `div`; plotly.js is on the page once."""
    return str(
        plotly.io.to_html(
            figure, include_plotlyjs=False, full_html=False, config={"displayModeBar": False, "responsive": True}
        )
    )


def badge(evidence: str) -> str:
    """Where the numbers come from: measured, simulated or synthetic."""
    return f'<span class="badge {escape(evidence)}">{escape(evidence)}</span>'


def listed(sentences: Sequence[str]) -> str:
    """A list; nothing without entries."""
    return f"<ul>{''.join(f'<li>{marked(sentence)}</li>' for sentence in sentences)}</ul>" if sentences else ""


def marked(text: str) -> str:
    """Escaped text in which `names in backticks` stand out."""
    pieces = re.split(r"`([^`]+)`", text)
    return "".join(
        f'<span class="op">{_text(piece)}</span>' if i % 2 else escape(piece) for i, piece in enumerate(pieces)
    )


def scroll(table: str) -> str:
    """A table that scrolls on its own where the page is narrow."""
    return f'<div class="scroll">{table}</div>'


def folded(table: str, rows: int, most: int = 12) -> str:
    """A long table behind a line to click on; a short one as it is."""
    return f"<details><summary>Table of {rows:,} rows</summary>{table}</details>" if rows > most else table


def table_html(frame: pl.DataFrame, titles: Mapping[str, str] | None = None, most: int = 25) -> str:
    """A frame as a table.

    Args:
        frame: any; text stands left, numbers right.
        titles: column → title of those to show, in this order; columns that the frame does not have are passed over.
            All columns where it is None.
        most: rows; how many are left out is said below.
    """
    names = [name for name in titles if name in frame.columns] if titles is not None else frame.columns
    title_of = {name: (titles or {}).get(name, name.removesuffix("_ns").replace("_", " ")) for name in names}
    sides = {name: ' class="n"' if frame.schema[name].is_numeric() else ' class="t"' for name in names}
    head = "".join(f"<th{sides[name]}>{escape(title_of[name])}</th>" for name in names)
    rows = "".join(
        "<tr>" + "".join(f"<td{sides[name]}>{_cell(name, row[name])}</td>" for name in names) + "</tr>"
        for row in frame.head(most).iter_rows(named=True)
    )
    left = frame.height - most
    more = f'<p class="muted">{left:,} more rows are not shown.</p>' if left > 0 else ""
    return scroll(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>") + more


def sentence_table(first: str, second: str, rows: Sequence[tuple[str, str]]) -> str:
    """A table of a word and a sentence per row; sentences are never cut."""
    cells = "".join(f'<tr><td>{escape(word)}</td><td class="t">{marked(text)}</td></tr>' for word, text in rows)
    head = f'<thead><tr><th>{escape(first)}</th><th class="t">{escape(second)}</th></tr></thead>'
    return scroll(f"<table>{head}<tbody>{cells}</tbody></table>")


def _cell(column: str, value: object) -> str:
    """One value as HTML, see the contract above."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and column.endswith("_ns"):
        sign = "+" if value > 0 and "delta" in column else ""
        return f'<span title="{value:,} ns">{sign}{escape(time_text(round(value)))}</span>'
    if isinstance(value, float):
        fraction = column == "of_window" or column.endswith(("share", "fraction"))
        return escape(share_text(value)) if fraction else f"{value:,.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return _text(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _text(text: str) -> str:
    """Names with their middle cut out where they are long, whole when hovered over; sentences end in `.` and stay."""
    if len(text) <= LONGEST_CELL or text.endswith("."):
        return escape(text)
    half = LONGEST_CELL // 2
    return (
        f'<span title="{escape(elided(text, LONGEST_TITLE))}">{escape(text[:half])}…{escape(text[-half + 1 :])}</span>'
    )

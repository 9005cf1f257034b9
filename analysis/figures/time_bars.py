"""Times as bars that are cut by what the engines did, drawn as SVG: no script, so a page can hold a hundred of them."""

from __future__ import annotations

import math
from html import escape

import polars as pl

from overlap.analysis.figures.style import GRID, INK, MUTED, OTHER_PART, PART_COLOURS
from overlap.analysis.numbers import share_text, time_text

# Part → what a reader without the words calls it, in the order in which a bar shows them.
PARTS = {
    "MME": "matrix engine alone",
    "MME+TPC": "both at once",
    "TPC": "vector engine alone",
    "other": "copies and network",
    "idle": "nothing",
}
SCHEMA = {"run": pl.String, "part": pl.String, "time_ns": pl.Float64}
WIDTH, LABEL, RIGHT, BAR, GAP = 640, 72, 86, 28, 16
# A share below this has no room for its number.
NARROW = 0.06
# What rounding leaves is no part.
NEVER = 1e-4


def time_bars(rows: pl.DataFrame, spreads: dict[str, tuple[float, float]]) -> str:
    """One bar per run, all on one axis from zero.

    Args:
        rows: columns of `SCHEMA`; the times of a run's parts add up to its time.
        spreads: run → ends of the interval of its time in ns; an infinite one is drawn to the edge and left open.
    """
    runs = rows["run"].unique(maintain_order=True).to_list()
    totals = {run: float(rows.filter(pl.col("run") == run)["time_ns"].sum()) for run in runs}
    ends = [spreads[run][1] for run in runs if math.isfinite(spreads[run][1])]
    longest = max([*totals.values(), *ends], default=1.0) or 1.0
    scale = (WIDTH - LABEL - RIGHT) / longest
    height = len(runs) * (BAR + GAP) + 8
    bars = "".join(
        _bar(rows.filter(pl.col("run") == run), run, number, scale, totals[run], spreads[run])
        for number, run in enumerate(runs)
    )
    axis = f'<line x1="{LABEL}" y1="0" x2="{LABEL}" y2="{height}" stroke="{GRID}"/>'
    label = escape("; ".join(f"{run}: {time_text(round(total))}" for run, total in totals.items()))
    keys = _legend(rows, any(low < high for low, high in spreads.values()))
    return (
        f'<div class="scroll"><svg viewBox="0 0 {WIDTH} {height}" class="bars" role="img" aria-label="{label}" '
        f'font-size="14" fill="{INK}">{axis}{bars}</svg></div>{keys}'
    )


def _bar(rows: pl.DataFrame, run: str, number: int, scale: float, total: float, spread: tuple[float, float]) -> str:
    """A run: its name, its parts, its interval and its time."""
    top, left = number * (BAR + GAP) + 8, float(LABEL)
    middle = top + BAR / 2 + 5
    drawn = [f'<text x="{LABEL - 10}" y="{middle}" text-anchor="end">{escape(run)}</text>']
    for part, time_ns in rows.select("part", "time_ns").iter_rows():
        width = time_ns * scale
        share = time_ns / total if total else 0.0
        title = f"{run}: {PARTS[part]}, {time_text(round(time_ns))}, {share_text(share)}"
        colour = PART_COLOURS.get(part, OTHER_PART)
        drawn.append(
            f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{colour}">'
            f"<title>{escape(title)}</title></rect>"
        )
        if share >= NARROW and width > 34:
            ink = INK if part in ("idle", "TPC", "other") else "white"
            drawn.append(
                f'<text x="{left + width / 2:.1f}" y="{middle}" text-anchor="middle" fill="{ink}">{share:.0%}</text>'
            )
        left += width
    drawn.append(_interval(spread, scale, top + BAR + 5))
    place = max(left, min(LABEL + spread[1] * scale, WIDTH - RIGHT)) + 8
    drawn.append(f'<text x="{place:.1f}" y="{middle}">{escape(time_text(round(total)))}</text>')
    return "".join(drawn)


def _interval(spread: tuple[float, float], scale: float, base: float) -> str:
    """A line below a bar from end to end; none for an interval without width, and no end to one that is open."""
    if spread[0] == spread[1]:
        return ""
    low, high = (min(LABEL + end * scale, float(WIDTH - RIGHT)) for end in spread)
    closed = f"M{high:.1f} {base - 3}v6" if math.isfinite(spread[1]) else ""
    dashes = "" if closed else ' stroke-dasharray="6 3"'
    return f'<path d="M{low:.1f} {base - 3}v6M{low:.1f} {base}H{high:.1f}{closed}" stroke="{MUTED}"{dashes}/>'


def _legend(rows: pl.DataFrame, has_interval: bool) -> str:
    there = set(rows.filter(pl.col("time_ns") > NEVER * pl.col("time_ns").sum())["part"])
    keys = "".join(
        f'<span><i style="background:{PART_COLOURS.get(part, OTHER_PART)}"></i>{name}</span>'
        for part, name in PARTS.items()
        if part in there
    )
    line = '<span><i class="line"></i>interval of the time</span>' if has_interval else ""
    return f'<p class="keys muted">{keys}{line}</p>'

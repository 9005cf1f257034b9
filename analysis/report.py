"""The report of a sweep: one HTML file that opens without a network and explains itself.

`ReportData` is all it needs; the page's frame is in `page.py`, the figures come from `figures/`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import polars as pl

from overlap.analysis.figures.coordinates import MOST, coordinates
from overlap.analysis.figures.gain import speedups
from overlap.analysis.figures.lanes import lanes
from overlap.analysis.figures.pareto import pareto
from overlap.analysis.figures.parts import parts
from overlap.analysis.figures.waterfall import waterfall
from overlap.analysis.html import badge, document, figure_html, scroll, section
from overlap.analysis.page import GLOSSARY
from overlap.analysis.partition import Partition, partition
from overlap.files import write_atomic
from overlap.stats import Interval

KEPT_BASELINE = "No split was faster for sure; the baseline stays."


@dataclass(frozen=True)
class RecipeLine:
    """A named recipe as text: its split, its predicted time, what is kept over it, and where that ratio comes from."""

    name: str
    split: str
    predicted: str
    kept_over: str
    note: str
    best: bool


@dataclass(frozen=True)
class ReportData:
    """What the page shows. `runs` are event tables, the baseline first; without a kept variant it is the only one.

    `steps`, `candidates` and `axes` are the frames that the figures waterfall, pareto and coordinates take,
    `candidates` with a column `timed`; `explained` says whether the factors of the gain are known; `numbers` are rows
    of (name, baseline, kept) as text; `method` sentences on how it was measured.
    """

    title: str
    evidence: str
    device: str
    created: str
    command: str
    runs: Mapping[str, pl.DataFrame]
    speedup: Interval | None
    speedup_vs_stack: Interval | None
    steps: pl.DataFrame
    explained: bool
    kept_in_words: Sequence[str]
    numbers: Sequence[tuple[str, str, str]]
    candidates: pl.DataFrame
    cap_bytes: int | None
    axes: pl.DataFrame
    recipes: Sequence[RecipeLine]
    method: Sequence[str]
    software: Mapping[str, str] = field(default_factory=dict)
    reasons: Sequence[tuple[str, str]] = ()


def write_report(data: ReportData, path: Path) -> None:
    """Write the page, atomically; raises `RunDirError` where that is impossible."""
    write_atomic(path, page(data).encode())


def page(data: ReportData) -> str:
    """The page as text."""
    body = "\n".join(one for one in _sections(data) if one)
    return document(data.title, body)


def _sections(data: ReportData) -> Iterator[str]:
    yield _headline(data)
    note = "Time runs to the right. Hover over an op for its name and time."
    yield section("What each engine did", figure_html(lanes(data.runs)), note)
    note = "Every bar is a whole run; its pieces add up to it exactly. Green is the time in which both engines work."
    yield section("Where the time went", figure_html(parts(_partitions(data))), note)
    yield _steps(data)
    yield _gain(data)
    yield _recipes(data)
    yield _candidates(data)
    yield _axes(data)
    yield section("Numbers", _numbers(data))
    yield section("How it was simulated" if data.evidence == "simulated" else "How it was measured", _method(data))


def _partitions(data: ReportData) -> dict[str, Partition]:
    """Partitions under short names: what stands before the colon of a run's title."""
    return {name.partition(":")[0]: partition(run) for name, run in data.runs.items()}


def _headline(data: ReportData) -> str:
    figure, below, look = "1.00×", KEPT_BASELINE, "big none"
    if data.speedup is not None:
        figure, look = f"{data.speedup.median:.2f}×", "big"
        below = f"faster than the unsplit baseline; {_range(data.speedup, data.evidence)}"
        if data.speedup_vs_stack is not None and data.speedup_vs_stack.median < 1:
            below += f". The stack is faster still: {data.speedup_vs_stack.median:.2f}× of it"
    words = "".join(f"<li>{escape(sentence)}</li>" for sentence in data.kept_in_words)
    return (
        f"<header><h1>{escape(data.title)}</h1><p class='muted'>{escape(data.device)}</p></header>"
        f'<section class="top"><div class="{look}"><b>{figure}</b>{badge(data.evidence)}<p>{escape(below)}</p></div>'
        f'<div class="words"><h2>The kept split</h2><ul>{words}</ul></div></section>'
    )


def _range(interval: Interval, evidence: str) -> str:
    """An interval in words; a model's comes from its constants."""
    if evidence == "simulated":
        return f"between {interval.low:.3f} and {interval.high:.3f}, over the constants that nobody knows exactly"
    if not math.isfinite(interval.high):
        return "too few samples for an interval"
    return f"between {interval.low:.3f} and {interval.high:.3f}, from {interval.samples} pairs"


def _steps(data: ReportData) -> str:
    """The waterfall; it has a gap to show even where the baseline stays."""
    note = "Nothing was kept: all that is left to gain is the gap between the baseline and its bound."
    if data.explained:
        note = (
            "Read from left to right: each factor changes what those before it have left, and was timed in runs of its "
            "own. The hatched bar is the gap: no order of the kept split's ops can save more than that."
        )
    elif data.speedup is not None:
        note = "What the gain is made of is not known: a run of the factors failed."
    return section("From the baseline to the bound", figure_html(waterfall(data.steps, data.evidence)), note)


def _gain(data: ReportData) -> str:
    """Speed-ups; nothing if there is nothing to show."""
    found = {"over the baseline": data.speedup, "over the stack": data.speedup_vs_stack}
    known = {name: interval for name, interval in found.items() if interval is not None}
    if not known:
        return ""
    note = "A point is the median, its bar the interval; what lies right of the dotted line is a gain."
    return section("The gain", figure_html(speedups(known)), note)


def _recipes(data: ReportData) -> str:
    """How the kept variant compares with what others do by hand."""
    if not data.recipes:
        return ""
    head = "<tr><th>recipe</th><th class='t'>split</th><th>predicted time</th><th>kept over it</th>"
    rows = "".join(
        f"<tr><td>{escape(one.name)}{' <b>(best)</b>' if one.best else ''}</td>"
        f'<td class="t">{escape(one.split)}</td><td class="n">{escape(one.predicted)}</td>'
        f'<td class="n">{escape(one.kept_over)}</td><td class="t">{escape(one.note)}</td></tr>'
        for one in data.recipes
    )
    note = "Each recipe in its best variant; above 1 the kept variant is faster. The best has the least predicted time."
    return section("Recipes of the field", scroll(f"<table>{head}<th class='t'>from</th></tr>{rows}</table>"), note)


def _candidates(data: ReportData) -> str:
    if data.candidates.is_empty():
        return ""
    timed = data.candidates.filter("timed").height
    predicted = data.candidates.height - timed
    how = f"{timed} were timed as a whole; {predicted} only predicted."
    line = "the line joins those that no other timed one beats in both time and memory"
    if data.evidence == "simulated":
        how = f"{timed} were checked and compared with the stack; {predicted} only simulated."
        line = "the line joins those that no other beats in both time and memory"
    note = f"Lower is faster, further left needs less memory; {line}. {how}"
    return section("Time and memory", figure_html(pareto(data.candidates, data.cap_bytes)), note)


def _axes(data: ReportData) -> str:
    """The space; nothing where no axis of it varies."""
    if data.axes.height < 2 or all(data.axes[name].n_unique() < 2 for name in data.axes.columns if name != "time_ms"):
        return ""
    fewer = f" Of {data.axes.height:,} candidates, the {MOST} fastest are drawn." if data.axes.height > MOST else ""
    note = (
        "A line is a candidate: follow it through its values to its predicted time; dark green is fast. Lines of the "
        "same value fan out around it, the fastest lowest. Drag along an axis to see only the lines that pass "
        f"there.{fewer}"
    )
    return section("The space", figure_html(coordinates(data.axes)), note)


def _numbers(data: ReportData) -> str:
    kept = len(data.runs) > 1
    head = "<tr><th></th><th>baseline</th>" + ("<th>kept</th>" if kept else "") + "</tr>"
    rows = [
        f"<tr><td>{escape(name)}</td><td>{escape(before)}</td>"
        + (f"<td>{escape(after)}</td>" if kept else "")
        + "</tr>"
        for name, before, after in data.numbers
    ]
    table = f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'
    if not data.reasons:
        return table
    why = "".join(f"<tr><td>{escape(name)}</td><td>{escape(reason)}</td></tr>" for name, reason in data.reasons)
    return f'{table}<h3>Finalists</h3><div class="scroll"><table class="text">{why}</table></div>'


def _method(data: ReportData) -> str:
    method = "".join(f"<li>{escape(sentence)}</li>" for sentence in data.method)
    software = ", ".join(f"{escape(name)} {escape(version)}" for name, version in data.software.items())
    return (
        f"<ul>{method}</ul><p><code>{escape(data.command)}</code></p>"
        f'<p class="muted">{escape(data.created)}; {software}</p><h3>Words</h3><p>{GLOSSARY}</p>'
    )

"""The report of a sweep: one HTML file that opens without a network and explains itself.

`ReportData` is all it needs; the page's frame is in `page.py`, the figures come from `figures/`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import polars as pl

from overlap.analysis.figures.candidates import candidates
from overlap.analysis.figures.gain import factors, speedups
from overlap.analysis.figures.lanes import lanes
from overlap.analysis.figures.parts import parts
from overlap.analysis.html import badge, document, figure_html, section
from overlap.analysis.page import GLOSSARY
from overlap.analysis.partition import Partition, partition
from overlap.files import write_atomic
from overlap.stats import Interval

KEPT_BASELINE = "No split was faster for sure; the baseline stays."


@dataclass(frozen=True)
class ReportData:
    """What the page shows. `runs` are event tables, the baseline first; without a kept variant it is the only one.

    `candidates` is the frame that `figures.candidates` takes; `numbers` rows of (name, baseline, kept) as text;
    `method` sentences on how it was measured.
    """

    title: str
    evidence: str
    device: str
    created: str
    command: str
    runs: Mapping[str, pl.DataFrame]
    speedup: Interval | None
    speedup_vs_stack: Interval | None
    attribution: Mapping[str, float]
    kept_in_words: Sequence[str]
    numbers: Sequence[tuple[str, str, str]]
    candidates: pl.DataFrame
    method: Sequence[str]
    software: Mapping[str, str] = field(default_factory=dict)
    reasons: Sequence[tuple[str, str]] = ()


def write_report(data: ReportData, path: Path) -> None:
    """Write the page, atomically; raises `RunDirError` where that is impossible."""
    write_atomic(path, page(data).encode())


def page(data: ReportData) -> str:
    """The page as text."""
    sections = [
        _headline(data),
        section("What each engine did", figure_html(lanes(data.runs)), "Hover over an op for its name and time."),
        section("Where the time went", figure_html(parts(_partitions(data)))),
        _gain(data),
        _candidates(data),
        section("Numbers", _numbers(data)),
        section("How it was simulated" if data.evidence == "simulated" else "How it was measured", _method(data)),
    ]
    body = "\n".join(one for one in sections if one)
    return document(data.title, body)


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


def _gain(data: ReportData) -> str:
    """Speed-ups and factors; nothing if there is nothing to show."""
    found = {"over the baseline": data.speedup, "over the stack": data.speedup_vs_stack}
    known = {name: interval for name, interval in found.items() if interval is not None}
    if not known:
        return ""
    blocks = [f"<div>{figure_html(speedups(known))}</div>"]
    if data.attribution:
        shown = {name: value for name, value in data.attribution.items() if name != "total"}
        blocks.append(f"<div>{figure_html(factors(shown))}</div>")
    note = "Left: with their intervals. Right: what the gain over the baseline is made of, a run for each factor."
    return section("The gain", f'<div class="pair">{"".join(blocks)}</div>', note if data.attribution else "")


def _candidates(data: ReportData) -> str:
    if data.candidates.is_empty():
        return ""
    timed = data.candidates.filter(pl.col("stage") != "screen").height
    predicted = data.candidates.height - timed
    note = f"{timed} were timed as a whole; {predicted} only predicted from the times of their ops in isolation."
    if data.evidence == "simulated":
        note = f"{timed} were checked and compared with the stack; {predicted} only simulated."
    return section("All candidates", figure_html(candidates(data.candidates)), note)


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

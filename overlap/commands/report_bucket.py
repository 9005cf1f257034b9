"""One bucket on the page of `overlap report`: a picture, what it shows, a table, and what was done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from html import escape
from pathlib import Path
from urllib.parse import quote

from overlap.analysis.figures.time_bars import PARTS, time_bars
from overlap.analysis.html import listed, scroll, section
from overlap.analysis.words import order_in_words, split_in_words
from overlap.commands.report_head import verdict_in_words
from overlap.commands.report_words import (
    NOTHING,
    bucket_in_words,
    factors_in_words,
    memory,
    ms,
    parts_of,
    shares,
    split_in_short,
    spread_ms,
    times,
    with_interval,
)
from overlap.serve.tuned import Busy, Entry, Tuned

# What a page of `overlap report` begins with.
MARK = "<!-- overlap report -->"
BUSY = {"mme": "matrix engine (MME) busy", "tpc": "vector engine (TPC) busy", "both": "both at once"}


def bucket_section(tuned: Tuned, number: int, folder: Path, base: Path) -> str:
    """The section of entry `number`; files beside the config in `folder` are linked as seen from `base`."""
    entry = tuned.entries[number]
    words = bucket_in_words(entry.bucket)
    is_one_of_many = len(tuned.entries) > 1
    pieces = [
        _verdict(entry) if is_one_of_many else "",
        time_bars(*parts_of(entry)),
        f"<p>{escape(caption(entry))}</p>",
        _table(entry),
        f"<h3>What was done</h3>{listed(_done(tuned, entry))}",
        _factors(entry),
        _alternatives(entry),
        _links(entry, folder, base, is_one_of_many),
    ]
    return f'<a id="bucket{number}"></a>' + section(words[0].upper() + words[1:], "".join(pieces))


def _verdict(entry: Entry) -> str:
    """That of the whole model; a page of one bucket has it at its top."""
    words = verdict_in_words(entry.verified) if entry.verified else ""
    return f"<p><b>In the whole model</b>: {escape(words)}</p>" if words else ""


def caption(entry: Entry) -> str:
    """What the picture shows."""
    now = {part: share * entry.latency_us.median for part, share in shares(entry.busy).items()}
    if entry.pass_through:
        return (
            "No way of splitting was faster for sure, so the layers run as they did. The vector engine works alone for "
            f"{ms(now['TPC'])}: a split could hide that at the most."
        )
    median = entry.baseline_latency_us.median
    before = {part: share * median for part, share in shares(entry.baseline_busy).items()}
    saved = median - entry.latency_us.median
    gone = max(before, key=lambda part: before[part] - now[part])
    said = f"{ms(abs(saved))} {'less' if saved > 0 else 'more'}. "
    if before[gone] > now[gone]:
        said += f"What shrank most: {_PART_WORDS[gone]}, from {ms(before[gone])} to {ms(now[gone])}. "
    if before["MME+TPC"] == now["MME+TPC"] == 0:
        return f"{said}The engines take turns, as before: at no time do both work at once."
    both = [ms(found["MME+TPC"]) if found["MME+TPC"] else "never" for found in (now, before)]
    return f"{said}Both engines at once: {both[0]}; before, {both[1]}."


_PART_WORDS = PARTS | {"idle": "nothing at work", "MME+TPC": "both engines at once"}


def _table(entry: Entry) -> str:
    """Before and now, number by number; one column where both are the same."""
    head, columns = "<th>before</th><th>now</th>", slice(1, 3)
    if entry.pass_through:
        head, columns = "<th>as it is</th>", slice(2, 3)
    body = "".join(
        f"<tr><td>{escape(row[0])}</td>" + "".join(f'<td class="n">{cell}</td>' for cell in row[columns]) + "</tr>"
        for row in _rows(entry)
    )
    return scroll(f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>")


def _rows(entry: Entry) -> Iterator[tuple[str, str, str]]:
    """What it is, as text; before and now, as HTML."""
    yield "time", with_interval(entry.baseline_latency_us, ms), with_interval(entry.latency_us, ms)
    if not entry.pass_through:
        yield "speed-up", NOTHING, with_interval(entry.speedup, times)
    if entry.speedup_vs_stack:
        yield "speed-up over the stack", NOTHING, with_interval(entry.speedup_vs_stack, times)
    yield from _busy_rows(entry.baseline_busy, entry.busy)
    yield "memory beside the inputs", memory(entry.baseline_peak_bytes), memory(entry.peak_bytes)
    yield "error against fp32", f"{entry.error.baseline_rel_l2:.1e}", f"{entry.error.rel_l2:.1e}"
    yield f"above the least possible time, {ms(entry.bound_us)}", NOTHING, f"{entry.gap:.1%}"


def _busy_rows(before: Busy, now: Busy) -> Iterator[tuple[str, str, str]]:
    for name, words in BUSY.items():
        yield words, f"{getattr(before, name):.1%}", f"{getattr(now, name):.1%}"
    yield "nothing busy", f"{shares(before)['idle']:.1%}", f"{shares(now)['idle']:.1%}"


def _done(tuned: Tuned, entry: Entry) -> list[str]:
    order = [] if entry.pass_through else [order_in_words(entry.order)]
    # An order alone may be kept too; then it is untrue that nothing differs.
    cut = split_in_words(entry.split, tuned.workload(entry)) if entry.pass_through or entry.split.changed() else []
    return [*cut, *order]


def _factors(entry: Entry) -> str:
    found = factors_in_words(entry)
    return f"<h3>Where the gain comes from</h3>{listed(found)}" if found else ""


def _alternatives(entry: Entry) -> str:
    if not entry.alternatives:
        return ""
    rows = "".join(
        f'<tr><td class="t" title="{escape(str(one.split))}">{escape(split_in_short(one.split, one.order))}</td>'
        f'<td class="t">{escape(one.recipe or NOTHING)}</td><td class="n">{escape(spread_ms(one.latency_us))}</td></tr>'
        for one in entry.alternatives
    )
    head = '<tr><th class="t">way</th><th class="t">known as</th><th>time</th></tr>'
    return f"<h3>Also tried to the end</h3>{scroll(f'<table>{head}{rows}</table>')}"


def _links(entry: Entry, folder: Path, base: Path, is_one_of_many: bool) -> str:
    """Files of the run that are still there, and the way back."""
    trace = folder / entry.trace
    # A table has one report for all buckets, beside the config, and may have one for each.
    reports = [file for file in (trace.parent.parent / "report.html", folder / "report.html") if _is_there(file)]
    found = {"trace, for Perfetto": [trace] if _is_there(trace) else [], "report of the run": reports}
    links = [
        f'<a href="{quote(os.path.relpath(files[0], base))}">{name}</a>'
        for name, files in found.items()
        if files and not is_own(files[0])
    ]
    links += ['<a href="#shapes">all shapes</a>'] if is_one_of_many else []
    return f'<p class="muted links">{" · ".join(links)}</p>' if links else ""


def _is_there(file: Path) -> bool:
    """Whether it is a file; a name that no file can have is none."""
    try:
        return file.is_file()
    except (OSError, ValueError):
        return False


def is_own(file: Path) -> bool:
    """Whether a page of `overlap report` is in the file."""
    with file.open("rb") as opened:
        return MARK.encode() in opened.read(1000)

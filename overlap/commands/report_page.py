"""The page of a tuned config: what was gained in one line, a row per bucket, then a table and a picture for each."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from overlap import __version__
from overlap.analysis.html import document, listed, scroll, section
from overlap.analysis.page import GLOSSARY
from overlap.commands.report_bucket import MARK, bucket_section
from overlap.commands.report_head import headline
from overlap.commands.report_words import (
    bucket_in_short,
    memory,
    ms,
    split_in_short,
    times,
    with_interval,
)
from overlap.serve.tuned import Entry, Tuned, Verified
from overlap.serve.verdict import WRONG

HEAD = ("sequences × tokens + cached", "before", "now", "speed-up", "over the stack", "memory now")
STYLE = (
    "<style>.bars{width:100%;min-width:440px;max-width:640px;height:auto;display:block;margin:10px 0 2px}"
    ".keys span{margin-right:18px;white-space:nowrap}"
    ".keys i{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:6px}"
    ".keys i.line{height:0;border-top:2px solid;vertical-align:4px;border-radius:0}"
    "td small{display:block;color:var(--muted);font-size:12px} td a,td small{white-space:nowrap}"
    ".words h2:not(:first-child){margin-top:14px} .words p{margin:4px 0 0} .words .badge{vertical-align:1px}"
    "#shapes+section td.t{min-width:210px} .links{margin-top:12px} section{break-inside:avoid} tr{break-inside:avoid}"
    "@media print{*{print-color-adjust:exact} .scroll{overflow:visible} .bars{min-width:0}"
    " #shapes+section{break-inside:auto} .links{display:none}}</style>"
)


def page(tuned: Tuned, path: Path, base: Path) -> str:
    """The page as text; files beside `path` are linked as seen from the folder `base`."""
    count = len(tuned.entries)
    parts = [
        f"{STYLE}{headline(tuned)}",
        f'<a id="shapes"></a>{section("All shapes", _overview(tuned))}' if count > 1 else "",
        *(bucket_section(tuned, number, path.parent, base) for number in range(count)),
        section("How to read this", listed(list(_method(tuned, path))) + f"<h3>Words</h3><p>{GLOSSARY}</p>"),
    ]
    # The mark must stand at the beginning, before anything that a config says.
    made = document(f"{tuned.model.name}, tuned", "".join(parts), scripts=False)
    return made.replace("<html", f"{MARK}<html", 1)


def _overview(tuned: Tuned) -> str:
    """A row per bucket, with the model's speed-up where there is one."""
    has_models = any(entry.verified for entry in tuned.entries)
    names = [*HEAD, *(["whole model"] if has_models else [])]
    head = "".join(f"<th>{name}</th>" for name in names) + '<th class="t">what was done</th>'
    rows = "".join(_row(number, entry, has_models) for number, entry in enumerate(tuned.entries))
    return scroll(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")


def _row(number: int, entry: Entry, has_models: bool) -> str:
    what = "left as it is" if entry.pass_through else split_in_short(entry.split, entry.order)
    cells = [
        with_interval(entry.baseline_latency_us, ms),
        with_interval(entry.latency_us, ms),
        with_interval(entry.speedup, times),
        with_interval(entry.speedup_vs_stack, times),
        escape(memory(entry.peak_bytes)),
    ]
    cells += [_model_cell(entry.verified)] if has_models else []
    return (
        f'<tr><td><a href="#bucket{number}">{escape(bucket_in_short(entry.bucket))}</a></td>'
        + "".join(f'<td class="n">{cell}</td>' for cell in cells)
        + f'<td class="t" title="{escape(str(entry.split))}">{escape(what)}</td></tr>'
    )


def _model_cell(found: Verified | None) -> str:
    """No speed-up for what computes something else."""
    if found is None or found.verdict != WRONG:
        return with_interval(found.model_speedup if found else None, times)
    return "wrong"


def _method(tuned: Tuned, path: Path) -> Iterator[str]:
    layers = f"{tuned.window_layers} layer{'s' if tuned.window_layers > 1 else ''}"
    yield f"Times are of {layers} of the model, {tuned.device.evidence} on {tuned.device.name}."
    yield "Before: the same layers unsplit, in the order in which the model is written, on the same engines."
    yield "The parts of a bar are those of one profiled run, in proportion to the time beside the bar."
    if tuned.device.evidence == "simulated":
        yield "Simulated times come out of a model of the device. No clock has seen them, and every repeat is the same."
        yield (
            "Numbers in brackets beside speed-ups are what is left open by the constants of the device that nobody "
            "knows exactly; rules of the model that may be wrong are not in them."
        )
    else:
        yield "Numbers in brackets are the ends of a 95 % interval, wider where several candidates were compared."
    yield f"`{path.name}`, written by overlap {tuned.device.software.get('overlap', '')}; page by {__version__}."

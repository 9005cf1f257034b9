"""The page of a table: a heat map of the speed-ups, a row per bucket with a link to its report, what was left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from html import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from overlap.analysis.html import badge, document, figure_html, listed, scroll, section, sentence_table
from overlap.commands.table_job import FOLDER
from overlap.commands.table_run import Row, Table
from overlap.files import write_atomic
from overlap.serve.tuned import Entry, Spread

HEAD = ("bucket", "kept split", "order", "baseline", "kept", "speed-up", "over the stack", "gap", "peak")
NOTHING = "–"
HEATMAP = "overlap.analysis.figures.heatmap"


def write_page(table: Table, frame: pl.DataFrame, path: Path) -> None:
    """Write the page, atomically; `frame` has a row per entry.

    Raises:
        RunDirError: it cannot be written.
    """
    sections = [_headline(table, frame), _figure(frame), section("Buckets", _rows(table)), _left_out(table)]
    sections.append(section("How this was made", listed(list(_method(table)))))
    title = f"{table.shared.workload.model.name}, {_buckets(len(table.rows))}"
    write_atomic(path, document(title, "\n".join(filter(None, sections))).encode())


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive values."""
    return math.exp(sum(map(math.log, values)) / len(values))


def _headline(table: Table, frame: pl.DataFrame) -> str:
    shared, figure = table.shared, f"{geometric_mean(frame['speedup'].to_list()):.2f}×"
    kept = sum(not entry.pass_through for entry in table.entries)
    ranks = f", rank of tp{shared.workload.tensor_parallel}" if shared.workload.tensor_parallel > 1 else ""
    title = f"{shared.workload.model.name}, {shared.workload.window_layers} layers{ranks}, {_buckets(len(table.rows))}"
    below = f"geometric mean over {_buckets(len(table.entries))}; {kept} of them keep a split, the others the baseline"
    return (
        f"<header><h1>{escape(title)}</h1><p class='muted'>{escape(table.device.name)}</p></header>"
        f'<section class="top"><div class="{"big" if kept else "big none"}"><b>{figure}</b>'
        f"{badge(table.device.evidence)}<p>{escape(below)}</p></div>"
        f'<div class="words"><h2>What is kept most often</h2><ul>{_favourites(frame)}</ul></div></section>'
    )


def _buckets(count: int) -> str:
    return f"{count} bucket{'' if count == 1 else 's'}"


def _favourites(frame: pl.DataFrame) -> str:
    counts = frame["kept"].value_counts(sort=True).sort("count", "kept", descending=[True, False]).head(4)
    return "".join(f"<li>{escape(name)}: {_buckets(count)}</li>" for name, count in counts.iter_rows())


def _figure(frame: pl.DataFrame) -> str:
    # The figure needs two buckets to be one.
    if frame.height < 2 or find_spec(HEATMAP) is None:
        return ""
    heatmap = import_module(HEATMAP).heatmap
    note = (
        "A square per bucket: blue where the kept split is faster than the baseline, a diamond where the baseline "
        "stays. The interval and the split show when a square is pointed at."
    )
    return section("Speed-up over the baseline", figure_html(heatmap(frame)), note)


def _rows(table: Table) -> str:
    head = "".join(f"<th{' class=t' if name == 'kept split' else ''}>{escape(name)}</th>" for name in HEAD)
    rows = "".join(_row(table, row, row.entry) for row in table.rows if row.entry is not None)
    return scroll(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")


def _row(table: Table, row: Row, entry: Entry) -> str:
    folder = table.shared.folder(row.bucket)
    name = escape(str(row.bucket))
    if (folder / "report.html").is_file():
        name = f'<a href="{FOLDER}/{escape(folder.name)}/report.html">{name}</a>'
    split = "the baseline stays" if entry.pass_through else str(entry.split)
    cells = (
        *(entry.order, _ms(entry.baseline_latency_us), _ms(entry.latency_us), _times(entry.speedup)),
        *(_times(entry.speedup_vs_stack), f"{entry.gap:.1%}", f"{entry.peak_bytes / 2**20:.0f} MiB"),
    )
    return (
        f'<tr><td>{name}</td><td class="t">{escape(split)}</td>'
        + "".join(f'<td class="n">{c}</td>' for c in cells)
        + "</tr>"
    )


def _ms(spread: Spread) -> str:
    return f"{spread.median / 1e3:.4g} ms"


def _times(spread: Spread | None) -> str:
    if spread is None:
        return NOTHING
    return f'<span title="{spread.low:.3f} to {spread.high:.3f}">{spread.median:.3f}×</span>'


def _left_out(table: Table) -> str:
    rows = [(str(row.bucket), str(row.failure)) for row in table.failed]
    return section("Buckets that could not be swept", sentence_table("bucket", "why", rows)) if rows else ""


def _method(table: Table) -> Iterator[str]:
    yield "Every bucket is a sweep of its own, with its own baseline, race and decision; its page says how."
    yield (
        "A bucket tries, beside the splits of the space, what was kept for its neighbours. Which those are follows "
        "from the list of buckets alone."
    )
    yield f"Times and speed-ups are {table.device.evidence}; a speed-up's interval shows when it is pointed at."
    yield f"`{table.shared.command}`, {datetime.now(timezone.utc):%Y-%m-%d %H:%M UTC}"

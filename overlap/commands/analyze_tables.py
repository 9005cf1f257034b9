"""What `overlap analyze` prints: short tables with the evidence beside every time."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from overlap.analysis.numbers import counted, elided, share_text, time_text
from overlap.commands.analyze_run import AnalysisResult, Compared, Named
from overlap.commands.look import SHARES, new_table

TOP_OPS = 10
TOP_ADVICE = 6
MOST_COLUMNS = 4
# Characters that names get at least and at most, and what the columns beside them take.
SHORTEST, LONGEST = 16, 60
_BESIDE_SHARE, _SHARE = 17, 18
_BESIDE_OP, _BESIDE_CHANGE = 38, 52


def analysis_tables(result: AnalysisResult, width: int = 80) -> Iterator[Table]:
    """Where the time went, what could be saved, which ops are exposed, and what changed; names are cut to `width`."""
    yield _shares(result, width)
    for one in result.devices[:MOST_COLUMNS]:
        suffix = f" ({escape(one.name)})" if len(result.devices) > 1 else ""
        yield from (table for table in (_advice(one, suffix), _ops(one, suffix, width)) if table.row_count)
    if result.compared is not None:
        yield _summary(result.compared)
        yield _changes(result.compared, width)


def _table(title: str, *columns: str) -> Table:
    """A table whose cells are never broken into lines."""
    table = new_table(title, *columns)
    for column in table.columns:
        column.no_wrap = True
    return table


def _name(text: str, width: int) -> Text:
    return Text(elided(text, min(LONGEST, max(SHORTEST, width))))


def _shares(result: AnalysisResult, width: int) -> Table:
    fitting = (width - _BESIDE_SHARE) // _SHARE - (len(result.devices) > 1)
    shown = result.devices[: max(1, min(MOST_COLUMNS, fitting))]
    more = len(result.devices) - len(shown)
    together = len(result.devices) > 1
    columns = [escape(one.name) for one in shown] + (["all devices"] if together else [])
    title = f"{escape(result.root.trace)}, {result.evidence}" + (
        f" ({counted(more, 'more device')} in the report)" if more else ""
    )
    table = _table(title, "", *columns)
    for column in table.columns[1:]:
        column.no_wrap = False
    parts = [one.device.partition for one in shown] + ([result.partition] if together else [])
    table.add_row("window", *(time_text(part.window_ns) for part in parts))
    for name, time_of in SHARES.items():
        table.add_row(
            name, *(f"{time_text(time_of(part))}  {share_text(part.fraction(time_of(part)))}" for part in parts)
        )
    for engine, name in (("FUSED", "fused attention"), ("DMA", "DMA busy"), ("NIC", "NIC busy"), ("OTHER", "unknown")):
        times = [part.busy_ns(engine) for part in parts]
        if any(times):
            cells = [f"{time_text(ns)}  {share_text(part.fraction(ns))}" for ns, part in zip(times, parts, strict=True)]
            table.add_row(name, *cells)
    return table


def _advice(one: Named, suffix: str) -> Table:
    table = new_table(f"what could be saved, each at most and not additive{suffix}", "", "saves", "share", "knob")
    table.columns[1].no_wrap = table.columns[2].no_wrap = True
    table.columns[3].justify = "left"
    for advice in one.device.advised.advice[:TOP_ADVICE]:
        table.add_row(advice.title, time_text(advice.saves_at_most_ns), share_text(advice.of_window), advice.knob)
    return table


def _ops(one: Named, suffix: str, width: int) -> Table:
    table = _table(f"most exposed ops{suffix}", "", "engine", "launches", "time", "exposed")
    for row in one.device.names.head(TOP_OPS).iter_rows(named=True):
        times = time_text(row["duration_ns"]), time_text(row["exposed_ns"])
        table.add_row(_name(row["name"], width - _BESIDE_OP), row["engine"], f"{row['count']:,}", *times)
    return table


def _summary(compared: Compared) -> Table:
    table = new_table(escape(f"{compared.before} -> {compared.after}, per iteration"), "", "before", "after", "change")
    for row in compared.summary.iter_rows(named=True):
        cells = [f"{time_text(row[f'{one}_ns'])}  {share_text(row[f'{one}_share'])}" for one in "ab"]
        table.add_row(row["name"], *cells, _signed(row["delta_ns"]))
    return table


def _changes(compared: Compared, width: int) -> Table:
    table = _table("what changed most", "", "", "before", "after", "time", "exposed")
    for row in compared.changes.filter(compared.changes["status"] != "same").head(TOP_OPS).iter_rows(named=True):
        times = (row["duration_a_ns"] or 0, row["duration_b_ns"] or 0)
        moves = (row["delta_ns"], row["exposed_delta_ns"])
        name = _name(row["name"], width - _BESIDE_CHANGE)
        table.add_row(name, row["status"], *map(time_text, times), *map(_signed, moves))
    return table


def _signed(time_ns: int) -> str:
    return f"{'+' if time_ns > 0 else '-' if time_ns < 0 else ''}{time_text(abs(time_ns))}"

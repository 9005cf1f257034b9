"""What a table prints: a line per bucket, those that could not be swept, and a sentence over all of them."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from overlap.commands.look import new_table
from overlap.commands.table_page import geometric_mean
from overlap.commands.table_run import Table
from overlap.serve.tuned import Spread

# More lines than these are for the report.
MOST_ROWS = 128
NOTHING = "–"


def table_tables(table: Table) -> Iterator[RichTable]:
    """The buckets with an entry, then those without."""
    shared = table.shared
    title = f"{shared.workload.model.name}, {shared.workload.window_layers} layers on {table.device.name}"
    columns = ("bucket", "time", "speed-up", "over stack", "kept")
    found = new_table(escape(f"{title}, {table.device.evidence}"), *columns)
    # One line per bucket: on a narrow terminal the kept split is cut off, and only that; it is in the report.
    for column in found.columns[:-1]:
        column.no_wrap = True
    found.columns[-1].justify = "left"
    for entry in table.entries[:MOST_ROWS]:
        kept = "the baseline stays" if entry.pass_through else f"{entry.split} | {entry.order}"
        time = f"{entry.latency_us.median / 1e3:.4g} ms"
        over = f"{entry.speedup_vs_stack.median:.3f}x" if entry.speedup_vs_stack else NOTHING
        shown = Text(kept, no_wrap=True, overflow="ellipsis")
        found.add_row(str(entry.bucket), time, times(entry.speedup), over, shown)
    yield found
    if table.failed:
        left_out = new_table("not swept", "bucket", "why")
        left_out.columns[-1].justify = "left"
        for row in table.failed[:MOST_ROWS]:
            left_out.add_row(str(row.bucket), escape(str(row.failure)))
        yield left_out


def times(spread: Spread) -> str:
    """`1.371x [1.344, 1.395]`."""
    return f"{spread.median:.3f}x [{spread.low:.3f}, {spread.high:.3f}]"


def summary(table: Table) -> str:
    """One line over all buckets."""
    kept = [entry.speedup.median for entry in table.entries if not entry.pass_through]
    stay = len(table.entries) - len(kept)
    mean = geometric_mean([*kept, *[1.0] * stay])
    rest = len(table.rows) - MOST_ROWS
    return (
        f"{len(table.rows)} buckets: {len(kept)} keep a split, {stay} the baseline, {len(table.failed)} could not be "
        f"swept; geometric mean {mean:.3f}x" + (f"; {rest} more rows are in the report" if rest > 0 else "")
    )

"""What the tables of all commands share; nothing here loads torch, which commands on traces can do without."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from overlap.analysis.partition import Partition

# Shown only where there is any: collectives, copies, and what has no engine of the two.
OTHERS_ALONE = "neither, but NIC or DMA"
# What is printed of a partition: name and time in ns.
SHARES: dict[str, Callable[[Partition], int]] = {
    "MME busy": lambda found: found.busy_ns("MME"),
    "TPC busy": lambda found: found.busy_ns("TPC"),
    "both busy": lambda found: found.both_ns,
    "exposed TPC": lambda found: found.exposed_tpc_ns,
    OTHERS_ALONE: lambda found: found.others_alone_ns,
    "idle": lambda found: found.idle_ns,
}


def new_table(title: str, *columns: str) -> Table:
    """A table of the look that all commands share; the first column is text."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    return table

"""`overlap devices`: list the devices of this version and which of them are present."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def run() -> None:
    """Print one row per device kind."""
    from overlap.devices.registry import available

    table = Table("device", "present", "detail", box=None, pad_edge=False)
    for one in available():
        table.add_row(one.kind, "yes" if one.present else "no", one.detail)
    Console().print(table)

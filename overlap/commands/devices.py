"""`overlap devices`: list the devices, or all constants of a modelled one with where each comes from."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from overlap.errors import DeviceError
from overlap.similar import did_you_mean

# Columns of a terminal from which on texts on sources can be read.
WIDE = 120


def run(device: str = "") -> None:
    """Print one row per device kind, or one per constant of `device`.

    Raises:
        DeviceError: there is no such device, or it is not a model.
    """
    console = Console()
    if not device:
        console.print(_devices())
        return
    wide = console.width >= WIDE
    console.print(_constants(device, wide))
    if not wide:
        console.print(f"a terminal of {WIDE} columns shows where each stands as well")


def _devices() -> Table:
    from overlap.devices.registry import available

    table = Table("device", "present", "detail", box=None, pad_edge=False)
    for one in available():
        table.add_row(one.kind, "yes" if one.present else "no", one.detail)
    return table


def _constants(device: str, wide: bool) -> Table:
    from overlap.devices.gaudi.constants import CHIPS, load_constants
    from overlap.devices.registry import OPENERS

    if device not in CHIPS:
        known = did_you_mean(device, CHIPS)
        hint = f"modelled ones: {', '.join(CHIPS)}" if device in OPENERS else known
        raise DeviceError(f"device {device!r} has no constants to list", hint)
    table = Table(box=None, pad_edge=False)
    table.add_column("constant", no_wrap=True)
    table.add_column("value", no_wrap=True)
    table.add_column("interval", overflow="fold")
    table.add_column("source", no_wrap=True)
    if wide:
        table.add_column("where", overflow="fold")
    for name, entry in load_constants(device).entries.items():
        interval = f"{entry.low:g} to {entry.high:g}" if entry.low is not None and entry.high is not None else ""
        value = str(entry.value) if isinstance(entry.value, (str, bool)) else f"{entry.value:,}"
        cells = [name, f"{value} {entry.unit}".rstrip(), interval, entry.source, entry.where]
        table.add_row(*cells[: len(table.columns)])
    return table

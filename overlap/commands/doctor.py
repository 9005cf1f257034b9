"""`overlap doctor`: what this machine is, what works on it, what does not, and what to set."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from overlap.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from overlap.devices.hpu.doctor import Examined
    from overlap.devices.hpu.presence import Card

USABLE, NOT_USABLE = 0, 1
WORKS = {True: "yes", False: "NO", None: "–"}


def run(device: str = "auto", mode: str = "") -> int:
    """Print what is found; 0 if a sweep can run on `device`, else 1. `mode` looks at one mode of a card only.

    Raises:
        ConfigError: there is no such device or mode.
    """
    from rich.console import Console

    from overlap.devices.hpu.presence import find_card
    from overlap.devices.hpu.settings import MODES
    from overlap.devices.registry import OPENERS, best_kind
    from overlap.similar import did_you_mean

    if device not in ("auto", *OPENERS):
        raise ConfigError(f"device {device!r} is not known", did_you_mean(device, ["auto", *OPENERS]))
    card = find_card()
    # Signs of a Gaudi mean that its owner wants to know, even where `auto` would take the host.
    kind = device if device != "auto" else "hpu" if card.package or card.nodes else best_kind()
    if mode and mode not in MODES:
        raise ConfigError(f"there is no mode {mode!r}", did_you_mean(mode, MODES))
    if mode and kind != "hpu":
        raise ConfigError(f"mode={mode} is of a card, and the device is {kind}", "overlap doctor device=hpu")
    console = Console()
    _machine(console)
    usable = _card(console, card, mode) if kind == "hpu" else True
    _devices(console)
    verdict = f"{kind} can be used: overlap sweep device={kind}" if usable else f"{kind} cannot be used here"
    console.print(verdict, highlight=False, soft_wrap=True)
    return USABLE if usable else NOT_USABLE


def _machine(console: Console) -> None:
    import torch

    from overlap import __version__
    from overlap.devices.host.device import cpu_name

    _facts(
        console,
        "this machine",
        {
            "overlap": __version__,
            "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
            "processor": f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores",
            "PyTorch": str(torch.__version__),
        },
    )


def _card(console: Console, card: Card, only: str) -> bool:
    """Everything about a card; whether the default mode, or the one that was asked for, can be used."""
    from overlap.devices.hpu.doctor import advice, examine, facts
    from overlap.devices.hpu.probes import configs
    from overlap.devices.hpu.settings import HpuConfig

    _facts(console, "Gaudi", facts(card))
    wanted = [HpuConfig(mode=only)] if only else configs(HpuConfig())
    found: list[Examined] = []
    if card.package:
        for config in wanted:
            found.append(examine(config))
            _probes(console, found[-1])
    usable = bool(found) and found[0].usable
    hints = advice(card)
    others = [one.mode for one in found if one.usable]
    if not usable and others:
        hints.append(f"use device.hpu.mode={others[0]}, which works")
    for hint in hints:
        console.print(f"  to do: {hint}", highlight=False, soft_wrap=True)
    return usable


def _facts(console: Console, title: str, found: dict[str, str]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in found.items():
        table.add_row(f"  {name}", value)
    console.print(title, highlight=False)
    console.print(table, "")


def _probes(console: Console, found: Examined) -> None:
    from rich.table import Table

    console.print(f"mode {found.mode}: {'usable' if found.usable else 'NOT usable'}", highlight=False)
    if found.error:
        console.print(f"  {' '.join(found.error.split())}", "", highlight=False, soft_wrap=True)
        return
    table = Table("  what", "works", "seen", "without it", box=None, pad_edge=False)
    for probe in found.probes:
        if probe.works is not None or not probe.seen.startswith("not in mode"):
            table.add_row(f"  {probe.name}", WORKS[probe.works], probe.seen, "" if probe.works else probe.without)
    console.print(f"  {found.about['name']}, software {found.about['release']}", highlight=False, soft_wrap=True)
    console.print(table, "")


def _devices(console: Console) -> None:
    """All devices, for whoever has no card."""
    from overlap.devices.registry import available

    _facts(console, "devices", {one.kind: f"{'' if one.present else 'not here: '}{one.detail}" for one in available()})

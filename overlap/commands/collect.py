"""`overlap collect`: merge what many workers found into one tuned config per model and device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from overlap.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from overlap.commands.collect_files import Group

SUFFIXES = (".yaml", ".yml")


def run(records: str = "", into: str = "tuned.yaml") -> None:
    """Merge the records and runs in the folder `records` into the file `into`, and say what became of them.

    Raises:
        OverlapError: there is nothing to merge, or a file cannot be written.
    """
    if not records:
        raise ConfigError("records is missing", "overlap collect records=<dir> [into=<file>]")
    target = Path(into)
    if target.suffix not in SUFFIXES:
        raise ConfigError(f"into={into} is no YAML file", "into=<file>.yaml")

    from rich.console import Console

    from overlap.commands.collect_files import find_all, merge, write_groups

    finds, damaged = find_all(Path(records))
    groups = merge(finds, target.parent.absolute())
    paths = write_groups(groups, target)
    console = Console()
    console.print(_table(groups, paths))
    for line in damaged:
        Console(stderr=True).print(f"left out {' '.join(line.split())}", markup=False, highlight=False, soft_wrap=True)


def _table(groups: list[Group], paths: list[Path]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("file", "model", "device", "version"):
        table.add_column(name, overflow="fold")
    for name in ("buckets", "kept", "duplicates"):
        table.add_column(name, justify="right")
    for group, path in zip(groups, paths, strict=True):
        tuned = group.tuned
        kept = sum(not entry.pass_through for entry in tuned.entries)
        table.add_row(
            str(path),
            f"{tuned.model.name}, tp {tuned.tensor_parallel}, {tuned.window_layers} layers",
            f"{tuned.device.name}, {tuned.device.evidence}",
            " ".join(part for part in (group.first.version, group.first.code) if part) or "unknown",
            str(len(tuned.entries)),
            str(kept),
            str(group.duplicates),
        )
    return table

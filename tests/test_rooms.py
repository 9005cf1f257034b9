"""The rooms of the house: data flows one way, so a room imports only from rooms above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Room -> rooms it may import beside itself. `commands` and `app` may import everything.
MAY_IMPORT = {
    "core": set(),
    "kernels": {"core"},
    "traces": {"core"},
    "analysis": {"core", "traces"},
    "devices": {"core", "kernels", "traces"},
    "search": {"core", "kernels", "analysis", "devices"},
    "serve": {"core", "kernels"},
}
FRONT = {"overlap.cli", "overlap.app", "overlap.commands", "overlap.conf", "overlap.__main__"}


def room_of(module: str) -> str:
    """The room of a module by its import name; everything else under `overlap` is core."""
    parts = module.split(".")
    if ".".join(parts[:2]) in FRONT:
        return "front"
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "core"


def modules() -> list[tuple[str, Path]]:
    """Import name and file of every module of the library."""
    found = []
    for folder, prefix in (
        ("overlap", "overlap"),
        *((name, f"overlap.{name}") for name in ("kernels", "traces", "analysis")),
    ):
        for path in (ROOT / folder).rglob("*.py"):
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            found.append((".".join([prefix, *(part for part in inner if part != "__init__")]), path))
    return sorted(found)


def imported(path: Path) -> set[str]:
    """Modules of ours that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.startswith("overlap.")}


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value) if isinstance(value, str) else "")
def test_a_room_imports_only_from_rooms_above_it(module: str, path: Path) -> None:
    room = room_of(module)
    if room == "front":
        return
    wrong = {name for name in imported(path) if room_of(name) not in MAY_IMPORT[room] | {room}}
    assert wrong == set()

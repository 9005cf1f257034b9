"""What a sweep is, compared with what another one was; and what the code is that decides its result.

Terms
    difference: one dotted key with the value that was recorded and the value of now, `workload.bucket.query 16 → 32`.
    code hash: a digest of the sources and constants that results depend on. The version alone would not tell that
        somebody edited a kernel between two sessions of one sweep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Packages whose content decides what a sweep finds; of the first only its own modules, which are the vocabulary.
CORE = "overlap"
PACKAGES = ("overlap.capture", "overlap.devices", "overlap.kernels", "overlap.search")
SUFFIXES = (".py", ".yaml")
HASH_DIGITS = 12
SHOWN_DIFFERENCES = 6
SHOWN_CHARACTERS = 60
ABSENT = "nothing"


@cache
def code_hash() -> str:
    """A digest of names and bytes of the deciding files; the same for a checkout and for a wheel made of it."""
    digest = hashlib.sha256()
    found = [(file.name, file) for file in _folder(CORE).glob("*.py")]
    for package in PACKAGES:
        folder = _folder(package)
        found += [
            (f"{package}/{file.relative_to(folder).as_posix()}", file)
            for file in folder.rglob("*")
            if file.suffix in SUFFIXES
        ]
    for name, file in sorted(found):
        content = file.read_bytes()
        # Lengths keep apart what would otherwise run together.
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:HASH_DIGITS]


def _folder(package: str) -> Path:
    """Where a package lies, without importing it."""
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec else None
    assert places, f"{package} is part of this program"
    return Path(next(iter(places)))


def differences(before: Any, now: Any, key: str = "") -> list[str]:
    """Every dotted key whose value differs, as `key old → new`, sorted by key."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        found = []
        for name in sorted({*before, *now}):
            inner = f"{key}.{name}" if key else name
            found += differences(before.get(name, ABSENT), now.get(name, ABSENT), inner)
        return found
    return [] if before == now else [f"{key} {_shown(before)} → {_shown(now)}"]


def in_words(found: list[str]) -> str:
    """A list of differences that fits an error message."""
    more = len(found) - SHOWN_DIFFERENCES
    return "; ".join(found[:SHOWN_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def fresh_directory(run_dir: Path) -> str:
    """The override that gives a directory nobody has used yet, named after `run_dir`."""
    # Hydra leaves this file in the folder that the jobs of a multirun share; their own folders are named by content.
    multirun = (run_dir.parent / "multirun.yaml").is_file()
    taken = run_dir.parent if multirun else run_dir
    number = 2
    while (fresh := taken.with_name(f"{taken.name}-{number}")).exists():
        number += 1
    return f"hydra.{'sweep' if multirun else 'run'}.dir={_short(fresh)}"


def _short(path: Path) -> Path:
    """As it would be typed from here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path

"""A folder that is written as a whole: made beside its place, and moved into it.

Contract: what was there before is replaced only if it is an export, and stays as it was where anything fails.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from overlap.errors import RunDirError


def write_folder(into: Path, marks: Collection[str], fill: Callable[[Path], None]) -> Path:
    """Have `fill` write a fresh folder and put it in the place of `into`.

    Args:
        into: where it goes.
        marks: names of files of which one tells an older export.
        fill: writes all files.

    Raises:
        RunDirError: it cannot be written, or is something else already.
    """
    refuse_foreign(into, marks)
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=into.parent, prefix=f".{into.name}."))
        try:
            fill(fresh)
            os.chmod(fresh, 0o755)  # Such folders are made private; an export is for others too.
            _exchange(fresh, into)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    except OSError as error:
        raise RunDirError(f"cannot write {into}: {error.strerror or error}", "choose another into=<dir>") from error
    return into


def refuse_foreign(into: Path, marks: Collection[str]) -> None:
    """Raise `RunDirError` for anything but an older export, an empty folder or nothing."""
    if not into.exists() and not into.is_symlink():
        return
    if into.is_symlink() or not into.is_dir():
        raise RunDirError(f"{into} is no folder", "choose another into=<dir>")
    names = {one.name for one in into.iterdir()}
    if names and not names & set(marks):
        raise RunDirError(f"{into} holds files of something else", "choose another into=<dir>, or empty it")


def _exchange(fresh: Path, into: Path) -> None:
    old = fresh.with_name(f"{fresh.name}.old")
    if into.exists():
        os.replace(into, old)
    try:
        os.replace(fresh, into)
    except OSError:
        if old.exists():
            os.replace(old, into)
        raise
    shutil.rmtree(old, ignore_errors=True)

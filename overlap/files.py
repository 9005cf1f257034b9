"""Files that are either complete or not there: written beside their place and moved into it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from overlap.errors import RunDirError


def write_atomic(path: Path, content: bytes) -> Path:
    """Write `content` to `path` so that a reader sees all of it or what was there before; makes missing folders.

    Raises:
        RunDirError: where the folder cannot be written.
    """
    return write_atomic_blocks(path, (content,))


def write_atomic_blocks(path: Path, blocks: Iterable[bytes]) -> Path:
    """The same for content that comes piece by piece."""
    # A link stays one: what it points to is written.
    place = Path(os.path.realpath(path)) if path.is_symlink() else path
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(blocks)
            os.chmod(temporary, 0o644)  # mkstemp makes files private; results are for colleagues too
            os.replace(temporary, place)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise RunDirError(f"cannot write {path}: {error.strerror or error}", "choose another hydra.run.dir") from error
    return path

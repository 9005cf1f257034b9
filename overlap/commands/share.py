"""A finished sweep as a record in the folder that workers share (`records=<dir>`), for `overlap collect`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from overlap.commands.sweep_files import build_tuned
from overlap.search.records import append_record
from overlap.search.sweep import SweepResult


def share(result: SweepResult, folder: str, run_dir: Path) -> None:
    """Append `result`, whose files are in `run_dir`, to the records in `folder`; nothing if that is empty.

    Raises:
        RunDirError: the folder cannot be written.
    """
    if not folder:
        return
    # The journal's header says what was swept, on what, and with which code.
    identity = result.records[0]["identity"]
    assert isinstance(identity, dict), "the first record of a journal is its header"
    append_record(Path(folder), identity, msgspec.to_builtins(build_tuned(result)), run_dir)

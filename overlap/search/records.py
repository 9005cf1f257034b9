"""Records of finished sweeps in a folder that many workers share: appended only, merged later by `overlap collect`.

Terms
    record: one line of JSON: which sweep it was (identity), what it kept (a tuned config), where and when it ran.
    damaged: a line that is no record; it is named and left out, and the others count.

Contract: every process writes a file of its own, `<host>-<pid>-<random>.jsonl`, so that nothing has to be locked, which
network file systems do badly. A line is on the disk, whole, before `append_record` returns; what does not fit is taken
back. A line without its newline was cut off, or is being written.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from overlap.errors import RunDirError
from overlap.search.journal import NAME as JOURNAL

SCHEMA = "overlap.record/1"
SUFFIX = ".jsonl"
# What every record has, with its type.
FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "schema": str,
    "identity": dict,
    "tuned": dict,
    "run_dir": str,
    "host": str,
    "finished_unix_s": (int, float),
}


@dataclass(frozen=True)
class Read:
    """What a folder of records holds: `damaged` as `file:line: reason`."""

    records: tuple[dict[str, Any], ...]
    damaged: tuple[str, ...]


def append_record(folder: Path, identity: Mapping[str, Any], tuned: Mapping[str, Any], run_dir: Path) -> Path:
    """Add a finished sweep to the file of this process in `folder`; the file.

    Raises:
        RunDirError: the folder cannot be written; what was there stays as it was.
    """
    record = {
        "schema": SCHEMA,
        "identity": identity,
        "tuned": tuned,
        "run_dir": str(run_dir.absolute()),
        "host": socket.gethostname(),
        "finished_unix_s": round(time.time(), 3),
    }
    line = (json.dumps(record, allow_nan=False) + "\n").encode()
    path = folder / _own_name(os.getpid())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _append(path, line)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror or error}"
        raise RunDirError(message, "choose a folder that every worker can write, with records=<dir>") from error
    return path


@cache
def _own_name(pid: int) -> str:
    """The file of process `pid`; the random part keeps apart processes that had the same number one after the other."""
    host = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname())
    return f"{host}-{pid}-{uuid.uuid4().hex[:8]}{SUFFIX}"


def _append(path: Path, line: bytes) -> None:
    """Write `line` and force it to the disk, or leave the file as it was."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        begin = os.fstat(file).st_size
        try:
            while line:
                line = line[os.write(file, line) :]
            os.fsync(file)
        except BaseException:
            os.ftruncate(file, begin)
            raise
    finally:
        os.close(file)
    if not begin:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Force the name of a new file to the disk, too."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError:
        # Some network file systems cannot do this for folders; they write names at once.
        pass
    finally:
        os.close(file)


def read_records(folder: Path) -> Read:
    """All records in the files of `folder`, oldest first.

    Raises:
        RunDirError: the folder, or a file in it, cannot be read.
    """
    records: list[dict[str, Any]] = []
    damaged: list[str] = []
    try:
        for path in sorted(set(folder.glob(f"*{SUFFIX}")) - {folder / JOURNAL}):
            text = path.read_bytes()
            for number, line in enumerate(text.split(b"\n"), start=1):
                if not line:
                    continue
                if number > text.count(b"\n"):
                    damaged.append(f"{path}:{number}: the line has no end; cut off, or still being written")
                    continue
                found = _record(line)
                if isinstance(found, str):
                    damaged.append(f"{path}:{number}: {found}")
                else:
                    records.append(found)
    except OSError as error:
        raise RunDirError(f"cannot read {error.filename or folder}: {error.strerror}", "records=<dir>") from error
    return Read(tuple(sorted(records, key=lambda one: float(one["finished_unix_s"]))), tuple(damaged))


def _record(line: bytes) -> dict[str, Any] | str:
    """A record, or what is wrong with the line."""
    try:
        found = json.loads(line)
    except ValueError:
        return "not JSON"
    if not isinstance(found, dict):
        return "not a record"
    for name, kind in FIELDS.items():
        if not isinstance(found.get(name), kind):
            return f"no record: its {name} is {'missing' if name not in found else 'of another type'}"
    if found["schema"] != SCHEMA:
        return f"a record of schema {found['schema']!r}; this version reads {SCHEMA}"
    return found

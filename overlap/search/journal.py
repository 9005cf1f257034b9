"""The journal of a sweep: one JSON line per fact, appended as it becomes known, so that a killed sweep loses nothing.

Terms
    record: one line, an object with a `kind`. The first is the header, which says whose journal this is.
    session: one process that wrote to the journal. Samples are paired only within a session, because between two
        sessions the machine may have changed.

Contract: a line is written whole or not at all as far as readers are concerned: a last line without its newline was cut
off by a kill and is dropped. One process at a time holds the journal (an OS lock, which dies with its owner).

What a kill can take is the sample that is running: every finished one has been handed to the operating system. What a
power failure can take is more, the last seconds before it: the file is forced to the disk when it is begun and when it
is closed, and not in between, because waiting for a disk beside what is being timed would disturb it. A journal that
lost its end that way is one that was cut off, and is gone on with like any other.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from overlap.errors import RunDirError
from overlap.search.identity import differences, fresh_directory, in_words

NAME = "journal.jsonl"
# What Hydra has put into a run directory before a journal is opened.
OURS = {".hydra", "run.log"}
SCHEMA = "overlap.journal/1"
# How every journal begins; tells a header that was cut off from a file that belongs to somebody else.
START = b'{"kind": "header"'


class Journal:
    """An open journal; use as a context manager.

    Raises:
        RunDirError: the directory cannot be written, is in use, or belongs to another sweep.
    """

    def __init__(self, run_dir: Path, identity: Mapping[str, Any]) -> None:
        self.path = run_dir / NAME
        self.session = uuid.uuid4().hex[:12]
        self.records: list[dict[str, Any]] = []
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            _refuse_foreign(run_dir)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise RunDirError(f"cannot write to {run_dir}: {error.strerror}", "choose another hydra.run.dir") from error
        try:
            self._lock()
            self._load()
            self._check(identity)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Journal:
        """The journal itself."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Force the file to the disk, close it and give up the lock."""
        try:
            self._sync()
        except RunDirError:
            # What is already on its way up says more.
            if kind is None:
                raise
        finally:
            os.close(self._file)

    def append(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Write one record and return it."""
        record = {"kind": kind, **fields}
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        try:
            self._write(line)
        except OSError as error:
            raise RunDirError(f"cannot write to {self.path}: {error.strerror}", "what is there stays valid") from error
        self.records.append(record)
        return record

    def _write(self, line: bytes) -> None:
        """Write all of `line`, or leave the file as it was: half a line would spoil the next one."""
        begin = os.fstat(self._file).st_size
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except BaseException:
            os.ftruncate(self._file, begin)
            raise

    def _sync(self) -> None:
        """Force what is written to the disk; file systems that cannot are left alone."""
        try:
            os.fsync(self._file)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise RunDirError(f"cannot write to {self.path}: {error.strerror}", "check the disk") from error

    def of_kind(self, kind: str) -> Iterator[dict[str, Any]]:
        """Records of one kind, oldest first."""
        return (record for record in self.records if record["kind"] == kind)

    @property
    def resumed(self) -> bool:
        """Whether an earlier session left records."""
        return any(record.get("session") not in (None, self.session) for record in self.records)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunDirError(
                f"another sweep is running in {self.path.parent}", "wait for it, or choose another hydra.run.dir"
            ) from None
        except OSError as error:
            raise RunDirError(
                f"cannot lock {self.path}: {error.strerror}", "choose a hydra.run.dir on a local disk"
            ) from error

    def _load(self) -> None:
        """Read what is there; cut off a last line that was never finished."""
        text = self.path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if not whole and text[: len(START)] != START[: len(text)]:
            raise RunDirError(f"{self.path} is not a journal", "choose another hydra.run.dir")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                record = json.loads(line)
                kind = record["kind"]
            except (ValueError, KeyError, TypeError):
                if number == 1:
                    raise RunDirError(f"{self.path} is not a journal", "choose another hydra.run.dir") from None
                raise RunDirError(
                    f"{self.path} line {number} is damaged", "remove the line, or choose another hydra.run.dir"
                ) from None
            if number == 1 and (kind != "header" or record.get("schema") != SCHEMA):
                raise RunDirError(f"{self.path} is not a journal of this version", "choose another hydra.run.dir")
            self.records.append(record)
        if len(whole) != len(text):
            os.ftruncate(self._file, len(whole))

    def _check(self, identity: Mapping[str, Any]) -> None:
        """Write the header of a new journal; refuse one that was written for something else."""
        plain = json.loads(json.dumps(identity))
        if not self.records:
            self.append("header", schema=SCHEMA, session=self.session, identity=plain)
            self._sync()
            return
        theirs = self.records[0].get("identity", {})
        names = [name for name in sorted({*plain, *theirs}) if plain.get(name) != theirs.get(name)]
        if names:
            raise RunDirError(
                f"{self.path.parent} holds a sweep with another {', '.join(names)}: "
                f"{in_words(differences(theirs, plain))}",
                f"run with {fresh_directory(self.path.parent)}, or with what it was started with",
            )


def _refuse_foreign(run_dir: Path) -> None:
    """Refuse a folder that holds something else, such as a home or a checkout: a sweep would scatter files in it."""
    if (run_dir / NAME).exists():
        return
    others = sorted(path.name for path in run_dir.iterdir() if path.name not in OURS)
    if others:
        raise RunDirError(
            f"{run_dir.resolve()} holds {others[0]} but no journal of a sweep", "choose a new or empty hydra.run.dir"
        )

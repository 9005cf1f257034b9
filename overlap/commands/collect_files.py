"""Merge tuned configs of many workers into one per model and device.

Terms
    find: one tuned config with where it comes from: a line of a shared record, or a finished run's folder.
    group: what one file may hold: the same model, tensor parallelism, window, device with its software, and the same
        version and code of this program. Numbers of different groups are never put side by side.
    duplicate: another result for a bucket that its group has already; the newest stays. Copies of one and the same
        result, such as a record and the folder it was written from, are no duplicates.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from overlap.errors import OverlapError, RunDirError, TunedError
from overlap.search.journal import NAME as JOURNAL
from overlap.search.records import SUFFIX, read_records
from overlap.serve.tuned import Entry, Tuned
from overlap.serve.tuned_file import convert, load, save
from overlap.workload import Bucket

TUNED = "tuned.yaml"
HASH_DIGITS = 6


@dataclass(frozen=True)
class Find:
    """One tuned config; `version` and `code` are those of the program that wrote it, empty where nobody knows."""

    tuned: Tuned
    version: str
    code: str
    run_dir: Path
    finished_unix_s: float

    @property
    def group_key(self) -> str:
        """Equal for what may stand in one file."""
        tuned = self.tuned
        device = msgspec.to_builtins(tuned.device)
        parts = [asdict(tuned.model), tuned.tensor_parallel, tuned.window_layers, device, self.version, self.code]
        return json.dumps(parts, sort_keys=True)


@dataclass
class Group:
    """Buckets of one file; the newest entry of each."""

    first: Find
    entries: dict[Bucket, Entry] = field(default_factory=dict)
    duplicates: int = 0

    def add(self, find: Find, base: Path) -> None:
        """Take the entries of `find`, which is newer than all before; traces are named as seen from `base`."""
        for entry in find.tuned.entries:
            trace = os.path.relpath(find.run_dir / entry.trace, base)
            moved = msgspec.structs.replace(entry, trace=trace)
            self.duplicates += entry.bucket in self.entries and self.entries[entry.bucket] != moved
            self.entries[entry.bucket] = moved

    @property
    def tuned(self) -> Tuned:
        """The whole file, buckets sorted."""
        return self.first.tuned.with_entries(self.entries.values())

    def words(self) -> str:
        """A name for a file: what people look for, and a hash of all the rest."""
        tuned = self.first.tuned
        name = f"{tuned.model.name}-tp{tuned.tensor_parallel}-{tuned.device.kind}"
        digest = hashlib.sha256(self.first.group_key.encode()).hexdigest()[:HASH_DIGITS]
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}-{digest}"


def find_all(folder: Path) -> tuple[list[Find], list[str]]:
    """Everything that `folder` holds: records, and finished runs at any depth; and what of it cannot be used.

    Raises:
        RunDirError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise RunDirError(f"{folder} is no folder", "records=<the folder that workers write to, or one of runs>")
    read = read_records(folder)
    finds, damaged = [], list(read.damaged)
    for record in read.records:
        try:
            finds.append(_of_record(record))
        except TunedError as error:
            damaged.append(error.message)
    for path in sorted(folder.rglob(TUNED)):
        try:
            found = _of_run(path)
        except OverlapError as error:
            damaged.append(f"{path}: {error.message}")
        else:
            if found is not None:
                finds.append(found)
    if not finds:
        what = f"nothing but damaged records, the first is {damaged[0]}" if damaged else "no records and no runs"
        raise RunDirError(f"{folder} holds {what}", f"overlap sweep records={folder} writes *{SUFFIX} files there")
    return sorted(finds, key=lambda find: find.finished_unix_s), damaged


def _of_record(record: Mapping[str, Any]) -> Find:
    tuned = convert(record["tuned"], f"{record['run_dir']} on {record['host']}")
    identity = record["identity"]
    return Find(
        tuned=tuned,
        version=str(identity.get("version", "")),
        code=str(identity.get("code", "")),
        run_dir=Path(record["run_dir"]),
        finished_unix_s=float(record["finished_unix_s"]),
    )


def _of_run(path: Path) -> Find | None:
    """A finished run; None for a tuned config without a journal, which is a collection and no run."""
    journal = path.parent / JOURNAL
    if not journal.is_file():
        return None
    tuned = load(path)
    try:
        with journal.open("rb") as file:
            identity = json.loads(file.readline())["identity"]
        version, code = str(identity.get("version", "")), str(identity.get("code", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunDirError(f"{journal} is damaged, so nobody knows what wrote {path.name}") from error
    return Find(tuned, version, code, path.parent.absolute(), path.stat().st_mtime)


def merge(finds: Iterable[Find], base: Path) -> list[Group]:
    """Groups of `finds`, which come oldest first; traces are named as seen from `base`."""
    groups: dict[str, Group] = {}
    for find in finds:
        groups.setdefault(find.group_key, Group(find)).add(find, base)
    return sorted(groups.values(), key=lambda group: (group.words(), group.first.version))


def write_groups(groups: list[Group], into: Path) -> list[Path]:
    """One file per group: `into` itself where there is one, else `into` with the words of each group before its suffix.

    Raises:
        RunDirError: a file cannot be written.
    """
    single = len(groups) == 1
    paths = [into if single else into.with_name(f"{into.stem}.{group.words()}{into.suffix}") for group in groups]
    for group, path in zip(groups, paths, strict=True):
        save(group.tuned, path)
    return paths

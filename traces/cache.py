"""Traces that were read before, as Parquet: no file is parsed twice.

Terms
    key: hash of a file's content, of the schema's version and of the rules in use; equal keys, equal tables.
    glance: size, and hash of a few pieces of a file; different glances, different files. Only a file whose glance is
        known is hashed as a whole before it is read.
    stamp: path, size and time of change. A file with a known stamp is not even glanced at, unless it changed just
        before the stamp was taken, when a second change could have gone unseen.

Layout: `<root>/<key>/{events,host,counters,nodes}.parquet, about.json`, `<root>/glances/<glance>`,
`<root>/stamps/<hash of path>`. An entry appears by a rename, so a killed process leaves none half written. Entries that
were not used for longest are removed when all together exceed `MOST_BYTES`. A cache that cannot be written or read is
done without.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from overlap.traces.schema import SCHEMA_VERSION
from overlap.traces.trace import About, Trace

MOST_BYTES = 8 << 30
TABLES = ("events", "host", "counters", "nodes")
_PIECE_BYTES = 1 << 16
_SETTLED_NS = 2 * 10**9
_UNFINISHED = "new-"
_ABANDONED_S = 86_400


def default_root() -> Path:
    """Where traces are kept: `overlap/traces` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "overlap" / "traces"


Seen = tuple[int, int, int]  # size, time of change, inode


def state_of(path: Path) -> Seen | None:
    """What tells one state of a file from another; None for a file that is not there."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns, about.st_ino


class Cache:
    """Tables of files read before.

    Args:
        root: the folder; made when the first trace is kept.
        rules: what else the tables depend on, such as the text of the engine rules.
    """

    def __init__(self, root: Path, rules: str = "") -> None:
        self.root = root
        self.rules = rules

    def get(self, path: Path) -> Trace | None:
        """The trace of `path`, None if its content was not seen before."""
        key = None
        try:
            key = self._stamped(path)
            if key is not None:
                return self._load(self.root / key)
            if not (self.root / "glances" / self._glance(path)).exists():
                return None
            key = self._key(path)
            if not (self.root / key).exists():
                return None
            found = self._load(self.root / key)
            self._stamp(path, key)
            return found
        except (OSError, ValueError, TypeError, KeyError, AttributeError, pl.exceptions.PolarsError):
            # Whatever is wrong with an entry, the file itself is still there to be read, and to be kept anew.
            if key is not None:
                shutil.rmtree(self.root / key, ignore_errors=True)
            return None

    def put(self, path: Path, trace: Trace, seen: Seen | None) -> threading.Thread:
        """Keep `trace` as what `path` holds, beside whatever the caller does next; the thread that does it.

        Args:
            path: the file.
            trace: what was read from it.
            seen: `state_of` the file before it was read; nothing is kept if it changed since.
        """
        thread = threading.Thread(target=self._store, args=(path, trace, seen), name="trace cache")
        thread.start()
        return thread

    def _load(self, folder: Path) -> Trace:
        about: dict[str, Any] = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        about["devices"] = {int(index): name for index, name in about["devices"].items()}
        about["warnings"] = tuple(about["warnings"])
        frames = {name: pl.read_parquet(folder / f"{name}.parquet") for name in TABLES}
        os.utime(folder)
        return Trace(about=About(**about), **frames)

    def _store(self, path: Path, trace: Trace, seen: Seen | None) -> None:
        try:
            key, glance = self._key(path), self._glance(path)
            if state_of(path) != seen:
                return  # written to while it was read: the tables are of neither version
            self.root.mkdir(parents=True, exist_ok=True)
            if not (self.root / key).exists():
                self._write(key, trace)
            (self.root / "glances").mkdir(exist_ok=True)
            (self.root / "glances" / glance).touch()
            self._stamp(path, key)
            self._prune(keep=key)
        except (OSError, TypeError, ValueError, pl.exceptions.PolarsError):
            return  # the next run will read the file again, which is all that is lost

    def _write(self, key: str, trace: Trace) -> None:
        folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self.root))
        try:
            for name in TABLES:
                # lz4: as quick to write as it is to read; a tenth of the JSON is small enough.
                getattr(trace, name).write_parquet(folder / f"{name}.parquet", compression="lz4", statistics=False)
            (folder / "about.json").write_text(json.dumps(asdict(trace.about)), encoding="utf-8")
            folder.rename(self.root / key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _prune(self, keep: str) -> None:
        entries = []
        for folder in self.root.glob(f"{_UNFINISHED}*"):
            if time.time() - folder.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(folder, ignore_errors=True)  # its process was killed
        for folder in self.root.iterdir():
            if folder.name != keep and (folder / "about.json").exists():
                size = sum(file.stat().st_size for file in folder.iterdir())
                entries.append((folder.stat().st_mtime_ns, size, folder))
        room = MOST_BYTES
        for _, size, folder in sorted(entries, reverse=True):
            room -= size
            if room < 0:
                shutil.rmtree(folder, ignore_errors=True)

    def _hash(self) -> Any:
        found = hashlib.sha1(usedforsecurity=False)  # twice as quick as its successors, and nobody attacks this
        found.update(f"{SCHEMA_VERSION}\0{self.rules}\0".encode())
        return found

    def _key(self, path: Path) -> str:
        found = self._hash()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
        return str(found.hexdigest())

    def _glance(self, path: Path) -> str:
        found = self._hash()
        size = path.stat().st_size
        found.update(str(size).encode())
        with path.open("rb") as file:
            for tenth in range(10):
                file.seek(max(0, size * tenth // 9 - _PIECE_BYTES))
                found.update(file.read(_PIECE_BYTES))
        return str(found.hexdigest())

    def _stamp_file(self, path: Path) -> Path:
        found = self._hash()
        found.update(os.fsencode(path.resolve()))
        return self.root / "stamps" / str(found.hexdigest())

    def _stamp(self, path: Path, key: str) -> None:
        """Remember that `path`, as it is now, holds the content of `key`."""
        file = self._stamp_file(path)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps([*(state_of(path) or ()), time.time_ns(), key]), encoding="utf-8")

    def _stamped(self, path: Path) -> str | None:
        file = self._stamp_file(path)
        if not file.exists():
            return None
        size, changed, inode, taken, key = json.loads(file.read_text(encoding="utf-8"))
        same = state_of(path) == (size, changed, inode)
        return str(key) if same and taken - changed > _SETTLED_NS else None

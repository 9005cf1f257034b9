"""One large plain file, read by several processes, each its own part.

A part ends where a row may end (`overlap.traces.readers.rows`). Whether a row ends there indeed shows when the part is
read: its last row must be complete and nothing unreadable be in it. Where that fails, or anything else is odd, the
result is None and the file is read again by one process; so parts make reading quicker and change nothing else.
Forked, not spawned: a fork is there at once, and its children touch neither polars nor torch.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from overlap.errors import TraceError
from overlap.traces.readers.gathered import Gathered
from overlap.traces.readers.rows import UNREADABLE, RowReader, last_place
from overlap.traces.readers.stream import Stream

# Below this a second process costs more than it saves.
PART_BYTES = 8 << 20
MOST_PARTS = 8
_LOOK_BYTES = 1 << 16


@dataclass
class Part:
    """What one process has gathered, and how it ended. `head` and `tail` are the file's text around its rows."""

    found: Gathered
    head: bytes
    tail: bytes
    closed: bool
    unread_bytes: int

    @property
    def whole(self) -> bool:
        """Whether every row could be read."""
        return UNREADABLE not in self.found.tally.dropped

    @property
    def smooth(self) -> bool:
        """Whether the part can stand before others."""
        return not self.closed and not self.unread_bytes and self.whole


def gather(stream: Stream, inside: bool = False) -> Part:
    """Read the rows of a stream in this process."""
    found = Gathered()
    reader = RowReader(stream, found.tally, inside=inside)
    # Rows come and go by the hundred thousand and never form cycles, so looking for those would only cost time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for batch in reader:
            found.add(batch)
    finally:
        if collecting:
            gc.enable()
    return Part(found, reader.head, reader.tail, reader.closed, reader.unread_bytes)


def gather_in_parts(stream: Stream, part_bytes: int = PART_BYTES) -> Part | None:
    """Read a plain file with several processes; None where that is not worth it or does not work."""
    count = min(MOST_PARTS, _cores(), stream.file_bytes // part_bytes)
    if stream.zipped or count < 2 or not hasattr(os, "fork"):
        return None
    bounds = _bounds(stream.path, stream.file_bytes, count)
    if len(bounds) < 2:
        return None
    spans = list(zip([0, *bounds[1:-1]], bounds[1:], strict=True))
    children = [_start(stream.path, span) for span in spans[1:]]
    try:
        whole = gather(Stream(stream.path, span=spans[0]))
        for link, _ in children:
            part = link.recv() if whole.smooth else None
            if part is None or not part.whole:
                return None
            whole.found.absorb(part.found)
            whole = Part(whole.found, whole.head, part.tail, part.closed, part.unread_bytes)
    except (EOFError, OSError, TraceError):
        return None
    finally:
        for link, child in children:
            link.close()
            child.terminate()
            child.join()
    stream.read_bytes = stream.file_bytes
    return whole


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bounds(path: Path, size: int, count: int) -> list[int]:
    """Offsets at which parts begin and end; a part but the first begins with a row."""
    bounds = [0]
    with path.open("rb") as file:
        for number in range(1, count):
            file.seek(size * number // count)
            text = file.read(_LOOK_BYTES)
            place = last_place(text)
            if place >= 0:
                bounds.append(file.tell() - len(text) + place)
    return [*bounds, size]


def _start(path: Path, span: tuple[int, int]) -> tuple[Connection, Any]:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(path, span, there), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads; see the module's docstring
        child.start()
    there.close()
    return here, child


def _work(path: Path, span: tuple[int, int], link: Connection) -> None:
    """In the child: the part, or None for whatever goes wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer; it ends its children
    try:
        part: Part | None = gather(Stream(path, span=span), inside=True)
    except Exception:  # the parent reads the file itself and meets the same problem
        part = None
    link.send(part)
    link.close()
    # Nothing is left to do; tidying up row by row would only keep the parent waiting.
    os._exit(0)

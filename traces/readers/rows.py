"""Rows of a Chrome trace out of a byte stream, block by block, whatever state the file is in.

Terms
    row: one element of `traceEvents`, or of a bare array. envelope: what stands before and behind the rows.
    piece: the text between two places where a row may end (`}` `,` `{`); a row is one or a few pieces, since such a
        place can also be inside of it.

Method: a block ends at the last place where a row may end and is decoded in one go; if that succeeds, the place was
right, for a sequence of complete JSON values can be read in one way only. If it fails, the text is cleaned (control
characters, broken UTF-8, `NaN` and `N/A` as values) and tried once more; if it fails again, row by row: the pieces
that follow a row's start are added to it until it can be read, and a piece that starts no readable row is counted and
left behind. `]` behind a complete row ends the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from overlap.errors import TraceError
from overlap.traces.readers.decode import BETWEEN, Batch, Decoding, cleaned
from overlap.traces.readers.stream import Stream
from overlap.traces.trace import Tally

UNREADABLE = "unreadable row"
_ROWS = re.compile(rb'"traceEvents"\s*:\s*\[')
_BETWEEN = re.compile(rb"\}\s*,\s*(?=\{)")
_END = re.compile(rb"\}\s*\]")
_MOST_PIECES = 8
_HEAD_BYTES = 64 << 20
_LONGEST_ROW_BYTES = 256 << 20


class RowReader:
    """Iterates over the batches of a stream; `head`, `tail` and `closed` are known afterwards.

    Args:
        stream: the file.
        tally: where unreadable rows are counted.
        decoding: for the type of rows that is wanted.
        inside: the stream begins with a row, for a part of a file whose beginning others read.
    """

    def __init__(self, stream: Stream, tally: Tally, decoding: Decoding | None = None, inside: bool = False) -> None:
        self.stream = stream
        self.tally = tally
        self.decoding = decoding or Decoding()
        self.inside = inside
        self.closed = False
        self.unread_bytes = 0
        self.head = b""
        self.tail = b""

    def __iter__(self) -> Iterator[Batch]:
        """Batches of rows.

        Raises:
            TraceError: there is no array of rows in the file.
        """
        blocks = self.stream.blocks()
        # Text of rows that are not complete yet; joined once, since a row may be many blocks long.
        pending = [] if self.inside else [self._find_rows(blocks)]
        for block in blocks:
            cut = last_place(block)
            if cut < 0:
                pending.append(block)
                self._check_length(pending)
                continue
            start = block.lstrip(BETWEEN) if not pending else block
            cut -= len(block) - len(start)
            yield from self._decode(b"".join((b"[", *pending, memoryview(start)[:cut], b"]")))
            if self.closed:
                self.tail += start[cut:]
                break
            pending = [start[cut:].lstrip(BETWEEN)]
        else:
            yield from self._decode(b"".join((b"[", b"".join(pending).strip(BETWEEN), b"]")), last=True)
        for block in blocks:
            self.tail += block[: max(0, _HEAD_BYTES - len(self.tail))]

    def _check_length(self, pending: list[bytes]) -> None:
        size = sum(map(len, pending))
        if size > _LONGEST_ROW_BYTES:
            name = self.stream.path.name
            raise TraceError(f"{name} holds {size:,} bytes in which no row ends", "is it a trace of a profiler?")

    def _find_rows(self, blocks: Iterator[bytes]) -> bytes:
        """Put what is before the rows into the head; the text from the first row on."""
        text = b""
        for block in blocks:
            text += block
            if text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                return text[text.index(b"[") + 1 :].lstrip()
            if found := _ROWS.search(text):
                self.head = text[: found.end()].removeprefix(b"\xef\xbb\xbf")
                return text[found.end() :].lstrip()
            if len(text) > _HEAD_BYTES:
                break
        raise TraceError(
            f"{self.stream.path.name} is JSON without `traceEvents`", "give the file that the profiler exported"
        )

    def _decode(self, text: bytes, last: bool = False) -> Iterator[Batch]:
        """Batches of `[`, rows, `]`; where the file goes on behind the last of these rows, only `last` knows."""
        batch = self.decoding.block(text)
        if batch is None and last:
            batch = self._last_block(text[1:-1])
        if batch is not None:
            if batch.rows:
                yield batch
            return
        yield from self._one_by_one(text[1:-1], last)

    def _last_block(self, text: bytes) -> Batch | None:
        """The rows before the closing bracket, if it is one of the last few."""
        ends = [found.start() + 1 for found in _END.finditer(text, max(0, len(text) - (1 << 16)))]
        for end in reversed(ends[-4:]):
            batch = self.decoding.block(b"[" + text[:end] + b"]")
            if batch is not None:
                self._close(text[end:])
                return batch
        if text.lstrip().startswith(b"]"):
            self._close(text.lstrip())
            return Batch([])
        return None

    def _close(self, rest: bytes) -> None:
        self.closed = True
        self.tail = rest.lstrip()

    def _one_by_one(self, text: bytes, last: bool) -> Iterator[Batch]:
        """Rows of a text that cannot be read as a whole."""
        pieces = [0, *(found.end() for found in _BETWEEN.finditer(text)), len(text)]
        rows: list[Any] = []
        at = 0
        while at < len(pieces) - 1:
            used = self._row_at(text, pieces, at, rows)
            if self.closed:
                break
            if not used:
                self._give_up(text[pieces[at] : pieces[at + 1]], last and at == len(pieces) - 2)
            at += used or 1
        if rows:
            yield Batch(rows, exact=True)

    def _row_at(self, text: bytes, pieces: list[int], at: int, rows: list[Any]) -> int:
        """Append the row that starts with piece `at`; the number of pieces it took, 0 if it cannot be read."""
        start = pieces[at]
        for used in range(1, min(_MOST_PIECES, len(pieces) - 1 - at) + 1):
            row = text[start : pieces[at + used]].rstrip(BETWEEN)
            batch = self.decoding.loose(row)
            if batch is not None:
                rows.extend(batch.rows)
                return used
            if used == 1 and (found := _END.search(row)):
                batch = self.decoding.loose(row[: found.start() + 1])
                if batch is not None:
                    rows.extend(batch.rows)
                    self._close(text[start + found.start() + 1 :])
                    return used
        return 0

    def _give_up(self, piece: bytes, last: bool) -> None:
        if last:
            # Without its end a row cannot be told from garbage; it is what a profiler leaves that was killed.
            self.unread_bytes = len(piece)
        if piece.strip(b" \t\r\n,]}"):
            self.tally.drop(UNREADABLE)


def envelope_of(head: bytes, tail: bytes) -> dict[str, Any]:
    """Keys beside `traceEvents`; empty for a bare array. Keys behind the rows are lost where the file is cut."""
    for end in (tail, b"]}"):
        try:
            found = msgspec.json.decode(cleaned(head + end))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            continue
        return found if isinstance(found, dict) else {}
    return {}


def last_place(text: bytes) -> int:
    """Just behind the last `}` where a row may end; -1 if there is none."""
    at = len(text)
    for _ in range(64):
        at = text.rfind(b"},", 0, at)
        if at < 0:
            break
        if text[at + 2 : at + 64].lstrip()[:1] == b"{":
            return at + 1
    starts = [found.start() for found in _BETWEEN.finditer(text, max(0, len(text) - (1 << 20)))]
    return starts[-1] + 1 if starts else -1

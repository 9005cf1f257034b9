"""Files as streams of decompressed bytes, so that a trace of gigabytes never lies in memory as a whole.

Contract: a gzip file that ends too early, or has garbage behind its end, gives what can be decompressed; `Stream.cut`
then says what is wrong. Nothing but `TraceError` comes out.
"""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from overlap.errors import TraceError

# Small enough for the rows of a block to stay in the caches while they are taken apart.
BLOCK_BYTES = 1 << 19
GZIP = b"\x1f\x8b"
_HEAD_BYTES = 1 << 16


class Stream:
    """The decompressed content of one file.

    Args:
        path: the file, plain or gzip (told by content).
        block_bytes: about how much `blocks` gives at a time.
        span: (begin, end) of the bytes to read, for a part of a plain file; all of it where None.
    """

    def __init__(self, path: Path, block_bytes: int = BLOCK_BYTES, span: tuple[int, int] | None = None) -> None:
        self.path = path
        self.block_bytes = block_bytes
        self.span = span
        self.cut = ""
        self.read_bytes = 0
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                # A pipe that nobody writes to would be waited for without end, and a trace is read more than once.
                raise TraceError(f"cannot read {path}: not a regular file", "save the trace to a file")
            self.file_bytes = found.st_size
            with path.open("rb") as file:
                self.zipped = file.read(2) == GZIP
        except OSError as error:
            hint = "give a trace file or a folder of them"
            raise TraceError(f"cannot read {path}: {error.strerror}", hint) from error

    def blocks(self) -> Iterator[bytes]:
        """The content from its beginning, in pieces of at most about `block_bytes`; none of them empty."""
        self.cut, self.read_bytes = "", 0
        for block in self._unzipped() if self.zipped else self._raw():
            self.read_bytes += len(block)
            yield block

    def head(self) -> bytes:
        """The first 64 KiB of the content, or all of it."""
        found = b""
        stream = Stream(self.path, _HEAD_BYTES)
        for block in stream.blocks():
            found += block
            if len(found) >= _HEAD_BYTES:
                break
        self.cut = stream.cut
        return found[:_HEAD_BYTES]

    def all(self) -> bytes:
        """The whole content, for formats whose files are small."""
        return b"".join(self.blocks())

    def _raw(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                begin, end = self.span or (0, 1 << 62)
                file.seek(begin)
                while block := file.read(min(self.block_bytes, end - file.tell())):
                    yield block
        except OSError as error:
            raise TraceError(f"cannot read {self.path}: {error.strerror}") from error

    def _unzipped(self) -> Iterator[bytes]:
        """Members one after the other; `max_length` keeps a bomb from filling the memory."""
        member = zlib.decompressobj(wbits=31)
        begun = False
        for raw in self._raw():
            while raw:
                if member.eof:
                    if not raw.startswith(GZIP[:1]):
                        self.cut = "bytes behind the end of the gzip data were left alone"
                        return
                    member, begun = zlib.decompressobj(wbits=31), False
                begun = True
                try:
                    block = member.decompress(raw, self.block_bytes)
                except zlib.error as error:
                    self.cut = f"the gzip data is damaged behind {self.read_bytes:,} bytes of content ({error})"
                    return
                raw = member.unconsumed_tail or member.unused_data
                if block:
                    yield block
        if begun and not member.eof:
            if rest := member.flush():
                yield rest
            self.cut = f"the gzip data ends too early, behind {self.read_bytes:,} bytes of content"

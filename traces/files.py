"""How a Chrome trace is put into a file."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from overlap.files import write_atomic_blocks

_JOIN_ROWS = 1 << 14


def write_trace(path: Path, head: dict[str, Any], rows: Iterable[pl.Series | list[str]]) -> Path:
    """Write a Chrome trace, compressed with gzip where the name ends in `.gz`.

    Args:
        path: the file.
        head: keys beside `traceEvents`, which goes last: the TensorBoard plug-in cuts the file at its last `]` to
            append counters.
        rows: rows as JSON text, in any number of lists.

    Raises:
        RunDirError: where the file cannot be written.
    """
    blocks = _blocks(head, rows)
    return write_atomic_blocks(path, _zipped(blocks) if path.name.endswith(".gz") else blocks)


def _blocks(head: dict[str, Any], rows: Iterable[pl.Series | list[str]]) -> Iterator[bytes]:
    yield msgspec.json.encode(head).removesuffix(b"}") + (b"," if head else b"") + b'"traceEvents":[\n'
    first = True
    for some in rows:
        for start in range(0, len(some), _JOIN_ROWS):
            part = some[start : start + _JOIN_ROWS]
            text = part.str.join(",\n").item() if isinstance(part, pl.Series) else ",\n".join(part)
            yield (b"" if first else b",\n") + text.encode()
            first = False
    yield b"\n]}\n"


def _zipped(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """One gzip member without a time stamp, so that equal traces give equal files."""
    packer = zlib.compressobj(level=1, wbits=31)  # rows repeat so much that more effort gains little
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()

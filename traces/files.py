"""How a Chrome trace is put into a file."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import msgspec

from overlap.files import write_atomic


def write_trace(path: Path, document: dict[str, Any]) -> Path:
    """Write a Chrome trace, compressed with gzip where the name ends in `.gz`.

    `traceEvents` goes last: the TensorBoard plug-in cuts the file at its last `]` to append counters.
    """
    events = document["traceEvents"]
    head = {key: value for key, value in document.items() if key != "traceEvents"}
    text = msgspec.json.encode({**head, "traceEvents": events})
    # mtime 0: equal traces give equal files.
    return write_atomic(path, gzip.compress(text, 6, mtime=0) if path.name.endswith(".gz") else text)

"""`.hltv`, the archive of the Gaudi profiler (ZIP or tar.gz) → a trace of what can be read without the vendor's parser.

Terms
    member: a file inside the archive. Read are the analysed nodes (`views/trace_analyzer.json`), the compiled graphs
        (`prof-data/post-graph/*.json`), the host's calls (`prof-data/host/host_trace.json`) and the clock calibration
        (`prof-data/profile_state.json`).

Contract: nothing is written to disk, so a member's path can do no harm; at most `LIMIT_BYTES` are decompressed. A
broken member costs a warning, the rest is used. Raw recordings (`*.bin`) need the vendor's parser and are left alone.
Nodes are those of the analysed table, completed from the graphs with shapes (slowest dimension first) and types;
without the table they are the graphs' nodes, which have no times.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, cast

import polars as pl

from overlap.errors import TraceError
from overlap.traces.readers import graphs
from overlap.traces.readers.nodes import read_nodes_json
from overlap.traces.readers.tef import Places, host_rows
from overlap.traces.schema import EVENTS, HOST, empty
from overlap.traces.trace import About, Tally, Trace

LIMIT_BYTES = 4 << 30
ZIP, GZIP = b"PK\x03\x04", b"\x1f\x8b"
_NODES, _HOST, _STATE = "views/trace_analyzer.json", "prof-data/host/host_trace.json", "prof-data/profile_state.json"
_GRAPH = re.compile(r"(^|/)prof-data/post-graph/[^/]+\.json$")
_BROKEN = (
    *(OSError, EOFError, ValueError, KeyError, RuntimeError),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, RecursionError),
)


@dataclass
class Members:
    """What was taken out of an archive: members by name, and size of the raw recordings that were not."""

    data: dict[str, bytes] = field(default_factory=dict)
    raw_bytes: int = 0
    raw: int = 0


def read_hltv(data: bytes, source: str, tally: Tally, limit_bytes: int = LIMIT_BYTES) -> Trace:
    """Nodes, host calls and clock calibration of one archive.

    Raises:
        TraceError: where it is no archive, or nothing in it can be read.
    """
    members = _members(data, source, tally, limit_bytes)
    if members.raw:
        tally.warn(
            f"{members.raw} raw recordings ({members.raw_bytes:,} bytes) were left alone: "
            "only the vendor's parser reads them; write a CSV with --invoc csv"
        )
    analysed = _analysed(members, source, tally)
    found, host = _graph_nodes(members, tally), _host(members, tally)
    nodes = graphs.completed(analysed.nodes, found) if analysed else found
    if analysed is None and nodes.is_empty() and host.is_empty():
        hint = "it should have views/trace_analyzer.json; profile with --trace-analyzer on --invoc hltv"
        raise TraceError(f"{source} holds no nodes, graphs or host calls that can be read", hint)
    if analysed is None and not nodes.is_empty():
        tally.warn(f"{nodes.height} nodes of graphs, but no analysed nodes: there is no timeline of the device")
    about = About(
        source=source,
        format="gaudi hltv",
        rows=(analysed.about.rows if analysed else nodes.height) + host.height,
        extra=_calibration(members, tally),
    )
    return Trace(analysed.events if analysed else empty(EVENTS), about, host, nodes=nodes)


def _members(data: bytes, source: str, tally: Tally, limit_bytes: int) -> Members:
    if data.startswith(ZIP):
        walk = _zip_members(data, tally, limit_bytes)
    elif data.startswith(GZIP):
        walk = _tar_members(data, limit_bytes)
    else:
        raise TraceError(f"{source} is neither a ZIP nor a tar.gz archive", "check that it was copied whole")
    found = Members()
    try:
        for name, size, content in walk:
            if content is None:
                found.raw, found.raw_bytes = found.raw + 1, found.raw_bytes + size
            else:
                found.data[name] = content
    except _TooLargeError:
        tally.warn(f"the archive is larger than {limit_bytes:,} bytes when decompressed: the rest of it was not read")
    except _BROKEN as error:
        if not found.data and not found.raw:
            raise TraceError(f"{source} is a broken archive: {error}", "check that it was copied whole") from error
        tally.warn(f"the archive breaks off after {len(found.data)} members: {error}")
    return found


class _TooLargeError(Exception):
    """More bytes than an honest archive has."""


def _wanted(name: str) -> bool:
    return any(_is(name, path) for path in (_NODES, _HOST, _STATE)) or bool(_GRAPH.search(name))


def _is(name: str, path: str) -> bool:
    return name == path or name.endswith(f"/{path}")


Found = Iterator[tuple[str, int, bytes | None]]


def _zip_members(data: bytes, tally: Tally, limit_bytes: int) -> Found:
    """Name, size and content of what is wanted; no content for raw recordings."""
    left = limit_bytes
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".bin"):
                yield info.filename, info.file_size, None
            elif _wanted(info.filename):
                try:
                    with archive.open(info) as file:
                        content = file.read(left + 1)
                except _BROKEN as error:
                    tally.warn(f"1 member cannot be read: {info.filename}: {error}")
                    continue
                left -= len(content)
                if left < 0:
                    raise _TooLargeError
                yield info.filename, info.file_size, content


def _tar_members(data: bytes, limit_bytes: int) -> Found:
    with tarfile.open(fileobj=cast("IO[bytes]", _Inflated(data, limit_bytes)), mode="r|") as archive:
        for info in archive:
            if info.isfile() and info.name.endswith(".bin"):
                yield info.name, info.size, None
            elif info.isfile() and _wanted(info.name):
                file = archive.extractfile(info)
                if file is not None:
                    yield info.name, info.size, file.read()


class _Inflated:
    """A gzip stream that gives up when it has grown too large; a tar is read through, whatever is skipped."""

    def __init__(self, data: bytes, limit_bytes: int) -> None:
        self.file = gzip.GzipFile(fileobj=io.BytesIO(data))
        self.left = limit_bytes

    def read(self, size: int) -> bytes:
        """The next bytes."""
        content = self.file.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise _TooLargeError
        return content


def _json(name: str, content: bytes, tally: Tally) -> Any:
    """What a member holds; None, and a warning, where it is no JSON."""
    try:
        return json.loads(content.decode("utf-8-sig", "replace"), strict=False)
    except (ValueError, RecursionError) as error:
        tally.warn(f"1 member cannot be read: {name}: {error}")
        return None


def _first(members: Members, path: str) -> tuple[str, bytes] | None:
    return next(((name, content) for name, content in members.data.items() if _is(name, path)), None)


def _analysed(members: Members, source: str, tally: Tally) -> Trace | None:
    found = _first(members, _NODES)
    if found is None:
        return None
    try:
        return read_nodes_json(found[1], f"{source}:{found[0]}", tally)
    except TraceError as error:
        tally.warn(f"1 member cannot be read: {error.message}")
        return None


def _graph_nodes(members: Members, tally: Tally) -> pl.DataFrame:
    frames = []
    for name, content in sorted(members.data.items()):
        if _GRAPH.search(name) and (document := _json(name, content, tally)) is not None:
            frames.append(graphs.graph_nodes(document, name, tally))
    return pl.concat(frames) if frames else empty(graphs.GRAPH_NODES)


def _host(members: Members, tally: Tally) -> pl.DataFrame:
    """Calls of the host; every row of this member is the host's."""
    found = _first(members, _HOST)
    document = _json(*found, tally) if found else None
    rows = document.get("traceEvents") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        return empty(HOST)
    usable = [row for row in rows if isinstance(row, dict) and row.get("ph") in ("B", "E", "X")]
    named = Places(row for row in rows if isinstance(row, dict))
    return host_rows(usable, named, tally)


def _calibration(members: Members, tally: Tally) -> dict[str, Any]:
    """Pairs of device and host times, as they are in the file."""
    found = _first(members, _STATE)
    state = _json(*found, tally) if found else None
    if not isinstance(state, dict):
        return {}
    wanted = {"host_device_time_diff": "calibration", "Module id": "module_id"}
    return {ours: state[theirs] for theirs, ours in wanted.items() if theirs in state}

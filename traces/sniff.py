"""What a file is, told by its content; names and suffixes say nothing."""

from __future__ import annotations

from overlap.errors import TraceError

KINETO, OWN, NODES_JSON, HW_CSV, NODES_CSV, HLTV, PARQUET = (
    *("kineto", "overlap", "analysed nodes json", "gaudi hw csv", "analysed nodes csv", "hltv", "event table"),
)
_KINDS = "a Kineto or Chrome trace, a Gaudi profiler CSV or JSON, an .hltv archive, or an event table in Parquet"


def sniff(head: bytes, name: str) -> str:
    """Format of a file from its first bytes, decompressed where it is gzip.

    Raises:
        TraceError: the file is empty, or nothing that can be read.
    """
    if head.startswith(b"PK\x03\x04") or head[257:262] == b"ustar":
        return HLTV
    if head.startswith(b"PAR1"):
        return PARQUET
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise TraceError(f"{name} is empty", f"give {_KINDS}")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TraceError(f"{name} is UTF-16 text", "save it as UTF-8")
    if text[:1] in b"{[":
        return _json(text)
    first = text.split(b"\n", 1)[0]
    if b"Timestamp[usec]" in first and b"Engine" in first:
        return HW_CSV
    if b"Node Name" in first and b"Op Type" in first:
        return NODES_CSV
    raise TraceError(f"{name} is not a trace: it begins with {first[:40]!r}", f"give {_KINDS}")


def _json(text: bytes) -> str:
    if b'"overlap.trace/' in text:
        return OWN
    if b'"analyzer_metadata"' in text:
        return NODES_JSON
    return KINETO

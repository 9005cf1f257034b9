"""Chrome traces of PyTorch's profiler (Kineto) → tables: CUDA, ROCm, MTIA, HPU in both flavours, and the old schema."""

from __future__ import annotations

import re

import polars as pl

from overlap.traces.engines import EngineRules
from overlap.traces.readers.assemble import assemble
from overlap.traces.readers.decode import PlainDecoding
from overlap.traces.readers.gathered import pair_halves
from overlap.traces.readers.parts import gather, gather_in_parts
from overlap.traces.readers.rows import RowReader, envelope_of
from overlap.traces.readers.stream import Stream
from overlap.traces.readers.tef import read_tef
from overlap.traces.trace import Tally, Trace

_TEF_PROCESS = re.compile(r"\*\s*\w+\s*\(accel\s*\d+\)", re.I)


def read_kineto(stream: Stream, rules: EngineRules, tally: Tally) -> Trace:
    """The trace in `stream`; a large plain file is read by several processes.

    Raises:
        TraceError: there are no rows in it.
    """
    part = gather_in_parts(stream) or gather(stream)
    found = part.found
    if not found.device.rows and any(map(_TEF_PROCESS.search, found.processes.values())):
        return _tef(stream, tally)
    tally.add(found.tally)
    found.tally = tally
    pair_halves(found)
    rows = found.rows
    envelope = envelope_of(part.head, part.tail)
    again = envelope.get("traceEvents")  # the first list is not in the envelope
    tally.drop("row of a second list of rows", len(again) if isinstance(again, list) else 0)
    trace = assemble(found, envelope, stream.path.name, rules, tally)
    warn_of_cut(part.closed, part.unread_bytes, stream, tally, rows, [trace.events, trace.host])
    return trace


def _tef(stream: Stream, tally: Tally) -> Trace:
    """Chrome JSON of the Gaudi profiler itself, which names its processes after types of engines."""
    reader = RowReader(stream, tally, PlainDecoding())
    rows = [row for batch in reader for row in batch.rows]
    trace = read_tef(rows, envelope_of(reader.head, reader.tail), stream.path.name, tally)
    warn_of_cut(reader.closed, reader.unread_bytes, stream, tally, len(rows), [trace.events, trace.host])
    return trace


def warn_of_cut(
    closed: bool, unread_bytes: int, stream: Stream, tally: Tally, rows: int, frames: list[pl.DataFrame]
) -> None:
    """Say how much is missing from a file that is not whole."""
    if stream.cut:
        tally.warn(f"the file is damaged: {stream.cut}")
    if closed:
        return
    ends = [frame["end_ns"].max() for frame in frames if frame.height]
    last = f", the last of which ends at {max(ends) / 1000:,.3f} us" if ends else ""  # type: ignore[operator, type-var]
    torn = f"; {unread_bytes:,} bytes of a torn row behind them were left out" if unread_bytes else ""
    tally.warn(f"the list of rows is not closed: {rows:,} rows are there{last}, later ones are missing{torn}")

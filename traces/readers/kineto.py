"""Chrome traces of PyTorch's profiler (Kineto) → tables: CUDA, ROCm, MTIA, HPU in both flavours, and the old schema."""

from __future__ import annotations

from overlap.traces.engines import EngineRules
from overlap.traces.readers.assemble import assemble
from overlap.traces.readers.gathered import pair_halves
from overlap.traces.readers.parts import Part, gather, gather_in_parts
from overlap.traces.readers.rows import envelope_of
from overlap.traces.readers.stream import Stream
from overlap.traces.trace import Tally, Trace


def read_kineto(stream: Stream, rules: EngineRules, tally: Tally) -> Trace:
    """The trace in `stream`; a large plain file is read by several processes.

    Raises:
        TraceError: there are no rows in it.
    """
    part = gather_in_parts(stream) or gather(stream)
    found = part.found
    tally.add(found.tally)
    found.tally = tally
    pair_halves(found)
    trace = assemble(found, envelope_of(part.head, part.tail), stream.path.name, rules, tally)
    _warn(part, stream, tally, trace)
    return trace


def _warn(part: Part, stream: Stream, tally: Tally, trace: Trace) -> None:
    """Say how much is missing from a file that is not whole."""
    if stream.cut:
        tally.warn(stream.cut)
    if part.unread_bytes or not part.closed:
        ends = [frame["end_ns"].max() for frame in (trace.events, trace.host) if frame.height]
        last = f"; the last row that is there ends at {max(ends) / 1000:,.3f} us" if ends else ""  # type: ignore[type-var, operator]
        torn = f", {part.unread_bytes:,} bytes of a torn row were left out" if part.unread_bytes else ""
        tally.warn(f"the list of rows is not closed after {part.found.rows:,} rows{torn}{last}; later rows are missing")

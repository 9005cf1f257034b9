"""Traces that `overlap` wrote itself (`overlap.traces.chrome`): the event table back, exact to the ns."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgspec
import polars as pl

from overlap.errors import TraceError
from overlap.traces.readers.columns import sound, times_of
from overlap.traces.readers.decode import Decoding, Row
from overlap.traces.readers.kineto import warn_of_cut
from overlap.traces.readers.rows import RowReader, envelope_of
from overlap.traces.readers.stream import Stream
from overlap.traces.schema import EVENTS, SCHEMA_VERSION, empty, filled
from overlap.traces.table import known_engines
from overlap.traces.trace import About, Tally, Trace

ARGS = tuple(name for name in EVENTS if name not in ("name", "start_ns", "end_ns"))
OwnArgs = msgspec.defstruct(
    "OwnArgs",
    [(name, (str if EVENTS[name] == pl.String else int) | None, None) for name in ARGS],
    frozen=True,
    gc=False,
)
NO_ARGS = OwnArgs()


class OwnRow(Row, gc=False):
    """A row with the columns of the event table as args."""

    args: OwnArgs | None = NO_ARGS  # type: ignore[valid-type]


def read_own(stream: Stream, tally: Tally) -> Trace:
    """The trace in `stream`.

    Raises:
        TraceError: a version that this one does not know.
    """
    reader = RowReader(stream, tally, Decoding(OwnRow, OwnArgs, NO_ARGS))
    frames, count = [], 0
    for batch in reader:
        count += len(batch.rows)
        batch = batch.with_args(NO_ARGS)
        rows = [row for row in batch.rows if row.ph == "X"]
        times = times_of(rows, batch)
        if times is None:
            batch = batch.made_exact()
            rows = [row for row in batch.rows if row.ph == "X"]
            times = times_of(rows, batch)
        assert times is not None, "exact times are always there"
        rows, starts, ends = sound(rows, *times, tally, "device row")
        columns: dict[str, Any] = {name: list(map(attrgetter(f"args.{name}"), rows)) for name in ARGS}
        columns |= {"name": [row.name for row in rows], "start_ns": starts, "end_ns": ends}
        frames.append(filled(pl.DataFrame(columns, schema_overrides=EVENTS)))
    envelope = envelope_of(reader.head, reader.tail)
    table = known_engines(pl.concat(frames) if frames else empty(), tally)
    events, about = _placed(table, envelope, stream.path.name, count)
    warn_of_cut(reader.closed, reader.unread_bytes, stream, tally, about.rows, [events])
    return Trace(events, about)


def _placed(events: pl.DataFrame, envelope: dict[str, Any], source: str, rows: int) -> tuple[pl.DataFrame, About]:
    """Rows at the times of their own clock, and what the file says of itself."""
    other = envelope.get("otherData")
    other = other if isinstance(other, dict) else {}
    version = str(other.get("schema", "")).rpartition("/")[2]
    if version.isdecimal() and int(version) > SCHEMA_VERSION:
        raise TraceError(f"{source} was written by a newer overlap (schema {version})", "update overlap")
    origin = other.get("origin_ns")
    origin = origin if isinstance(origin, int) and abs(origin) < 1 << 62 else 0
    shift = pl.lit(origin, pl.Int64)
    tail = pl.when(pl.col("tail_ns") >= 0).then(pl.col("tail_ns") + shift).otherwise(-1)
    events = events.with_columns(pl.col("start_ns") + shift, pl.col("end_ns") + shift, tail.alias("tail_ns"))
    stated = str(other.get("evidence", "measured"))
    evidence = stated if stated in ("measured", "simulated", "synthetic") else "measured"
    device = str(other.get("device", ""))
    known = ("schema", "device", "evidence", "origin_ns")
    extra = {key: value for key, value in other.items() if key not in known and isinstance(value, str | int)}
    devices = {int(index): device for index in sorted(events["device"].unique().to_list())} if device else {}
    return events, About(source, "overlap", evidence, devices, rows=rows, extra=extra)

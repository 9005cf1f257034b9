"""The event table as a Parquet file of its own: with what is known of it besides its rows, and its iterations.

The metadata key `overlap` holds JSON: `evidence`, `devices`, `origin_ns`, `format`, and `steps` (host rows that name
iterations). A table without it was written by somebody else, and its evidence is `unknown`.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import polars as pl

from overlap.errors import TraceError
from overlap.traces.schema import HOST, filled
from overlap.traces.sweep import ENGINES
from overlap.traces.trace import About, Tally, Trace

KEY = "overlap"
FORMAT = "event table"
_STEP = r"^ProfilerStep#\d+$"
NEEDED = ("engine", "start_ns", "end_ns")


def table_bytes(trace: Trace) -> bytes:
    """The file."""
    about = trace.about
    steps = trace.host.filter(pl.col("name").str.contains(_STEP))
    known = {
        "evidence": about.evidence,
        "devices": {str(index): name for index, name in about.devices.items()},
        "origin_ns": about.origin_ns,
        "steps": steps.select("name", "kind", "start_ns", "end_ns").to_dicts(),
    }
    buffer = io.BytesIO()
    trace.events.write_parquet(buffer, compression="lz4", metadata={KEY: json.dumps(known)})
    return buffer.getvalue()


def read_table(path: Path, tally: Tally) -> Trace:
    """The trace in such a file; what an older table lacks is unknown.

    Raises:
        TraceError: it is no Parquet, or no event table.
    """
    try:
        frame = pl.read_parquet(path)
        missing = [name for name in NEEDED if name not in frame.columns]
        if missing:
            raise TraceError(f"{path.name} is Parquet without the column {missing[0]!r}", "give an event table")
        known: dict[str, Any] = json.loads(pl.read_parquet_metadata(path).get(KEY, "{}"))
        steps = filled(pl.DataFrame(known.get("steps", [])), HOST)
        devices = {int(index): str(name) for index, name in known.get("devices", {}).items()}
        about = About(path.name, FORMAT, str(known.get("evidence", "unknown")), devices, int(known.get("origin_ns", 0)))
        events = known_engines(filled(frame), tally)
    except (pl.exceptions.PolarsError, OSError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise TraceError(f"{path.name} is no readable Parquet: {reason}", "is it whole?") from error
    return Trace(events, about, steps)


def known_engines(events: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """`events` with OTHER for engines that there are none of, and without rows that end before they start."""
    strange = ~pl.col("engine").is_in(ENGINES)
    count, negative = events.select(strange.sum().alias("a"), (pl.col("end_ns") < pl.col("start_ns")).sum()).row(0)
    if count:
        tally.warn(f"{count:,} rows name an engine that there is none of; they count as OTHER")
        events = events.with_columns(pl.when(strange).then(pl.lit("OTHER")).otherwise("engine").alias("engine"))
    if negative:
        tally.drop("device row of negative or unknown duration", negative)
        events = events.filter(pl.col("end_ns") >= pl.col("start_ns"))
    return events

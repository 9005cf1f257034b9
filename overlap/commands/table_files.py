"""The files of a table, made of those of its buckets: `tuned.yaml`, `trials.parquet`, `report.html`."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path

import polars as pl

from overlap.commands.table_job import TUNED
from overlap.commands.table_page import write_page
from overlap.commands.table_run import Table
from overlap.errors import RunDirError
from overlap.files import write_atomic
from overlap.serve.tuned import Tuned
from overlap.serve.tuned_file import load, save

BASELINE = "baseline"
COLUMNS = {
    "phase": pl.String,
    "batch": pl.Int64,
    "query": pl.Int64,
    "context": pl.Int64,
    "speedup": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "kept": pl.String,
}


def write_table(table: Table) -> None:
    """Write all of them.

    Raises:
        RunDirError: a file cannot be written, or one of a bucket cannot be read.
    """
    run_dir = table.shared.run_dir
    write_atomic(run_dir / "trials.parquet", _trials(table))
    write_page(table, bucket_frame(table), run_dir / "report.html")
    # Last: a tuned config is there only if everything that explains it is.
    save(tuned_of(table), run_dir / TUNED)


def tuned_of(table: Table) -> Tuned:
    """The tuned config of all buckets that could be swept."""
    first = next(row.bucket for row in table.rows if row.entry is not None)
    return load(table.shared.folder(first) / TUNED).with_entries(table.entries)


def bucket_frame(table: Table) -> pl.DataFrame:
    """One row per entry: the bucket, its speed-up with the interval, and what was kept (columns: `COLUMNS`)."""
    rows = [
        {
            **asdict(entry.bucket),
            "speedup": 1.0 if entry.pass_through else entry.speedup.median,
            "low": 1.0 if entry.pass_through else entry.speedup.low,
            "high": 1.0 if entry.pass_through else entry.speedup.high,
            "kept": BASELINE if entry.pass_through else f"{entry.split} | {entry.order}",
        }
        for entry in table.entries
    ]
    return pl.DataFrame(rows, schema=COLUMNS)


def _trials(table: Table) -> bytes:
    """Those of all buckets, with the bucket in the first column."""
    frames = []
    for row in table.rows:
        path = table.shared.folder(row.bucket) / "trials.parquet"
        if row.entry is not None:
            frames.append(_read(path).select(pl.lit(str(row.bucket)).alias("bucket"), pl.all()))
    buffer = io.BytesIO()
    pl.concat(frames).write_parquet(buffer)
    return buffer.getvalue()


def _read(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        hint = f"remove the folder {path.parent.name} and run again: that bucket alone is swept anew"
        raise RunDirError(f"cannot read {path}: {error}", hint) from error

"""Which files of a folder are traces: one per rank or run, each once."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from overlap.errors import TraceError
from overlap.traces.readers.stream import Stream
from overlap.traces.sniff import KINETO, PARQUET, sniff
from overlap.traces.table import NEEDED

SUFFIXES = (".json", ".json.gz", ".csv", ".csv.gz", ".hltv", ".zip", ".tar.gz", ".parquet")
_NODES = "_analyzed_nodes"


def trace_files(path: Path) -> list[Path]:
    """`path` itself if it is a file; the traces in it, in natural order, if it is a folder.

    A run of `overlap` keeps its traces in `traces/`, so that is looked into where the folder itself has none. Of files
    that hold the same (a raw profile and its table of analysed nodes, a trace and its event table), the raw one counts.

    Raises:
        TraceError: there is no such file, or no trace in the folder.
    """
    if not path.is_dir():
        if not path.exists():
            raise TraceError(f"there is no {path}", "trace= takes a trace file or a folder of them")
        return [path]
    for folder in (path, path / "traces"):
        if folder.is_dir() and (found := _in_folder(folder)):
            return found
    raise TraceError(f"there is no trace in {path}", f"looked for {', '.join(SUFFIXES)} that hold one")


def rank_name(path: Path) -> str:
    """Name of a file without the suffixes of its format."""
    name = path.name
    for suffix in (".gz", ".json", ".perfetto", ".trace", ".pt", ".csv", ".hltv", ".zip", ".tar", ".parquet"):
        name = name.removesuffix(suffix)
    return name or path.name


def _in_folder(folder: Path) -> list[Path]:
    files = sorted((one for one in folder.iterdir() if one.is_file() and not one.name.startswith(".")), key=_natural)
    traces = [one for one in files if one.name.endswith(SUFFIXES) and _is_trace(one)]
    # What `overlap analyze` writes of a trace comes after the trace itself, its event table first, for it has more.
    chosen: dict[str, Path] = {}
    for one in sorted(traces, key=lambda one: (".perfetto." in one.name, one.suffix == ".parquet")):
        chosen.setdefault(rank_name(one), one)
    return [
        one
        for one in traces
        if chosen[rank_name(one)] == one
        and not (rank_name(one).endswith(_NODES) and rank_name(one).removesuffix(_NODES) in chosen)
    ]


def _is_trace(path: Path) -> bool:
    try:
        head = Stream(path).head()
        kind = sniff(head, path.name)
        if kind == PARQUET:
            return set(NEEDED) <= set(pl.read_parquet_schema(path))
    except (TraceError, OSError, pl.exceptions.PolarsError):
        return False
    return kind != KINETO or b'"traceEvents"' in head or head.lstrip().startswith(b"[")


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key under which rank 10 comes after rank 9."""
    text, words = "", []
    for letter in path.name:
        if text and letter.isdecimal() != text[-1].isdecimal():
            words.append(text)
            text = ""
        text += letter
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in [*words, text]]

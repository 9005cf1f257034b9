"""Any trace file → `Trace`: told by content, read once, kept as Parquet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from overlap.errors import TraceError
from overlap.traces import sniff
from overlap.traces.cache import Cache, state_of
from overlap.traces.engines import EngineRules, engine_rules
from overlap.traces.names import name_rules, with_names
from overlap.traces.readers.hltv import read_hltv
from overlap.traces.readers.hw_csv import read_hw_csv
from overlap.traces.readers.kineto import read_kineto
from overlap.traces.readers.nodes import read_nodes_csv, read_nodes_json
from overlap.traces.readers.own import read_own
from overlap.traces.readers.stream import Stream
from overlap.traces.table import read_table
from overlap.traces.trace import Tally, Trace


def read_trace(path: Path, rules: EngineRules | None = None, cache: Path | None = None) -> Trace:
    """The trace in `path`.

    Args:
        path: a file of any format in `overlap.traces.sniff`.
        rules: which kernel keeps which engine busy; the project's own rules where None.
        cache: folder of traces read before (`overlap.traces.cache`); None reads the file.

    Raises:
        TraceError: the file cannot be read, or holds no trace.
    """
    rules = rules or engine_rules()
    names = name_rules()
    stream = Stream(path)
    kept = Cache(cache, rules.text + names.text) if cache is not None else None
    found = kept.get(path) if kept is not None else None
    if found is not None:
        return replace(found, about=replace(found.about, source=path.name))
    tally, seen = Tally(), state_of(path)
    try:
        trace = _read(stream, rules, tally)
    except TraceError as error:
        if not stream.cut:
            raise
        raise TraceError(f"{error.message}; {stream.cut}", "check that it was copied whole") from error
    about = replace(trace.about, dropped=dict(tally.dropped), warnings=(*trace.about.warnings, *tally.warnings))
    trace = replace(trace, events=with_names(trace.events, names), about=about)
    if kept is not None:
        kept.put(path, trace, seen)
    return trace


def _read(stream: Stream, rules: EngineRules, tally: Tally) -> Trace:
    name = stream.path.name
    kind = sniff.sniff(stream.head(), name)
    if kind == sniff.KINETO:
        return read_kineto(stream, rules, tally)
    if kind == sniff.OWN:
        return read_own(stream, tally)
    if kind == sniff.PARQUET:
        return read_table(stream.path, tally)
    if kind == sniff.HLTV:
        return read_hltv(_content(stream.path), name, tally)
    reader = {sniff.HW_CSV: read_hw_csv, sniff.NODES_CSV: read_nodes_csv, sniff.NODES_JSON: read_nodes_json}[kind]
    trace = reader(stream.all(), name, tally)
    if stream.cut:
        tally.warn(f"the file is damaged: {stream.cut}")
    return trace


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TraceError(f"cannot read {path}: {error.strerror}") from error

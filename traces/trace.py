"""What a reader gives back: the tables of one trace, and an account of everything that is not in them.

Terms
    dropped: rows of the source that no table holds although they look like device work, counted by reason
        (`end without begin`, `zero length`, …). Nothing is left out without a count.
    evidence: `measured` (a profiler on a device), `simulated` (a named model) or `synthetic` (made up for a test).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from overlap.traces.schema import COUNTERS, HOST, empty


@dataclass(frozen=True)
class About:
    """What is known of a trace besides its rows; plain values only, so that it survives as JSON.

    Args:
        source: file name.
        format: the reader's name, such as `kineto` or `gaudi hw csv`.
        evidence: see above.
        devices: name by index of device (`{0: "GAUDI3"}`).
        origin_ns: what the trace's time 0 is on the clock of its source; 0 where times are as in the source.
        rows: rows of the source that were looked at.
        dropped: see above.
        warnings: sentences for the user, each with a number.
        extra: what only one format has, such as clock calibration, under names of its own.
    """

    source: str = ""
    format: str = ""
    evidence: str = "measured"
    devices: dict[int, str] = field(default_factory=dict)
    origin_ns: int = 0
    rows: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trace:
    """Tables of one file: device rows (`EVENTS`), host rows (`HOST`), counters (`COUNTERS`).

    `nodes` is a table of graph nodes with shapes where the source has one (analysed nodes, `.hltv`); its columns are
    those of `overlap.traces.readers.nodes`.
    """

    events: pl.DataFrame
    about: About
    host: pl.DataFrame = field(default_factory=lambda: empty(HOST))
    counters: pl.DataFrame = field(default_factory=lambda: empty(COUNTERS))
    nodes: pl.DataFrame = field(default_factory=pl.DataFrame)


class Tally:
    """Counts of dropped rows by reason, and warnings, gathered while a file is read."""

    def __init__(self) -> None:
        self.dropped: dict[str, int] = {}
        self.warnings: list[str] = []

    def drop(self, reason: str, count: int = 1) -> None:
        """Count `count` rows as dropped for `reason`."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + int(count)

    def warn(self, sentence: str) -> None:
        """Keep a sentence for the user, once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def add(self, other: Tally) -> None:
        """Take over what another one has gathered."""
        for reason, count in other.dropped.items():
            self.drop(reason, count)
        for sentence in other.warnings:
            self.warn(sentence)

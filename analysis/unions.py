"""When each engine of a device is busy: the union of its lanes, made once and used by everything that asks."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from overlap.analysis.intervals import Islands, clipped, islands, joined
from overlap.traces.codes import coded
from overlap.traces.sweep import ENGINES, Window, engines_of

Unions = Mapping[str, Islands]  # by engine, in the order of ENGINES; engines without rows are missing


def engine_unions(events: pl.DataFrame, window: Window) -> Unions:
    """Disjoint stretches of busy time of every engine that has rows, clipped to the window.

    Raises:
        ValueError: for an unknown engine.
    """
    engines_of(events)  # refuses engines that it does not know
    starts, ends, lasting = clipped(events, window)
    codes, names = coded(events, ["engine"])
    found = islands(starts[lasting], ends[lasting], codes[lasting])
    by_engine = {engine: found.of(code) for code, engine in enumerate(names["engine"])}
    return {engine: by_engine[engine] for engine in ENGINES if engine in by_engine}


def union_of(unions: Unions, *engines: str) -> Islands:
    """When any of `engines` is busy; of all engines where none is named."""
    chosen = [unions[engine] for engine in engines or unions if engine in unions]
    return joined(*chosen) if chosen else NEVER


NEVER = islands(*(pl.Series([], dtype=pl.Int64).to_numpy() for _ in range(2)))

"""Narrowing on a modelled device: orders are searched, the best one further, and nothing twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from overlap.devices.config import DeviceConfig
from overlap.devices.gaudi.model import GaudiDevice
from overlap.search.bench import Bench
from overlap.search.config import SearchConfig
from overlap.search.journal import Journal
from overlap.search.narrow import Narrowed, narrow
from overlap.search.screen import Screened, screen
from overlap.split import Split
from tests.fakes import small_workload
from tests.sweeps import MemoryJournal, Silent

SEARCH = SearchConfig(search_splits=2, order_trials=40, order_refinements=20)
DEEP = replace(SEARCH, order_deepening=200)
SPLITS = [Split(chunks=chunks, masked_blocks="skip") for chunks in (2, 4)]


def narrowed(journal: Journal, search: SearchConfig) -> Narrowed:
    """Two splits, searched."""
    workload = small_workload()
    bench = Bench(workload, GaudiDevice(DeviceConfig(kind="gaudi2")), {}, 0)
    screened = screen(bench, journal, SPLITS, ["program", "list"], 1, Silent())
    return narrow(bench, journal, screened, {}, search, Silent())


def searched(found: Narrowed) -> dict[str, Screened]:
    return {str(one.candidate.split): one for one in found.candidates if one.candidate.order == "searched"}


@pytest.fixture(scope="module")
def shallow() -> dict[str, Screened]:
    """What comes out without deepening."""
    return searched(narrowed(MemoryJournal(), SEARCH))


def test_only_the_best_order_is_searched_further_and_never_gets_worse(shallow: dict[str, Screened]) -> None:
    journal = MemoryJournal()
    deep = searched(narrowed(journal, DEEP))
    best = min(shallow.values(), key=lambda one: one.predicted_ns)
    assert [record["split"] for record in journal.of_kind("order") if record["deepened"]] == [str(best.candidate.split)]
    for name, one in deep.items():
        before = shallow[name].predicted_ns
        assert one.predicted_ns <= before if one.candidate == best.candidate else one.predicted_ns == before


def test_the_order_that_is_kept_takes_the_time_that_is_told() -> None:
    journal = MemoryJournal()
    deep = searched(narrowed(journal, DEEP))
    bench = Bench(small_workload(), GaudiDevice(DeviceConfig(kind="gaudi2")), {}, 0)
    record = next(record for record in journal.of_kind("order") if record["deepened"])
    split = next(one.candidate.split for one in deep.values() if str(one.candidate.split) == record["split"])
    assert bench.device.predict_ns(bench.program(split), record["order"]) == deep[record["split"]].predicted_ns


def test_a_resumed_search_does_nothing_twice(tmp_path: Path) -> None:
    with Journal(tmp_path, {}) as journal:
        first = narrowed(journal, DEEP)
        count = len(journal.records)
    with Journal(tmp_path, {}) as journal:
        again = narrowed(journal, DEEP)
        assert len(journal.records) == count
    assert again.candidates == first.candidates

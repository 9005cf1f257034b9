"""Helpers for tests of the search: a journal in memory, silent progress, and small sweeps on the fake device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from overlap.devices.base import Gate
from overlap.search.candidate import Candidate
from overlap.search.check import Checked
from overlap.search.config import SearchConfig, SpaceConfig
from overlap.search.journal import Journal
from overlap.search.progress import Progress, Step
from overlap.search.sweep import SweepResult, run_sweep
from overlap.split import Split
from tests.fakes import FakeDevice, small_workload

# Two finalists at 95 % need 7 pairs each; 8 rounds leave one that a kill may cut in two.
SEARCH = SearchConfig(
    race_candidates=2,
    screen_repeats=1,
    race_rounds=3,
    finalists=2,
    final_rounds=8,
    attribution_rounds=2,
    orders=["program", "list"],
)
SPACE = SpaceConfig(chunks=[1, 2, 4])


class Silent(Progress):
    """Progress without output."""

    def __init__(self) -> None:
        pass

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Step]:
        """Steps that nobody sees."""
        yield lambda note: None

    def say(self, text: str) -> None:
        """Nothing."""


class MemoryJournal(Journal):
    """A journal without a file; `session` may be changed to play a resumed sweep."""

    def __init__(self) -> None:
        self.session = "first"
        self.records: list[dict[str, Any]] = []

    def append(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Keep one record."""
        self.records.append({"kind": kind, **fields})
        return self.records[-1]


class Untouchable(FakeDevice):
    """A device that fails the test when anything is measured on it."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise AssertionError("a finished sweep measures nothing")

    prepare = op_times = time_stack = _refuse


def split(chunks: int, **more: Any) -> Split:
    """A split of the small sweeps."""
    return Split(chunks=chunks, masked_blocks="skip", **more)


def candidate(chunks: int, order: str = "list") -> Candidate:
    """A candidate of the small sweeps."""
    return Candidate(split(chunks), order)


def checked(one: Candidate, failure: str = "") -> Checked:
    """A candidate that passed its checks, or failed them."""
    return Checked(one, {"hidden": 1e-3}, 1, {"memory": Gate(True, "")}, failure)


def sweep(run_dir: Path, device: FakeDevice, search: SearchConfig = SEARCH, space: SpaceConfig = SPACE) -> SweepResult:
    """A small sweep, to the end."""
    return run_sweep(small_workload(), device, space, search, run_dir, Silent())


def samples(records: Any, stage: str = "") -> list[tuple[str, int, str]]:
    """(stage, round, entrant) of every sample, in the order they were taken."""
    found = [(r["stage"], r["round"], r["entrant"]) for r in records if r["kind"] == "sample"]
    return [one for one in found if not stage or one[0] == stage]

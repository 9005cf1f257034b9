"""Races: candidates timed side by side in one process, in rounds.

Terms
    round: every entrant runs once, in an order drawn anew for each round from the seed.
    entrant: something with a name that gives one time in ns per call.
    ratio: baseline time over entrant time of the same round and session, so drift of the machine cancels.

The baseline is never dropped: if it fails nothing can be compared, and its error ends the race.
A round that a kill cut in two is completed on resume, but its halves are never paired with each other; another round is
added for it, so that kills cost no pairs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence

from overlap.errors import DeviceError
from overlap.search.candidate import BASELINE
from overlap.search.journal import Journal
from overlap.search.progress import Progress
from overlap.stats import Interval, median, median_interval

Entrant = Callable[[], int]
# The entrant that is what a serving stack would run; it is compared with but is no candidate.
STACK = "stack"


def race(
    journal: Journal,
    stage: str,
    entrants: Mapping[str, Entrant],
    rounds: int,
    seed: int,
    progress: Progress,
    keep: Callable[[str, int], bool] = lambda name, round_number: True,
) -> None:
    """Time all `entrants` for `rounds` rounds, writing every sample to the journal as it is taken.

    `keep(name, round)` is asked before each sample and may drop an entrant. One that fails is recorded and dropped.
    """
    failed = {r["entrant"] for r in journal.of_kind("failure")}
    done, wanted = 0, rounds
    while done < wanted:
        _rounds(journal, stage, entrants, range(done, wanted), seed, progress, keep, failed)
        done, wanted = wanted, rounds + _cut(journal, stage)


def _rounds(
    journal: Journal,
    stage: str,
    entrants: Mapping[str, Entrant],
    numbers: Sequence[int],
    seed: int,
    progress: Progress,
    keep: Callable[[str, int], bool],
    failed: set[str],
) -> None:
    """Take what is missing of the rounds `numbers`."""
    taken = {(r["round"], r["entrant"]) for r in journal.of_kind("sample") if r["stage"] == stage}
    open_rounds = [number for number in numbers if any((number, name) not in taken for name in entrants)]
    with progress.stage(stage, len(open_rounds)) as step:
        for number in open_rounds:
            names = list(entrants)
            random.Random(f"{seed} {stage} {number}").shuffle(names)
            for name in names:
                if (number, name) not in taken and name not in failed and keep(name, number):
                    _take(journal, stage, number, name, entrants[name], failed)
            step(best_so_far(journal, stage))


def _cut(journal: Journal, stage: str) -> int:
    """Rounds that a kill cut in two: their samples come from more than one session."""
    sessions: dict[int, set[str]] = {}
    for record in journal.of_kind("sample"):
        if record["stage"] == stage:
            sessions.setdefault(record["round"], set()).add(record["session"])
    return sum(len(found) > 1 for found in sessions.values())


def _take(journal: Journal, stage: str, number: int, name: str, entrant: Entrant, failed: set[str]) -> None:
    """One sample into the journal; an entrant that fails is out."""
    try:
        time_ns = entrant()
    except DeviceError as error:
        if name == BASELINE.key:
            raise
        journal.append("failure", stage=stage, entrant=name, session=journal.session, reason=str(error))
        failed.add(name)
        return
    journal.append("sample", stage=stage, round=number, entrant=name, session=journal.session, time_ns=time_ns)


def times_of(journal: Journal, stage: str, entrant: str) -> list[int]:
    """All samples of an entrant in a stage, in ns."""
    return [r["time_ns"] for r in journal.of_kind("sample") if r["stage"] == stage and r["entrant"] == entrant]


def failure_of(journal: Journal, stage: str, entrant: str) -> str:
    """Why an entrant was dropped in a stage; empty if it never failed there."""
    failures = (r for r in journal.of_kind("failure") if (r["stage"], r["entrant"]) == (stage, entrant))
    return next((str(r["reason"]) for r in failures), "")


def paired_ratios(journal: Journal, stage: str, over: str, under: str, before: float = math.inf) -> list[float]:
    """time(over) / time(under) of every round earlier than `before`; above 1 where `under` is faster."""
    by_round: dict[tuple[int, str], dict[str, int]] = {}
    for record in journal.of_kind("sample"):
        if record["stage"] == stage and record["entrant"] in (over, under) and record["round"] < before:
            by_round.setdefault((record["round"], record["session"]), {})[record["entrant"]] = record["time_ns"]
    return [pair[over] / pair[under] for pair in by_round.values() if over in pair and under in pair]


def speedup(
    journal: Journal, stage: str, baseline: str, entrant: str, confidence: float, before: float = math.inf
) -> Interval | None:
    """Interval of the paired speed-up over the baseline; None without a single pair."""
    ratios = paired_ratios(journal, stage, baseline, entrant, before)
    return median_interval(ratios, confidence) if ratios else None


def best_so_far(journal: Journal, stage: str) -> str:
    """A few words for the progress line: the entrant with the lowest median."""
    samples: dict[str, list[int]] = {}
    for record in journal.of_kind("sample"):
        if record["stage"] == stage and record["entrant"] != STACK:
            samples.setdefault(record["entrant"], []).append(record["time_ns"])
    if not samples:
        return ""
    name = min(samples, key=lambda one: median(samples[one]))
    return f"best so far {median(samples[name]) / 1e6:.4g} ms: {name}"


def hopeless(
    journal: Journal, stage: str, baseline: str, names: Sequence[str], confidence: float, before: float = math.inf
) -> set[str]:
    """Entrants whose speed-up lies wholly below that of the leader: they cannot win any more.

    Judged by the rounds earlier than `before` alone, so that a race that is gone through again drops the same ones.
    """
    found = {name: speedup(journal, stage, baseline, name, confidence, before) for name in names}
    intervals = {name: interval for name, interval in found.items() if interval is not None}
    if not intervals:
        return set()
    bar = max(interval.low for interval in intervals.values())
    return {name for name, interval in intervals.items() if interval.high < bar}

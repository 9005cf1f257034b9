"""Narrowing: from thousands of ranked splits to a few candidates that are worth running.

1. Where the device can tell the time of a program in an order (a model), the best of the ranking are asked for: that
   knows what a ranking by op times leaves out.
2. The recipes of the field are told apart from the rest, so that a result can be compared with the best of them.
3. For the best splits the order is searched, and for the best of these once more, if asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from overlap.errors import DeviceError, ProgramError
from overlap.search.bench import Bench
from overlap.search.candidate import BASELINE, Candidate
from overlap.search.config import SEARCHED, SearchConfig
from overlap.search.journal import Journal
from overlap.search.orders.evaluate import finish_ns
from overlap.search.orders.improve import Clock
from overlap.search.orders.search import Budget, Found, refined, search_order
from overlap.search.progress import Progress
from overlap.search.screen import Screened, shortlist
from overlap.split import Split, canonical

# Ranked splits that a model is asked for, per split whose order is searched.
ASKED_PER_SEARCH = 4


@dataclass(frozen=True)
class Narrowed:
    """Candidates with predictions, the baseline first, then the best, and the best candidate of every recipe."""

    candidates: Sequence[Screened]
    recipes: Mapping[str, Screened]

    @property
    def best_recipe(self) -> tuple[str, Screened] | None:
        """The recipe that is predicted to be fastest; None if none can run."""
        able = [(name, one) for name, one in self.recipes.items() if not one.failure]
        return min(able, key=lambda pair: pair[1].predicted_ns, default=None)


def narrow(
    bench: Bench,
    journal: Journal,
    screened: Sequence[Screened],
    recipes: Mapping[str, Sequence[Candidate]],
    search: SearchConfig,
    progress: Progress,
) -> Narrowed:
    """Ask, compare, search; what is in the journal is not done again."""
    asked = shortlist(screened, ASKED_PER_SEARCH * search.search_splits)
    named = {candidate for candidates in recipes.values() for candidate in candidates}
    wanted = [*dict.fromkeys([BASELINE, *(one.candidate for one in asked), *sorted(named)])]
    predicted = _Asked(bench, journal, screened).run(wanted, progress)
    best = {
        name: min((predicted[candidate] for candidate in candidates), key=_rank)
        for name, candidates in recipes.items()
        if candidates
    }
    found = [one for one in predicted.values() if one.candidate != BASELINE]
    if SEARCHED in search.orders:
        found += _searched(bench, journal, found, search, progress)
    rest = [one for one in screened if one.candidate not in predicted]
    return Narrowed([predicted[BASELINE], *sorted(found, key=_rank), *rest], best)


def _rank(one: Screened) -> tuple[bool, int, str]:
    return bool(one.failure), one.predicted_ns, one.candidate.key


class _Asked:
    """Predictions of whole candidates: a model's own, which is kept in the journal, else what the screening tells."""

    def __init__(self, bench: Bench, journal: Journal, screened: Sequence[Screened]) -> None:
        self._bench = bench
        self._journal = journal
        self._screened = {one.candidate: one for one in screened}
        self._failed = {one.candidate.split: one for one in screened if one.failure}
        self._known = {record["entrant"]: record for record in journal.of_kind("predicted")}

    def run(self, wanted: Sequence[Candidate], progress: Progress) -> dict[Candidate, Screened]:
        """All of `wanted`."""
        if not predicts(self._bench):
            return {one: self._screened.get(one) or self._one(one) for one in wanted}
        with progress.stage("predicting candidates", sum(one.key not in self._known for one in wanted)) as step:
            found = {}
            for candidate in wanted:
                found[candidate] = self._one(candidate)
                if candidate.key not in self._known:
                    step(candidate.key)
        return found

    def _one(self, candidate: Candidate) -> Screened:
        failed = self._failed.get(candidate.split)
        if failed is not None:
            return replace(failed, candidate=candidate)
        record = self._known.get(candidate.key)
        if record is not None:
            return Screened(candidate, record["predicted_ns"], record["peak_bytes"], record["failure"])
        made = self._ask(candidate)
        if predicts(self._bench):
            fields = {"predicted_ns": made.predicted_ns, "peak_bytes": made.peak_bytes, "failure": made.failure}
            self._journal.append("predicted", entrant=candidate.key, **fields)
        return made

    def _ask(self, candidate: Candidate) -> Screened:
        try:
            program, order = self._bench.program(candidate.split), self._bench.order(candidate)
            told = self._bench.device.predict_ns(program, order)
            predicted_ns = finish_ns(self._bench.problem(candidate.split), order) if told is None else told
            return Screened(candidate, predicted_ns, program.peak_bytes(order))
        except (DeviceError, ProgramError) as error:
            return Screened(candidate, 0, 0, str(error))


def predicts(bench: Bench) -> bool:
    """Whether the device tells the time of a program without running it."""
    program = bench.program(BASELINE.split)
    return bench.device.predict_ns(program, range(len(program.ops))) is not None


def _searched(
    bench: Bench, journal: Journal, predicted: Sequence[Screened], search: SearchConfig, progress: Progress
) -> list[Screened]:
    """The best splits in an order of their own."""
    splits = dict.fromkeys(
        searchable(one.candidate.split, bench) for one in shortlist(predicted, 2 * search.search_splits)
    )
    chosen = list(splits)[: search.search_splits]
    known = {record["split"]: record for record in journal.of_kind("order")}
    found = []
    with progress.stage("searching orders", sum(str(split) not in known for split in chosen)) as step:
        for number, split in enumerate(chosen):
            record = known.get(str(split))
            if record is None:
                try:
                    record = _search_one(bench, journal, split, search, search.seed + number)
                except (DeviceError, ProgramError) as error:
                    journal.append("failure", stage="order", entrant=str(split), reason=str(error), session="")
                    continue
                step(f"{split}: {record['predicted_ns'] / 1e6:.4g} ms")
            bench.searched[split] = record["order"]
            found.append(Screened(Candidate(split, SEARCHED), record["predicted_ns"], record["peak_bytes"]))
    return _deepened(bench, journal, found, search, progress)


def _deepened(
    bench: Bench, journal: Journal, found: list[Screened], search: SearchConfig, progress: Progress
) -> list[Screened]:
    """`found`, with the best of them searched further, once per sweep."""
    done = any(record.get("deepened") for record in journal.of_kind("order"))
    if done or not found or not search.order_deepening or not predicts(bench):
        return found
    best = min(found, key=_rank)
    split = best.candidate.split
    with progress.stage("deepening the best order", 1) as step:
        start = Found(bench.searched[split], best.predicted_ns)
        clock, fits = _judges(bench, split, search)
        deadline = time.monotonic() + search.order_seconds
        more = refined(bench.problem(split), start, search.order_deepening, search.seed, clock, fits, deadline)
        record = _keep_order(bench, journal, split, more, deepened=True)
        bench.searched[split] = record["order"]
        step(f"{split}: {record['predicted_ns'] / 1e6:.4g} ms")
    better = Screened(best.candidate, record["predicted_ns"], record["peak_bytes"])
    return [better if one is best else one for one in found]


def searchable(split: Split, bench: Bench) -> Split:
    """`split` without what only its program order depends on."""
    return canonical(replace(split, lag=0, turn="stage"), bench.workload)


def _search_one(bench: Bench, journal: Journal, split: Split, search: SearchConfig, seed: int) -> dict[str, Any]:
    bench.learn(split, search.screen_repeats, journal)
    return _keep_order(bench, journal, split, search_split(bench, split, search, seed), deepened=False)


def _keep_order(bench: Bench, journal: Journal, split: Split, found: Found, deepened: bool) -> dict[str, Any]:
    return journal.append(
        "order",
        split=str(split),
        order=found.order,
        predicted_ns=round(found.time_ns),
        peak_bytes=bench.program(split).peak_bytes(found.order),
        deepened=deepened,
    )


def search_split(bench: Bench, split: Split, search: SearchConfig, seed: int) -> Found:
    """The best order of a split whose kernels are known, by the device's own clock if it has one."""
    clock, fits = _judges(bench, split, search)
    budget = Budget(search.order_trials, search.order_refinements, search.order_seconds)
    own = clock if predicts(bench) else None
    return search_order(bench.problem(split), bench.program(split), budget, seed, own, fits)


def _judges(bench: Bench, split: Split, search: SearchConfig) -> tuple[Clock, Callable[[Sequence[int]], bool]]:
    """How long an order takes, and whether its memory may be had."""
    program, problem, device, cap = bench.program(split), bench.problem(split), bench.device, search.memory_cap_bytes

    def clock(order: Sequence[int]) -> float:
        told = device.predict_ns(program, order)
        return finish_ns(problem, order) if told is None else told

    def fits(order: Sequence[int]) -> bool:
        return cap is None or program.peak_bytes(order) <= cap

    return clock, fits

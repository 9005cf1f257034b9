"""Screening: rank every split by what its ops cost, before any whole program is timed.

On a device that can only measure, every distinct kernel is timed once, alone on its engine; splits share most of their
kernels. A model of a device tells the times of ops itself. What the queues make of these times in the better of two
orders, program order and the best list schedule, predicts the time of a split, up to what engines cost each other when
they run side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from overlap.devices.base import require_memory
from overlap.errors import DeviceError, ProgramError
from overlap.search.bench import Bench
from overlap.search.candidate import BASELINE, Candidate
from overlap.search.config import PROGRAM
from overlap.search.journal import Journal
from overlap.search.order import find_order
from overlap.search.orders.evaluate import finish_ns
from overlap.search.progress import Progress
from overlap.split import Split


@dataclass(frozen=True)
class Screened:
    """A candidate, its predicted time, and its peak memory in program order; `failure` says why there is none."""

    candidate: Candidate
    predicted_ns: int
    peak_bytes: int = 0
    failure: str = ""


def screen(
    bench: Bench, journal: Journal, splits: Sequence[Split], orders: Sequence[str], repeats: int, progress: Progress
) -> list[Screened]:
    """Predict every split in its best order, the baseline first; what is in the journal is not measured again."""
    known = {record["split"]: record for record in journal.of_kind("screen")}
    found = []
    wanted = list(dict.fromkeys([BASELINE.split, *splits]))
    with progress.stage("screening splits", sum(str(split) not in known for split in wanted)) as step:
        for split in wanted:
            old = known.get(str(split))
            record = old or _measure(bench, journal, split, orders, repeats)
            candidate = Candidate(split, record["order"])
            one = Screened(candidate, record["predicted_ns"], record["peak_bytes"], record["failure"])
            found.append(one)
            if old is None:
                step(f"{split}: {'failed' if one.failure else f'predicted {one.predicted_ns / 1e6:.4g} ms'}")
    return found


def _measure(bench: Bench, journal: Journal, split: Split, orders: Sequence[str], repeats: int) -> dict[str, Any]:
    """Time the kernels that are new in `split` and predict its orders."""
    try:
        program = bench.program(split)
        require_memory(program, bench.device.info)
        peak_bytes = program.peak_bytes()
        bench.learn(split, repeats, journal)
        problem = bench.problem(split)
        names = [PROGRAM] if split == BASELINE.split else list(orders)
        predicted = {name: finish_ns(problem, find_order(program, name, problem)) for name in names}
    except (DeviceError, ProgramError) as error:
        return _record(journal, split, PROGRAM, 0, 0, str(error))
    best = min(predicted, key=lambda name: (predicted[name], name != PROGRAM))
    return _record(journal, split, best, predicted[best], peak_bytes, "")


def _record(
    journal: Journal, split: Split, order: str, predicted_ns: int, peak_bytes: int, failure: str
) -> dict[str, Any]:
    return journal.append(
        "screen", split=str(split), order=order, predicted_ns=predicted_ns, peak_bytes=peak_bytes, failure=failure
    )


def _work(split: Split) -> Split:
    """`split` without what only its program order depends on."""
    return replace(split, lag=0, turn="stage")


# Axes in which candidates of a short list differ first: the others change a time by little.
SHAPING = ("chunks", "chunk_axis", "query_tile", "kv_tile", "fused_sdpa", "head_groups")


def shortlist(screened: Sequence[Screened], count: int) -> list[Screened]:
    """`count` of the best predicted candidates, no baseline: the best of each shape first, then the next best.

    A prediction that is wrong for one shape is wrong for its neighbours, so a list of neighbours risks everything on
    it. The simpler one comes first where predictions are equal.
    """
    able = [one for one in screened if not one.failure and one.candidate != BASELINE]
    able.sort(key=lambda one: (one.predicted_ns, one.candidate.split.complexity, one.candidate.key))
    # The same work in the same time: two names of one run, such as a list order that a search could not beat.
    able = list({(one.predicted_ns, _work(one.candidate.split)): one for one in reversed(able)}.values())[::-1]
    first: dict[tuple[object, ...], Screened] = {}
    for one in able:
        first.setdefault(tuple(getattr(one.candidate.split, axis) for axis in SHAPING), one)
    # Half of the list for the sake of difference, half by prediction alone.
    chosen = dict.fromkeys([*able[:1], *list(first.values())[: (count + 1) // 2], *able])
    found = list(chosen)[:count]
    return sorted(found, key=able.index)

"""Screening: rank every split by what its ops cost in isolation, before any whole program is timed.

Every distinct kernel is timed once, alone on its engine; splits share most of their kernels. The makespan of each order
over these times predicts the time of a candidate up to what engines cost each other when they run side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from overlap.devices.base import require_memory
from overlap.errors import DeviceError, ProgramError
from overlap.program import Program
from overlap.search.bench import Bench
from overlap.search.candidate import BASELINE, Candidate
from overlap.search.journal import Journal
from overlap.search.order import find_order, makespan_ns
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
    wanted = [BASELINE.split, *splits]
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
        fresh = bench.device.op_times(program, repeats, known=bench.kernel_ns)
        if fresh:
            journal.append("kernels", ns=fresh)
            bench.kernel_ns.update(fresh)
        times = bench.times(split)
        names = ["program"] if split == BASELINE.split else list(orders)
        predicted = {name: _predict(bench, program, find_order(program, name, times), times) for name in names}
    except (DeviceError, ProgramError) as error:
        return _record(journal, split, "program", 0, 0, str(error))
    best = min(predicted, key=lambda name: (predicted[name], name != "program"))
    return _record(journal, split, best, predicted[best], peak_bytes, "")


def _predict(bench: Bench, program: Program, order: Sequence[int], times: Sequence[int]) -> int:
    """Time of a program: what the device says without running it, else the makespan of its ops' times."""
    told = bench.device.predict_ns(program, order)
    return makespan_ns(program, order, times) if told is None else told


def _record(
    journal: Journal, split: Split, order: str, predicted_ns: int, peak_bytes: int, failure: str
) -> dict[str, Any]:
    return journal.append(
        "screen", split=str(split), order=order, predicted_ns=predicted_ns, peak_bytes=peak_bytes, failure=failure
    )


def shortlist(screened: Sequence[Screened], count: int) -> list[Candidate]:
    """The `count` best predicted candidates, the simpler one first where predictions are equal; no baseline."""
    able = [one for one in screened if not one.failure and one.candidate != BASELINE]
    able.sort(key=lambda one: (one.predicted_ns, one.candidate.split.complexity, one.candidate.key))
    return [one.candidate for one in able[:count]]

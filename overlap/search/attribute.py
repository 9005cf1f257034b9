"""Attribution: where the gain over the baseline comes from, each factor timed in a run of its own.

The runs form a chain from the baseline to the kept variant, and each differs from the one before it in one thing only:

    baseline     unsplit, program order
    tiled        the kept split with masked blocks computed, one queue at a time    → tiling  = baseline / tiled
    skipped      the same without the masked blocks, one queue at a time            → work    = tiled / skipped
    ordered      the same in the kept order, one queue at a time                    → order   = skipped / ordered
    kept         the same with both queues at once                                  → overlap = ordered / kept

What an order is worth for keeping both queues fed is part of `overlap`; `order` alone is what it does to caches and
memory. On a device that cannot run one queue at a time all runs use both, and `overlap` is no factor of its own: what
smaller ops gain by it is in `tiling`, what a better order gains in `order`. All take turns in rounds; a factor is the
median of its ratio over the rounds, so the factors multiply to the whole gain up to the spread of the medians.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from overlap.search.bench import Bench
from overlap.search.candidate import BASELINE, Candidate
from overlap.search.journal import Journal
from overlap.search.progress import Progress
from overlap.search.race import Entrant, paired_ratios, race
from overlap.split import violations
from overlap.stats import median
from overlap.workload import Workload

STAGE = "attribution"
FACTORS = ("tiling", "work", "order", "overlap")


def chain(kept: Candidate, workload: Workload, one_queue: bool = True) -> list[Candidate]:
    """The candidates from the baseline to the kept one, one per run; those between on one queue at a time if possible.

    A split that cannot do without skipping, such as a fused attention in slices, has no run of its own for it: `work`
    is 1, and what skipping saves is part of `tiling`.
    """
    computed = replace(kept.split, masked_blocks="compute")
    tiled = kept.split if violations(computed, workload) else computed
    between = [Candidate(tiled, "program"), Candidate(kept.split, "program")]
    if one_queue:
        between = [replace(one, serial=True) for one in [*between, kept]]
    return [BASELINE, *between, kept]


def attribute(
    bench: Bench, journal: Journal, kept: Candidate, rounds: int, seed: int, progress: Progress
) -> Mapping[str, float]:
    """Factor by name; `total` is baseline over kept in the same rounds.

    Empty if the baseline was kept, or if a run of the chain failed (the journal says why).
    """
    if kept == BASELINE:
        return {}
    runs = chain(kept, bench.workload, bench.device.info.one_queue)
    entrants = {run.key: timer(bench, run) for run in runs}
    race(journal, STAGE, entrants, rounds, seed, progress)
    steps = [*zip(FACTORS, runs, runs[1:], strict=False), ("total", BASELINE, kept)]
    factors = {name: _factor(journal, before, after) for name, before, after in steps}
    return {name: factor for name, factor in factors.items() if factor} if all(factors.values()) else {}


def timer(bench: Bench, run: Candidate) -> Entrant:
    """One run of a candidate, timed."""
    return lambda: bench.runnable(run).time(1)[0]


def _factor(journal: Journal, before: Candidate, after: Candidate) -> float | None:
    """Median ratio; 1 where two runs of the chain are the same run, None where they never ran in one round."""
    if before == after:
        return 1.0
    ratios = paired_ratios(journal, STAGE, before.key, after.key)
    return median(ratios) if ratios else None

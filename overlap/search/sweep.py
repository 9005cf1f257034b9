"""A sweep: screen the space, check and race a short list, re-time the finalists, keep one or none, explain it.

Every step reads from the journal what an earlier session has done and measures only what is missing, so the same code
runs a fresh sweep, goes on with a killed one, and gives the result of a finished one without measuring anything.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

import polars as pl

from overlap import __version__
from overlap.analysis.bound import Bound, gap
from overlap.analysis.partition import partition
from overlap.devices.base import Device, DeviceInfo, require_memory
from overlap.files import write_atomic
from overlap.search.attribute import attribute, timer
from overlap.search.bench import Bench, stack_split
from overlap.search.bounds import busy_bound, device_bound
from overlap.search.candidate import (
    BASELINE,
    Candidate,
    Rejected,
    about_ops,
    enumerate_space,
    few_enough,
    require_some,
    with_fused,
)
from overlap.search.check import Checked, check, require_sound
from overlap.search.config import SEARCHED, SearchConfig, SpaceConfig
from overlap.search.decide import FINAL, Verdict, decide
from overlap.search.identity import code_hash
from overlap.search.journal import Journal
from overlap.search.narrow import Narrowed, narrow
from overlap.search.progress import Progress
from overlap.search.race import STACK, Entrant, failure_of, hopeless, race, speedup, times_of
from overlap.search.recipes import recipe_candidates
from overlap.search.screen import Screened, screen, shortlist
from overlap.split import Split
from overlap.stats import Interval, median, median_interval
from overlap.workload import Workload

RACE = "race"
# Runs that are profiled per variant; the one of median length is kept.
PROFILES = 3
BOUND_REPEATS = 5
# Share of the window up to which TPC time without the MME counts as hidden.
HIDDEN = 0.03


@dataclass(frozen=True)
class Variant:
    """What is known of the baseline or the kept candidate. Times in ns; `events` is its profile."""

    candidate: Candidate
    latency: Interval
    bound: Bound
    peak_bytes: int
    error: float
    events: pl.DataFrame

    @property
    def gap(self) -> float:
        """Time over bound, less one."""
        return gap(self.latency.median, self.bound.time_ns)


@dataclass(frozen=True)
class SweepResult:
    """All that a sweep found out: `records` is the journal, `sessions` the number of processes that took samples."""

    workload: Workload
    device: DeviceInfo
    verdict: Verdict
    baseline: Variant
    kept: Variant
    stack: Interval | None
    speedup_vs_stack: Interval | None
    attribution: Mapping[str, float]
    screened: Sequence[Screened]
    recipes: Mapping[str, Screened]
    rejected: Sequence[Rejected]
    checked: Sequence[Checked]
    records: Sequence[Mapping[str, object]]
    kept_order: Sequence[str]
    sessions: int

    @property
    def variants(self) -> dict[str, Variant]:
        """The baseline, and the kept variant where there is one."""
        return {"baseline": self.baseline} | ({} if self.kept is self.baseline else {"kept": self.kept})

    def samples_ns(self, key: str, stage: str = FINAL) -> list[int]:
        """Samples of a candidate in a stage, in the order they were taken."""
        return [
            int(str(record["time_ns"]))
            for record in self.records
            if record["kind"] == "sample" and record["stage"] == stage and record["entrant"] == key
        ]


def run_sweep(
    workload: Workload,
    device: Device,
    space: SpaceConfig,
    search: SearchConfig,
    run_dir: Path,
    progress: Progress,
    seeds: Sequence[Split] = (),
) -> SweepResult:
    """Sweep `workload` on `device`, keeping every sample under `run_dir`.

    `seeds` are splits to try beside those of the space, such as the ones that were kept for a neighbouring bucket.

    Raises:
        MemoryLimitError: the baseline cannot fit.
        RunDirError: `run_dir` cannot be used.
    """
    device.require(workload)
    with Journal(run_dir, identity(workload, device, space, search)) as journal:
        kernel_ns: dict[str, int] = {}
        for record in journal.of_kind("kernels"):
            kernel_ns.update(record["ns"])
        bench = Bench(workload, device, kernel_ns, search.seed)
        program = bench.program(BASELINE.split)
        require_memory(program, device.info)
        if journal.resumed:
            progress.say(f"going on with the sweep in {run_dir}: {len(journal.records)} records are there")
        return _Sweep(bench, journal, space, search, run_dir, progress, seeds).run()


def identity(workload: Workload, device: Device, space: SpaceConfig, search: SearchConfig) -> dict[str, object]:
    """What must be the same for a journal to be gone on with."""
    return {
        "version": __version__,
        "code": code_hash(),
        "workload": asdict(workload),
        "device": {"kind": device.info.kind, "name": device.info.name, "software": dict(device.info.software)},
        "space": asdict(space),
        "search": asdict(search),
    }


def hidden_already(events: pl.DataFrame) -> list[str]:
    """Says that there is nothing to gain, where a run leaves next to no vector work beside which the MME idles."""
    found = partition(events)
    exposed = found.fraction(found.exposed_tpc_ns)
    if not found.busy_ns("TPC") or exposed > HIDDEN:
        return []
    return [f"the vector work is hidden already: TPC alone {exposed:.1%} of the time"]


class _Sweep:
    """The steps of one sweep."""

    def __init__(
        self,
        bench: Bench,
        journal: Journal,
        space: SpaceConfig,
        search: SearchConfig,
        run_dir: Path,
        progress: Progress,
        seeds: Sequence[Split] = (),
    ) -> None:
        self._seeds = seeds
        self._bench = bench
        self._journal = journal
        self._space = space
        self._search = search
        self._run_dir = run_dir
        self._progress = progress

    def run(self) -> SweepResult:
        """All steps, in order."""
        search, bench, journal, progress = self._search, self._bench, self._journal, self._progress
        info = bench.device.info
        splits, recipes, rejected = self._pool()
        named = [one.split for candidates in recipes.values() for one in candidates]
        quick = [name for name in search.orders if name != SEARCHED]
        screened = screen(bench, journal, [*splits, *named], quick, search.screen_repeats, progress)
        narrowed = narrow(bench, journal, screened, recipes, search, progress)
        chosen = self._chosen(narrowed)
        checked = check(bench, journal, chosen, progress)
        require_sound(checked[0])
        checked = [checked[0], *(self._within_cap(one) for one in checked[1:])]
        sound = [one for one in checked[1:] if not one.failure]
        finalists = self._race(sound, narrowed)
        verdict = self._decided(finalists)
        if verdict.kept == BASELINE and info.evidence == "simulated" and not info.computes:
            # A model's interval is no sample: asking for the rest of the short list takes nothing from the confidence.
            verdict = self._decided([*finalists, *(one for one in sound if one not in finalists)])
        factors = attribute(bench, journal, verdict.kept, search.attribution_rounds, search.seed, progress)
        by_candidate = {one.candidate: one for one in checked}
        baseline = self._variant("baseline", by_candidate[BASELINE])
        kept = baseline if verdict.kept == BASELINE else self._variant("kept", by_candidate[verdict.kept])
        if kept is baseline:
            verdict = replace(verdict, reason="; ".join([*hidden_already(baseline.events), verdict.reason]))
        stack = times_of(journal, FINAL, STACK)
        return SweepResult(
            workload=bench.workload,
            device=info,
            verdict=verdict,
            baseline=baseline,
            kept=kept,
            stack=median_interval(stack, search.confidence) if stack else None,
            speedup_vs_stack=self._over_stack(verdict.kept),
            attribution=factors,
            screened=narrowed.candidates,
            recipes=narrowed.recipes,
            rejected=rejected,
            checked=checked,
            records=journal.records,
            kept_order=[bench.program(kept.candidate.split).ops[op].name for op in bench.order(kept.candidate)],
            sessions=len({record["session"] for record in journal.of_kind("sample")}),
        )

    def _pool(self) -> tuple[list[Split], Mapping[str, list[Candidate]], list[Rejected]]:
        """Splits of the space and of the neighbours, the recipes of the field, and what cannot be looked at."""
        workload, info, most_ops = self._bench.workload, self._bench.device.info, self._search.most_ops
        splits, rejected = enumerate_space(self._space, workload)
        splits, large = few_enough(splits, workload, most_ops)
        rejected += large
        require_some(splits, rejected, workload)
        if info.fused_stack and workload.bucket.phase == "prefill":
            splits = with_fused(splits, workload)
        recipes = {
            name: [one for one in candidates if about_ops(one.split, workload) <= most_ops]
            for name, candidates in recipe_candidates(self._space, workload, info.fused_stack).items()
        }
        return [*self._seeds, *splits], {name: found for name, found in recipes.items() if found}, rejected

    def _chosen(self, narrowed: Narrowed) -> list[Candidate]:
        """What is raced: a short list, and the best recipe of the field, whatever the list thinks of it."""
        chosen = [one.candidate for one in shortlist(narrowed.candidates, self._search.race_candidates)]
        pinned = self._pinned(narrowed)
        return chosen if pinned is None or pinned in chosen else [*chosen, pinned]

    def _pinned(self, narrowed: Narrowed) -> Candidate | None:
        best = narrowed.best_recipe
        return None if best is None or best[1].candidate == BASELINE else best[1].candidate

    def _within_cap(self, one: Checked) -> Checked:
        """Fail what needs more memory than the user allows."""
        cap = self._search.memory_cap_bytes
        if one.failure or cap is None or one.peak_bytes <= cap:
            return one
        return replace(one, failure=f"needs {one.peak_bytes / 2**30:.3g} GiB beside the inputs, above the cap")

    def _race(self, sound: Sequence[Checked], narrowed: Narrowed) -> list[Checked]:
        """Race the short list; drop what cannot win; the finalists, the best recipe among them."""
        search, journal = self._search, self._journal
        names = [one.candidate.key for one in sound]
        dropped: dict[int, set[str]] = {}

        def keep(name: str, number: int) -> bool:
            if number not in dropped:
                dropped[number] = hopeless(journal, RACE, BASELINE.key, names, search.confidence, number)
            return name not in dropped[number]

        entrants = self._entrants([BASELINE, *(one.candidate for one in sound)])
        race(journal, RACE, entrants, search.race_rounds, search.seed, self._progress, keep)
        speeds = {name: speedup(journal, RACE, BASELINE.key, name, search.confidence) for name in names}
        able = [(speed.median, one) for one in sound if (speed := speeds[one.candidate.key])]
        able.sort(key=lambda pair: -pair[0])
        out = hopeless(journal, RACE, BASELINE.key, names, search.confidence)
        ranked = [one for _, one in able if not failure_of(journal, RACE, one.candidate.key)]
        ranked = [one for one in ranked if one.candidate.key not in out or one.candidate == self._pinned(narrowed)]
        pinned = self._pinned(narrowed)
        rest = [one for one in ranked[search.finalists :] if one.candidate == pinned]
        return [*ranked[: max(1, search.finalists - len(rest))], *rest]

    def _decided(self, finalists: Sequence[Checked]) -> Verdict:
        """Re-time the finalists and apply the rules."""
        self._final(finalists)
        return decide(self._journal, finalists, self._search.confidence, self._search.margin, self._modelled)

    def _final(self, finalists: Sequence[Checked]) -> None:
        """Re-time the finalists, the baseline and the stack with samples of their own."""
        entrants = self._entrants([BASELINE, *(one.candidate for one in finalists)])
        entrants[STACK] = self._bench.time_stack
        race(self._journal, FINAL, entrants, self._search.final_rounds, self._search.seed, self._progress)

    def _modelled(self, candidate: Candidate, over: Candidate = BASELINE) -> Interval | None:
        """The speed-up with what a model leaves open; None if the device runs what it times."""
        if self._bench.device.info.computes:
            return None
        keys = {"entrant": candidate.key, "over": over.key}
        record = next((r for r in self._journal.of_kind("modelled") if keys.items() <= r.items()), None)
        if record is None:
            found = self._bench.device.speedup_interval(self._bench.runnable(over), self._bench.runnable(candidate))
            if found is None:
                return None
            record = self._journal.append("modelled", **keys, **asdict(found))
        return Interval(record["median"], record["low"], record["high"], record["samples"])

    def _over_stack(self, kept: Candidate) -> Interval | None:
        """The speed-up over what a serving stack would run."""
        found = speedup(self._journal, FINAL, STACK, kept.key, self._search.confidence)
        if found is None:
            return None
        return self._modelled(kept, Candidate(stack_split(self._bench.workload))) or found

    def _entrants(self, candidates: Sequence[Candidate]) -> dict[str, Entrant]:
        return {one.key: timer(self._bench, one) for one in candidates}

    def _variant(self, name: str, checked: Checked) -> Variant:
        """Profile a variant and find its bound."""
        candidate = checked.candidate
        times = times_of(self._journal, FINAL, candidate.key)
        events = self._profile(name, candidate)
        return Variant(
            candidate=candidate,
            latency=median_interval(times, self._search.confidence),
            bound=self._bound(candidate) if self._bench.device.info.single_ops else busy_bound(events),
            peak_bytes=checked.peak_bytes,
            error=checked.worst_error,
            events=events,
        )

    def _bound(self, candidate: Candidate) -> Bound:
        """Bound from op times taken in isolation, anew and with more repeats than in the screening."""
        program = self._bench.program(candidate.split)
        if self._bench.device.least_times(program) is not None:
            return device_bound(self._bench.device, program, {})
        record = next((r for r in self._journal.of_kind("bound") if r["entrant"] == candidate.key), None)
        if record is None:
            fresh = self._bench.device.op_times(program, BOUND_REPEATS)
            record = self._journal.append("bound", entrant=candidate.key, ns=fresh)
        return device_bound(self._bench.device, program, record["ns"])

    def _profile(self, name: str, candidate: Candidate) -> pl.DataFrame:
        """The event table of a typical run: of three profiles the one of median length."""
        path = self._run_dir / "traces" / f"{name}.parquet"
        known = {record["sha256"] for record in self._journal.of_kind("profile") if record["entrant"] == candidate.key}
        # A file that this journal does not know, or that has changed, is not a profile of this candidate.
        if path.is_file() and sha256(path.read_bytes()).hexdigest() in known:
            return pl.read_parquet(path)
        runs = [self._bench.runnable(candidate).profile() for _ in range(PROFILES)]
        lengths = [max(run["end_ns"].to_list()) for run in runs]
        middle = runs[lengths.index(int(median(lengths)))]
        buffer = io.BytesIO()
        middle.write_parquet(buffer)
        write_atomic(path, buffer.getvalue())
        digest = sha256(buffer.getvalue()).hexdigest()
        self._journal.append("profile", entrant=candidate.key, session=self._journal.session, sha256=digest)
        return middle

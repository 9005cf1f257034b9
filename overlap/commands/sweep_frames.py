"""From a sweep's result to the frames that the figures of its report take."""

from __future__ import annotations

import polars as pl

from overlap.commands.tables import plain_ms
from overlap.search.candidate import BASELINE
from overlap.search.decide import FINAL
from overlap.search.pareto import Point, front
from overlap.search.screen import Screened
from overlap.search.sweep import RACE, SweepResult
from overlap.stats import median_interval

NS_PER_MS = 1e6
SCREEN = "screen"
CANDIDATES = {
    "name": pl.String,
    "stage": pl.String,
    "time_ms": pl.Float64,
    "low_ms": pl.Float64,
    "high_ms": pl.Float64,
    "peak_bytes": pl.Int64,
    "note": pl.String,
    "timed": pl.Boolean,
}
# Factors of the gain in the order that they are told in.
FACTORS = ("work", "tiling", "overlap", "order")
# A difference between the product of the factors and the gain is told above this share of the kept variant's time.
LEAST_RESIDUAL = 0.005


def best_times(result: SweepResult, key: str) -> tuple[str, list[int]]:
    """Samples of the last stage that timed a candidate, and its name."""
    # Only what was checked was ever timed; to look through all samples for each of thousands takes too long.
    timed = any(one.candidate.key == key for one in result.checked)
    for stage in (FINAL, RACE) if timed else ():
        times = result.samples_ns(key, stage)
        if times:
            return stage, times
    return SCREEN, []


def candidate_frame(result: SweepResult) -> pl.DataFrame:
    """One row per candidate with the best time there is of it.

    Columns: those of `analysis.figures.pareto`, and `timed`, whether it was timed as a whole.
    """
    failures = {one.candidate.key: one.failure for one in result.checked if one.failure}
    rows = [_row(result, one, failures.get(one.candidate.key, "")) for one in result.screened if not one.failure]
    frame = pl.DataFrame(rows, schema=CANDIDATES, orient="row")
    return frame.with_columns(_on_front(result, frame, set(failures)))


def _row(result: SweepResult, one: Screened, failure: str) -> tuple[object, ...]:
    stage, times = best_times(result, one.candidate.key)
    interval = median_interval(times) if times else None
    time_ns = interval.median if interval else float(one.predicted_ns)
    low, high = (interval.low, interval.high) if interval and interval.low > 0 else (time_ns, time_ns)
    note = failure or f"predicted {plain_ms(one.predicted_ns)}"
    names = [
        name for name, recipe in result.recipes.items() if recipe.candidate == one.candidate and not recipe.failure
    ]
    if one.candidate == result.verdict.kept:
        stage = "kept"
    elif one.candidate == BASELINE:
        stage = "baseline"
    elif names:
        stage = "recipe"
    if names:
        note += f"; recipe {', '.join(names)}"
    peaks = [found.peak_bytes for found in result.checked if found.candidate == one.candidate and found.peak_bytes]
    ends = (time_ns / NS_PER_MS, low / NS_PER_MS, high / NS_PER_MS)
    return (one.candidate.key, stage, *ends, *(peaks or [one.peak_bytes]), note, bool(times))


def _on_front(result: SweepResult, frame: pl.DataFrame, failed: set[str]) -> pl.Series:
    """Whether a row is on the front; predictions are kept apart from times that a clock gave."""
    measured = result.device.evidence != "simulated"
    able = frame.filter(~pl.col("name").is_in(list(failed)) & (pl.col("timed") | (not measured)))
    columns = able.select("name", pl.col("time_ms") * NS_PER_MS, "peak_bytes")
    points = [Point(*row) for row in columns.iter_rows()]
    names = {point.key for point in front(points)}
    return pl.Series("on_front", [name in names for name in frame["name"].to_list()], dtype=pl.Boolean)


def axes_frame(result: SweepResult) -> pl.DataFrame:
    """One row per candidate: its axes, its order, and its predicted time (columns: `analysis.figures.coordinates`)."""
    rows = [
        {**one.candidate.split.as_dict(), "order": one.candidate.order, "time_ms": one.predicted_ns / NS_PER_MS}
        for one in result.screened
        if not one.failure
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def step_frame(result: SweepResult) -> pl.DataFrame:
    """From the baseline to the bound (columns: `analysis.figures.waterfall`).

    A factor is applied to what those before it have left. What they do not explain is a step of its own.
    """
    level = result.baseline.latency.median
    steps = [("baseline", level, "baseline")]
    if result.kept is not result.baseline:
        for name in FACTORS:
            if name in result.attribution:
                factor = result.attribution[name]
                steps.append((f"{name} {factor:.3f}×", level / factor - level, "factor"))
                level /= factor
        end = result.kept.latency.median
        if abs(end - level) > LEAST_RESIDUAL * end:
            steps.append(("not attributed", end - level, "residual"))
        steps.append(("kept", end, "kept"))
        level = end
    bound_ns = float(result.kept.bound.time_ns)
    steps += [("gap to the bound", bound_ns - level, "gap"), ("bound", bound_ns, "bound")]
    schema = {"step": pl.String, "time_ms": pl.Float64, "kind": pl.String}
    return pl.DataFrame([(name, ns / NS_PER_MS, kind) for name, ns, kind in steps], schema=schema, orient="row")


def cap_bytes(result: SweepResult) -> int | None:
    """The memory cap of the sweep, as the journal's header says."""
    header = next((record for record in result.records if record["kind"] == "header"), {})
    identity = header.get("identity")
    search = identity.get("search") if isinstance(identity, dict) else None
    gib = search.get("memory_cap_gib") if isinstance(search, dict) else None
    return None if gib is None else round(float(gib) * 2**30)

"""From a sweep's result to what its report page and TensorBoard show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone

from overlap.analysis.partition import partition
from overlap.analysis.report import RecipeLine, ReportData
from overlap.analysis.words import order_in_words, split_in_words
from overlap.commands.look import OTHERS_ALONE, SHARES
from overlap.commands.recipe_rows import RecipeRow, recipe_rows
from overlap.commands.sweep_frames import axes_frame, best_times, candidate_frame, cap_bytes, step_frame
from overlap.commands.tables import bound_label, error_label, gate_rows, milliseconds, plain_ms
from overlap.search.candidate import BASELINE
from overlap.search.decide import FINAL
from overlap.search.sweep import RACE, SweepResult, Variant
from overlap.stats import median
from overlap.traces.scalars import ScalarRow

NS_PER_US = 1e3


def report_data(result: SweepResult, command: str) -> ReportData:
    """All that the page needs."""
    kept_any = result.verdict.kept != BASELINE
    words = split_in_words(result.kept.candidate.split, result.workload)
    return ReportData(
        title=str(result.workload),
        evidence=result.device.evidence,
        device=result.device.name,
        created=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        command=command,
        runs={_run_title(name, one): one.events for name, one in result.variants.items()},
        speedup=result.verdict.speedup if kept_any else None,
        speedup_vs_stack=result.speedup_vs_stack,
        steps=step_frame(result),
        explained=bool(result.attribution),
        kept_in_words=[*words, order_in_words(result.kept.candidate.order)] if kept_any else words,
        numbers=list(_numbers(result)),
        candidates=candidate_frame(result),
        cap_bytes=cap_bytes(result),
        axes=axes_frame(result),
        recipes=list(_recipes(result)),
        method=list(_method(result)),
        software=result.device.software,
        reasons=[(one.candidate.key, one.reason or "passed") for one in result.verdict.considered],
    )


def _run_title(name: str, one: Variant) -> str:
    return f"{name}: {one.candidate.split}" if name != "baseline" else "baseline: unsplit, program order"


def _numbers(result: SweepResult) -> Iterator[tuple[str, str, str]]:
    """Rows of the table; the third column repeats the baseline where nothing was kept."""
    pair = (result.baseline, result.kept)
    found = [partition(one.events) for one in pair]
    evidence = result.device.evidence
    yield _row(f"time of a run ({evidence})", [milliseconds(one.latency) for one in pair])
    for name, time_ns in SHARES.items():
        if name == OTHERS_ALONE and not any(map(time_ns, found)):
            continue
        yield _row(name, [f"{one.fraction(time_ns(one)):.1%}, {plain_ms(time_ns(one))}" for one in found])
    yield _row(bound_label(result.device), [plain_ms(one.bound.time_ns) for one in pair])
    for engine in dict.fromkeys(engine for one in pair for engine in one.bound.work_ns):
        yield _row(f"  {engine} work", [plain_ms(one.bound.work_ns.get(engine, 0)) for one in pair])
    if result.device.single_ops:
        yield _row("  critical path", [plain_ms(one.bound.critical_path_ns) for one in pair])
    yield _row("gap to the bound", [f"{one.gap:.1%}" for one in pair])
    yield _row("peak memory beside the inputs", [f"{one.peak_bytes / 2**20:.0f} MiB" for one in pair])
    yield _row(f"relative L2 {error_label(evidence)}", [f"{one.error:.2e}" for one in pair])
    yield _row("ops" if result.device.single_ops else "rows of the trace", [str(one.events.height) for one in pair])
    for name, values in gate_rows(result):
        yield _row(f"gate: {name}", values)
    if result.stack is not None:
        yield (f"the stack's time ({evidence})", milliseconds(result.stack), "")


def _row(name: str, values: list[str]) -> tuple[str, str, str]:
    return name, values[0], values[1]


def _recipes(result: SweepResult) -> Iterator[RecipeLine]:
    for one in recipe_rows(result):
        kept_over = "–" if one.kept_over is None else f"{one.kept_over:.3f}×"
        predicted = "–" if one.failure else plain_ms(one.predicted_ns)
        yield RecipeLine(one.name, one.split, predicted, kept_over, _whence(one, result.device.evidence), one.best)


def _whence(one: RecipeRow, evidence: str) -> str:
    """Where a recipe's ratio comes from, or why it has none."""
    if one.failure:
        return f"cannot run: {one.failure}"
    return f"{one.basis}, {evidence}" if one.basis in (FINAL, RACE) else one.basis


def _method(result: SweepResult) -> Iterator[str]:
    final = result.kept.latency.samples
    if result.device.evidence == "simulated":
        yield from _simulated_method(result)
        return
    single_ops = result.device.single_ops
    ranked_by = (
        "the times of their ops in isolation" if single_ops else "a model of the chip, which decides nothing else"
    )
    yield (
        f"{len(result.screened)} splits were ranked by {ranked_by}; "
        f"{len(result.rejected)} more points of the space broke a rule."
    )
    yield (
        "The best of them and the baseline were compared with an fp32 reference on poisoned memory (hidden states and "
        "written K/V; at most twice the baseline's own error), then raced in one process, in rounds of random order."
    )
    yield (
        f"The finalists, the baseline and the stack were timed anew in {final} rounds; only these samples decide. "
        "Speed-ups are medians of the ratio within a round, with intervals from order statistics."
    )
    stamped = "stamped by the workers themselves" if single_ops else "as the vendor's profiler wrote it"
    yield f"The lanes are the run of median length out of three profiled ones, {stamped}."
    if not single_ops:
        yield (
            "The compiler fuses and cuts ops, so the bound is the busy time of the busiest engine in that run. No run "
            "uses one queue at a time, so what overlap gains is part of the other factors."
        )
    if result.sessions > 1:
        yield "The sweep was interrupted and went on; samples are paired only within a session."


def _simulated_method(result: SweepResult) -> Iterator[str]:
    """What a simulated sweep did, which is less than a measured one could."""
    yield (
        f"No card was there: all times are those of a model, {result.device.name}. Every repeat gives the same, so "
        "intervals of times have no width. Those of speed-ups are what is left open by the constants that nobody knows "
        "exactly; rules that may be wrong are not in them. How right the model is, overlap validate says."
    )
    yield (
        f"{len(result.screened)} splits were simulated in every order; {len(result.rejected)} more points of the space "
        "broke a rule."
    )
    yield (
        "Results of the best were compared with an fp32 reference on this machine's CPU: the same cut and order on a "
        "twin with few, narrow heads (hidden states and written K/V; at most twice the baseline's own error)."
    )
    yield "The stack is the fused attention with a recipe per layer, simulated likewise."


def scalar_rows(result: SweepResult) -> list[ScalarRow]:
    """One TensorBoard run per candidate that was timed as a whole."""
    rows = []
    peaks = {one.candidate.key: one for one in result.checked}
    for one in result.screened:
        stage, times = best_times(result, one.candidate.key)
        if not times:
            continue
        checked = peaks[one.candidate.key]
        name = "baseline" if one.candidate == BASELINE else _slug(one.candidate.key)
        metrics = {
            "time_us": median(times) / NS_PER_US,
            "predicted_us": one.predicted_ns / NS_PER_US,
            "peak_mib": checked.peak_bytes / 2**20,
            "rel_l2": checked.worst_error,
        }
        hparams = {**one.candidate.split.as_dict(), "order": one.candidate.order, "stage": stage}
        rows.append(ScalarRow(name, hparams, metrics, [time_ns / NS_PER_US for time_ns in times]))
    return [replace(row, hparams=_varying(row, rows)) for row in rows]


def _varying(row: ScalarRow, rows: list[ScalarRow]) -> dict[str, bool | int | float | str]:
    """The hparams in which the rows differ; the others would only fill the table."""
    return {name: value for name, value in row.hparams.items() if any(one.hparams[name] != value for one in rows)}


def _slug(key: str) -> str:
    """A candidate's key as a folder name."""
    return "".join(c if c.isalnum() or c in "=_" else "-" for c in key.replace(" | ", " ")).strip("-")

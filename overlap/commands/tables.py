"""What the commands print: short tables that say `measured` or `simulated` beside every time."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import polars as pl
from rich.table import Table

from overlap.analysis.partition import Partition, partition
from overlap.commands.look import OTHERS_ALONE, SHARES, new_table
from overlap.commands.recipe_rows import recipe_rows
from overlap.devices.base import DeviceInfo, Uncertainty
from overlap.program import Engine
from overlap.search.candidate import BASELINE
from overlap.search.profile import Profile
from overlap.search.sweep import SweepResult
from overlap.stats import Interval

NS_PER_MS = 1e6
# Gates that say what a compiler made of a split and its order.
OBEYED = ("matrix nodes", "order")
# Constants that a table of uncertainty names.
STRONGEST = 6


def milliseconds(interval: Interval) -> str:
    """`694.1 ms [688.0, 701.2]`, with more digits for times below 10 ms."""
    low, middle, high = (value / NS_PER_MS for value in (interval.low, interval.median, interval.high))
    digits = _digits(middle)
    return f"{middle:.{digits}f} ms [{low:.{digits}f}, {high:.{digits}f}]"


def plain_ms(time_ns: float) -> str:
    """`694.1 ms`, with as many digits as `milliseconds`."""
    value = time_ns / NS_PER_MS
    return f"{value:.{_digits(value)}f} ms"


def _digits(value_ms: float) -> int:
    return 1 if value_ms >= 10 else 3


def times(interval: Interval) -> str:
    """`1.371x [1.344, 1.395]`."""
    return f"{interval.median:.3f}x [{interval.low:.3f}, {interval.high:.3f}]"


def bound_label(device: DeviceInfo) -> str:
    """What the bound is made of."""
    if not device.single_ops:
        return "bound (the busiest engine)"
    return "bound (ops alone)" if device.evidence == "simulated" else "bound (ops alone, warm caches)"


def ops_label(device: DeviceInfo) -> str:
    """Where times of ops come from."""
    shares = "as shares of the engines' measured times"
    return f"in isolation ({device.evidence})" if device.single_ops else shares


def error_label(evidence: str) -> str:
    """Where the error was found: a model computes nothing, so a narrow twin ran on the CPU."""
    return "error against fp32 (narrow twin, CPU)" if evidence == "simulated" else "error against fp32"


def sweep_tables(result: SweepResult) -> Iterable[Table]:
    """Baseline beside kept variant, then where the gain comes from."""
    evidence = result.device.evidence
    title = f"{result.workload} on {result.device.name}, {evidence}"
    baseline, kept = result.baseline, result.kept
    found = {id(one): partition(one.events) for one in (baseline, kept)}
    variants = [baseline] if kept is baseline else [baseline, kept]
    table = new_table(title, "", *(["baseline (kept)"] if kept is baseline else ["baseline", "kept"]))
    table.add_row("split", *(str(one.candidate.split) for one in variants))
    table.add_row("order", *(one.candidate.order for one in variants))
    table.add_row(f"time, {evidence}", *(milliseconds(one.latency) for one in variants))
    for name, time_ns in SHARES.items():
        shares = [found[id(one)].fraction(time_ns(found[id(one)])) for one in variants]
        if name == OTHERS_ALONE and not any(shares):
            continue
        table.add_row(name, *(f"{share:.1%}" for share in shares))
    table.add_row(bound_label(result.device), *(plain_ms(one.bound.time_ns) for one in variants))
    table.add_row("gap to the bound", *(f"{one.gap:.1%}" for one in variants))
    table.add_row("peak beside the inputs", *(f"{one.peak_bytes / 2**20:.0f} MiB" for one in variants))
    table.add_row(error_label(evidence), *(f"{one.error:.1e}" for one in variants))
    for name, values in gate_rows(result, OBEYED):
        table.add_row(f"{name} in the trace", *values[: len(variants)])
    yield table
    yield _gain_table(result)
    if result.recipes:
        yield _recipe_table(result)


def _recipe_table(result: SweepResult) -> Table:
    """The recipes of the field, the fastest first; the best is marked."""
    title = f"recipes of the field, {result.device.evidence}"
    table = new_table(title, "recipe", "split", "predicted", "kept over it", "from")
    table.columns[1].overflow = "fold"
    for one in recipe_rows(result):
        name = f"{one.name} (best)" if one.best else one.name
        if one.failure:
            table.add_row(name, one.split, "cannot run", "", one.failure)
            continue
        kept_over = "" if one.kept_over is None else f"{one.kept_over:.3f}x"
        table.add_row(name, one.split, plain_ms(one.predicted_ns), kept_over, one.basis)
    return table


def gate_rows(result: SweepResult, only: Collection[str] = ()) -> Iterable[tuple[str, list[str]]]:
    """Gates by name, with what the baseline and the kept variant passed them with."""
    gates = {one.candidate: one.gates for one in result.checked}
    pair = [gates.get(one.candidate, {}) for one in (result.baseline, result.kept)]
    for name in dict.fromkeys(name for one in pair for name in one):
        if not only or name in only:
            yield name, [one[name].value if name in one else "–" for one in pair]


def _gain_table(result: SweepResult) -> Table:
    if result.verdict.kept == BASELINE:
        table = new_table("no split was faster for sure; the baseline stays", "candidate", "why not")
        for one in result.verdict.considered:
            table.add_row(one.candidate.key, one.reason)
        table.add_row("the baseline", result.verdict.reason.partition(";")[0] if result.verdict.considered else "")
        if result.stack is not None:
            table.add_row("the stack, for comparison", milliseconds(result.stack))
        return table
    table = new_table("gain", "", "factor")
    table.add_row("kept over baseline", times(result.verdict.speedup))
    for name, factor in result.attribution.items():
        table.add_row(f"  {'all factors' if name == 'total' else name}", f"{factor:.3f}x")
    if not result.attribution:
        table.add_row("  factors", "not known: a run of theirs failed")
    if result.speedup_vs_stack is not None and result.stack is not None:
        slower = result.speedup_vs_stack.median < 1
        table.add_row(
            "kept over stack, which is faster" if slower else "kept over stack", times(result.speedup_vs_stack)
        )
        table.add_row("  the stack's time", milliseconds(result.stack))
    return table


def profile_tables(profile: Profile) -> Iterable[Table]:
    """Engines and their work, ops by kind, and how the run went."""
    yield _run_table(profile, partition(profile.events))
    if profile.uncertainty is not None:
        yield _uncertainty_table(profile.uncertainty)
    yield _engine_table(profile)
    yield _op_table(profile, f"ops by name, times {ops_label(profile.device)}")


def _run_table(profile: Profile, found: Partition) -> Table:
    table = new_table(f"{profile.workload} on {profile.device.name}, {profile.device.evidence}", "", "value")
    table.add_row("split", str(profile.candidate.split))
    table.add_row("order", profile.candidate.order)
    table.add_row("time", milliseconds(profile.latency))
    for name, time_ns in SHARES.items():
        if name == OTHERS_ALONE and not time_ns(found):
            continue
        table.add_row(name, f"{found.fraction(time_ns(found)):.1%}")
    table.add_row(bound_label(profile.device), plain_ms(profile.bound.time_ns))
    if profile.device.single_ops:
        table.add_row("  critical path", plain_ms(profile.bound.critical_path_ns))
    table.add_row("peak beside the inputs", f"{profile.peak_bytes / 2**20:.0f} MiB")
    return table


def _uncertainty_table(found: Uncertainty) -> Table:
    """The interval of a predicted time, and the constants that it comes from."""
    low, high = found.low_ns / NS_PER_MS, found.high_ns / NS_PER_MS
    title = f"time if the uncertain constants are elsewhere in their intervals: {low:.2f} to {high:.2f} ms"
    table = new_table(title, "constant", "source", "at its low end", "at its high end")
    for effect in found.effects[:STRONGEST]:
        changes = [end / max(1, found.time_ns) - 1 for end in (effect.at_low_ns, effect.at_high_ns)]
        table.add_row(effect.name, effect.source, *(f"{change:+.1%}" for change in changes))
    return table


def _engine_table(profile: Profile) -> Table:
    """Ops and work per engine, straight from the captured program."""
    table = new_table(
        "captured program", "engine", "ops", "kernels", "GFLOP", "M elements", "MB moved", "ms of its ops"
    )
    for engine in profile.program.engines():
        mine = [(op, ns) for op, ns in zip(profile.program.ops, profile.op_ns, strict=True) if op.engine is engine]
        kernels = [op.kernel for op, _ in mine]
        moved = sum(one.read_bytes + one.write_bytes for one in kernels)
        table.add_row(
            engine.value,
            str(len(mine)),
            str(len({one.key for one in kernels})),
            f"{sum(one.flops for one in kernels) / 1e9:.1f}",
            f"{sum(one.elements for one in kernels) / 1e6:.1f}",
            f"{moved / 1e6:.0f}",
            f"{sum(ns for _, ns in mine) / NS_PER_MS:.1f}",
        )
    return table


def _op_table(profile: Profile, title: str) -> Table:
    """Ops that differ only in layer, chunk and tile, added up."""
    frame = pl.DataFrame(
        {
            "engine": [op.engine.value for op in profile.program.ops],
            "phase": [op.phase for op in profile.program.ops],
            "op": [op.name.rpartition(".")[2] for op in profile.program.ops],
            "ns": list(profile.op_ns),
        }
    )
    sums = frame.group_by("engine", "phase", "op").agg(pl.len().alias("count"), pl.col("ns").sum()).sort("ns", "op")
    total = {engine.value: max(1, frame.filter(engine=engine.value)["ns"].sum()) for engine in Engine}
    table = new_table(title, "op", "engine", "count", "ms", "of engine")
    for row in sums.reverse().iter_rows(named=True):
        share = row["ns"] / total[row["engine"]]
        name = f"{row['phase']}.{row['op']}"
        table.add_row(name, row["engine"], str(row["count"]), f"{row['ns'] / NS_PER_MS:.2f}", f"{share:.1%}")
    return table

"""The files of a sweep, written from its result: what other programs read, and what people look at.

Every file is written beside its place and moved into it, so that a reader never sees half of one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from overlap.analysis.partition import Partition, partition
from overlap.analysis.report import write_report
from overlap.commands.sweep_report import report_data, scalar_rows
from overlap.files import write_atomic
from overlap.kernels.capture import capture
from overlap.search.candidate import BASELINE
from overlap.search.sweep import SweepResult, Variant
from overlap.serve.tuned import (
    SCHEMA,
    Alternative,
    Attribution,
    Busy,
    Entry,
    Errors,
    Spread,
    Tuned,
    TunedDevice,
)
from overlap.serve.tuned_file import save
from overlap.stats import finite, median_interval
from overlap.traces.chrome import TraceInfo, chunk_flows, write_chrome
from overlap.traces.scalars import write_scalars
from overlap.traces.tensorboard import write_tensorboard

NS_PER_US = 1e-3


def write_trials(result: SweepResult, path: Path) -> None:
    """Every sample, and every candidate that was rejected, dropped or failed, one row each."""
    rows = [*_sample_rows(result), *_other_rows(result)]
    schema = {
        "stage": pl.String,
        "round": pl.Int64,
        "session": pl.String,
        "candidate": pl.String,
        "time_ns": pl.Int64,
        "predicted_ns": pl.Int64,
        "reason": pl.String,
        "evidence": pl.String,
    }
    buffer = io.BytesIO()
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(buffer)
    write_atomic(path, buffer.getvalue())


def _sample_rows(result: SweepResult) -> list[dict[str, Any]]:
    return [
        {
            "stage": record["stage"],
            "round": record["round"],
            "session": record["session"],
            "candidate": record["entrant"],
            "time_ns": record["time_ns"],
            "evidence": result.device.evidence,
        }
        for record in result.records
        if record["kind"] == "sample"
    ]


def _other_rows(result: SweepResult) -> list[dict[str, Any]]:
    """Candidates without a sample: against the rules, failed in a stage, or predicted only (time from the model)."""
    rows: list[dict[str, Any]] = [
        {"stage": "rules", "candidate": str(one.split), "reason": one.reason} for one in result.rejected
    ]
    for screened in result.screened:
        row = {"stage": "screen", "candidate": screened.candidate.key, "reason": screened.failure}
        rows.append(row | {"predicted_ns": screened.predicted_ns or None})
    rows += [{"stage": "check", "candidate": c.candidate.key, "reason": c.failure} for c in result.checked if c.failure]
    rows += [
        {"stage": r["stage"], "candidate": r["entrant"], "session": r["session"], "reason": r["reason"]}
        for r in result.records
        if r["kind"] == "failure"
    ]
    return rows


def build_tuned(result: SweepResult) -> Tuned:
    """The tuned config of one bucket."""
    device = result.device
    return Tuned(
        schema=SCHEMA,
        model=result.workload.model,
        tensor_parallel=result.workload.tensor_parallel,
        window_layers=result.workload.window_layers,
        device=TunedDevice(
            kind=device.kind, name=device.name, evidence=device.evidence, software=dict(device.software)
        ),
        entries=[_entry(result)],
    )


def _entry(result: SweepResult) -> Entry:
    kept, baseline = result.kept, result.baseline
    factors = {name: float(f"{value:.6g}") for name, value in result.attribution.items() if name != "total"}
    return Entry(
        bucket=result.workload.bucket,
        pass_through=kept.candidate == BASELINE,
        split=kept.candidate.split,
        order=kept.candidate.order,
        evidence=result.device.evidence,
        latency_us=Spread.of(kept.latency, NS_PER_US),
        baseline_latency_us=Spread.of(baseline.latency, NS_PER_US),
        speedup=Spread.of(result.verdict.speedup),
        speedup_vs_stack=Spread.of(result.speedup_vs_stack) if result.speedup_vs_stack else None,
        attribution=Attribution(**factors) if factors else None,
        busy=_busy(partition(kept.events)),
        baseline_busy=_busy(partition(baseline.events)),
        bound_us=round(kept.bound.time_ns * NS_PER_US, 3),
        gap=float(f"{kept.gap:.6g}"),
        error=Errors(rel_l2=float(f"{kept.error:.6g}"), baseline_rel_l2=float(f"{baseline.error:.6g}")),
        peak_bytes=kept.peak_bytes,
        baseline_peak_bytes=baseline.peak_bytes,
        samples=kept.latency.samples,
        trace=f"traces/{'baseline' if kept is baseline else 'kept'}.pt.trace.json.gz",
        alternatives=_alternatives(result),
    )


def _alternatives(result: SweepResult) -> tuple[Alternative, ...]:
    """Finalists that ran and computed the right thing but were not kept, the fastest first."""
    recipes = {screened.candidate.split: name for name, screened in result.recipes.items()}
    failed = {one.candidate for one in result.checked if one.failure}
    found = []
    for one in result.verdict.considered:
        times = result.samples_ns(one.candidate.key)
        if times and one.candidate not in failed | {result.kept.candidate}:
            latency = Spread.of(median_interval(times), NS_PER_US)
            recipe = recipes.get(one.candidate.split, "")
            split, order = one.candidate.split, one.candidate.order
            found.append(Alternative(split=split, order=order, latency_us=latency, recipe=recipe))
    return tuple(sorted(found, key=lambda one: one.latency_us.median))


def _busy(found: Partition) -> Busy:
    return Busy(**{name: round(share, 6) for name, share in found.busy.items()})


def write_profile(result: SweepResult, path: Path) -> None:
    """`profile.json`: partitions, bounds and samples of baseline and kept variant, and the kept order by op name."""
    content = {
        "evidence": result.device.evidence,
        "device": asdict(result.device),
        "workload": asdict(result.workload),
        "variants": {name: _variant(result, one) for name, one in result.variants.items()},
        "kept_order": list(result.kept_order),
    }
    write_atomic(path, json.dumps(content, indent=1, allow_nan=False).encode())


def _variant(result: SweepResult, one: Variant) -> Mapping[str, Any]:
    found = partition(one.events)
    return {
        "split": one.candidate.split.as_dict(),
        "order": one.candidate.order,
        "latency_ns": finite(one.latency),
        "samples_ns": result.samples_ns(one.candidate.key),
        "bound_ns": one.bound.time_ns,
        "bound_limit": one.bound.limit,
        "work_ns": dict(one.bound.work_ns),
        "critical_path_ns": one.bound.critical_path_ns,
        "gap": one.gap,
        "window_ns": found.window_ns,
        "partition_ns": dict(found.parts_ns),
        "busy": found.busy,
        "peak_bytes": one.peak_bytes,
        "rel_l2": one.error,
    }


def trace_info(result: SweepResult, one: Variant) -> TraceInfo:
    """What a trace says of where it comes from."""
    device = result.device
    return TraceInfo(
        device.name, device.evidence, f"{result.workload} [{one.candidate.key}]", device.memory_bytes, device.software
    )


def write_traces(result: SweepResult, run_dir: Path) -> None:
    """`traces/<variant>.pt.trace.json.gz` for Perfetto, and the same for TensorBoard's profiler plug-in."""
    for number, (name, one) in enumerate(result.variants.items()):
        info = trace_info(result, one)
        flows = chunk_flows(capture(result.workload, one.candidate.split))
        write_chrome(one.events, run_dir / "traces" / f"{name}.pt.trace.json.gz", info, flows)
        write_tensorboard(one.events, run_dir / "tb" / "traces", info, worker=name, time_ns=number)


def write_all(result: SweepResult, run_dir: Path, command: str) -> None:
    """Every file of a run but the journal, which is written as the sweep goes."""
    write_trials(result, run_dir / "trials.parquet")
    write_profile(result, run_dir / "profile.json")
    write_traces(result, run_dir)
    write_scalars(scalar_rows(result), run_dir / "tb")
    write_report(report_data(result, command), run_dir / "report.html")
    # Last: a tuned config is there only if everything that explains it is.
    save(build_tuned(result), run_dir / "tuned.yaml")

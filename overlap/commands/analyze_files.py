"""The files of an analysis: `analysis.json`, the report, event tables, and traces for Perfetto."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from overlap import __version__
from overlap.analysis.advice import NOT_ADDITIVE
from overlap.analysis.partition import Partition
from overlap.analysis.trace_report import DiffData, TraceReportData, write_trace_report
from overlap.analysis.trace_sections import DeviceData, Roofline
from overlap.commands.analyze_nodes import HW_CSV, as_vendor_csv, beside_vendor
from overlap.commands.analyze_run import READING, AnalysisResult, Named, Source
from overlap.files import write_atomic
from overlap.traces.chrome import TraceInfo, write_chrome
from overlap.traces.find import rank_name
from overlap.traces.table import table_bytes

SCHEMA = "overlap.analysis/1"
# Devices whose vendor has the tool that its figures are of.
_GAUDI = re.compile(r"gaudi|hpu|accel|hl-\d", re.I)


def write_analysis(result: AnalysisResult, run_dir: Path) -> None:
    """Write all of them; raises `RunDirError`."""
    write_atomic(run_dir / "analysis.json", json.dumps(content(result), indent=1, allow_nan=False).encode())
    # Packing a large trace takes as long as drawing the report, and neither needs Python's lock for long.
    with ThreadPoolExecutor(1) as beside:
        traces = beside.submit(_write_traces, result, run_dir / "traces")
        write_trace_report(report_data(result), run_dir / "report.html")
        traces.result()


def _write_traces(result: AnalysisResult, folder: Path) -> None:
    for stem, source in _stems(result.sources):
        write_atomic(folder / f"{stem}.parquet", table_bytes(source.trace))
        if result.root.perfetto:
            about = source.trace.about
            info = TraceInfo(", ".join(dict.fromkeys(about.devices.values())), about.evidence, about.source)
            path = folder / f"{stem}.perfetto.json.gz"
            write_chrome(source.trace.events, path, info, samples=source.trace.counters)
        if source.trace.about.format == HW_CSV:
            write_atomic(folder / f"{stem}_analyzed_nodes.csv", as_vendor_csv(source.trace.events))


def content(result: AnalysisResult) -> dict[str, Any]:
    """What `analysis.json` says: over all devices, then per device."""
    return {
        "schema": SCHEMA,
        "evidence": result.evidence,
        "trace": result.root.trace,
        "window": result.root.window,
        **_partition(result.partition),
        "seconds": round(result.seconds, 3),
        "devices": [_device(one) for one in result.devices],
        "sources": [_about(source) for source in result.sources],
        "skipped": list(result.skipped),
        "diff": _diff(result),
        "analyzed_nodes": {source.path.name: found for source in result.sources if (found := beside_vendor(source))},
        "overlap": __version__,
    }


def _partition(part: Partition) -> dict[str, Any]:
    engines = sorted({engine for key in part.parts_ns for engine in key.split("+")} - {"idle"})
    return {
        "window_ns": part.window_ns,
        "partition_ns": dict(part.parts_ns),
        "busy": part.busy,
        "busy_ns": {engine: part.busy_ns(engine) for engine in engines},
        "both_ns": part.both_ns,
        "exposed_ns": {"MME": part.exposed_mme_ns, "TPC": part.exposed_tpc_ns},
    }


def _device(one: Named) -> dict[str, Any]:
    device, advised = one.device, one.device.advised
    return {
        "name": one.name,
        "device": device.index,
        "hardware": device.name,
        "source": one.source.path.name,
        "evidence": one.source.trace.about.evidence,
        "start_ns": device.partition.start_ns,
        **_partition(device.partition),
        "iterations": device.steps,
        "rows_outside_the_window": device.outside,
        "least_window_ns": advised.least_window_ns,
        "advice": [
            {
                "title": advice.title,
                "saves_at_most_ns": advice.saves_at_most_ns,
                "of_window": advice.of_window,
                "evidence": list(advice.evidence),
                "knob": advice.knob,
                "caveat": advice.caveat,
            }
            for advice in advised.advice
        ],
        "notes": list(advised.notes),
        "checks": [
            {"name": check.name, "ok": check.ok, "detail": check.detail, "count": check.count}
            for check in device.checks
        ],
        **{
            name: _rows(frame)
            for name, frame in (
                *(("engines", device.balance), ("lanes", device.lanes), ("phases", device.phases)),
                *(("layers", device.layers), ("tpc_definitions", device.tpc), ("gaps", device.gap_summary)),
                *(("pairs", device.pairs.head(50)), ("ops", device.names.head(100)), ("vendor", device.vendor)),
                ("roofline", device.roofline.head(100)),
            )
        },
    }


def _rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame; what JSON cannot say (nan) is null."""
    floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    return frame.with_columns(pl.when(pl.col(name).is_finite()).then(name) for name in floats).to_dicts()


def _about(source: Source) -> dict[str, Any]:
    about = source.trace.about
    return {
        "file": str(source.path),
        "format": about.format,
        "evidence": about.evidence,
        "rows": about.rows,
        "events": source.trace.events.height,
        "origin_ns": about.origin_ns,
        "dropped": dict(about.dropped),
        "warnings": list(about.warnings),
    }


def _diff(result: AnalysisResult) -> dict[str, Any] | None:
    compared = result.compared
    if compared is None:
        return None
    names = {"before": compared.before, "after": compared.after}
    return {**names, "summary": _rows(compared.summary), "changes": _rows(compared.changes.head(200))}


def _stems(sources: Sequence[Source]) -> list[tuple[str, Source]]:
    """A file name for each source."""
    found: dict[str, Source] = {}
    for source in sources:
        stem = name = rank_name(source.path)
        number = 2
        while name in found:
            name, number = f"{stem}-{number}", number + 1
        found[name] = source
    return list(found.items())


def report_data(result: AnalysisResult) -> TraceReportData:
    """What the page shows."""
    compared = result.compared
    checks = {
        (check.ok, f"{check.name}: {check.detail}")
        for one in result.devices
        for check in one.device.checks
        if check.ok or check.name != READING
    }
    dropped: dict[str, int] = {}
    for source in result.sources:
        for reason, count in source.trace.about.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    return TraceReportData(
        title=Path(result.root.trace).name or result.root.trace,
        evidence=result.evidence,
        devices=[_device_data(one) for one in result.devices],
        created=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        command=f"overlap analyze trace={result.root.trace}" + (f" diff={result.root.diff}" if compared else ""),
        method=[
            "Times are integers of nanoseconds; a partition sums to its window exactly.",
            "Busy of an engine is the union of its lanes, so rows that overlap count once.",
            NOT_ADDITIVE,
        ],
        health=[("ok" if ok else "warning", sentence) for ok, sentence in sorted(checks)],
        dropped=dropped,
        rows=sum(source.trace.about.rows for source in result.sources),
        warnings=[sentence for source in result.sources for sentence in source.trace.about.warnings],
        diff=DiffData(compared.before, compared.after, compared.summary, compared.changes) if compared else None,
        software={"overlap": __version__, "polars": pl.__version__},
    )


def _device_data(one: Named) -> DeviceData:
    device = one.device
    return DeviceData(
        name=one.name,
        partition=device.partition,
        over_time=device.over_time,
        advised=device.advised,
        ops=device.names,
        phases=device.phases,
        layers=device.layers,
        pairs=device.pairs,
        lanes=device.lanes,
        balance=device.balance,
        gaps=device.gaps,
        gap_summary=device.gap_summary,
        tpc=device.tpc,
        vendor=device.vendor if _GAUDI.search(device.name) else None,
        roofline=_roofline(one),
    )


def _roofline(one: Named) -> Roofline | None:
    points, peaks = one.device.roofline, one.device.peaks
    if points.is_empty() or peaks is None:
        return None
    return Roofline(points, peaks.flops_per_s, peaks.bytes_per_s, f"Peaks of {peaks.name}: {peaks.source.rstrip('.')}.")

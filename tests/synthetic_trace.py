"""Made-up traces and reports of them: SYNTHETIC, nothing here was measured."""

from __future__ import annotations

import random
from dataclasses import replace

import polars as pl

from overlap.analysis.advice import advise
from overlap.analysis.advice_rules import Findings
from overlap.analysis.buckets import busy_over_time
from overlap.analysis.diff import by_name, diff, summary
from overlap.analysis.lane_use import lane_use
from overlap.analysis.ops import op_table
from overlap.analysis.partition import partition
from overlap.analysis.trace_report import DiffData, TraceReportData
from overlap.analysis.trace_sections import DeviceData, Roofline
from overlap.analysis.vendor.perf_tool import perf_tool
from overlap.traces.schema import EVENTS, HOST, filled

EVIL = "<script>alert(1)</script>&\"'</td>"
LONG = (
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, std::array<char*, 3>>(int)"
)
# (engine, kind, phase of attention, length in ns, lanes) of one layer.
LAYER = (
    ("MME", "qkv_gemm", "projection", 210_000, 2),
    ("DMA", "DmaTranspose", "copy", 40_000, 1),
    ("TPC", "rope_fwd_bf16", "rope", 60_000, 24),
    ("MME", "batch_gemm_qk", "qk", 120_000, 2),
    ("TPC", "softmax_fwd_bf16", "softmax", 260_000, 24),
    ("MME", "batch_gemm_pv", "pv", 110_000, 2),
    ("TPC", EVIL, "norm", 50_000, 6),
    ("MME", "mlp_gemm", "mlp", 400_000, 2),
    ("TPC", LONG, "mlp", 180_000, 24),
    ("NIC", "all_reduce", "collective", 90_000, 4),
)


def trace(layers: int = 6, seed: int = 0, softmax: float = 1.0, ahead: float = 0.15) -> pl.DataFrame:
    """Event table of a few layers with a column `attention_phase`; an op starts a bit before the one before it ends."""
    draw = random.Random(seed)
    rows, now = [], 1_000_000
    for layer in range(layers):
        for step, (engine, kind, phase, length, lanes) in enumerate(LAYER):
            took = int(length * draw.uniform(0.9, 1.1) * (softmax if phase == "softmax" else 1.0))
            gap = draw.choice([300, 2_000, 5_000]) if draw.random() < 0.8 else 150_000
            start = now + gap if draw.random() < 0.5 else now - int(took * ahead)
            for lane in range(lanes):
                tail = int(took * draw.uniform(0.0, 0.1))
                rows.append(
                    {"engine": engine, "lane": f"{engine} {lane}", "name": f"layer{layer}.{kind}", "kind": kind,
                     "op_id": layer * 100 + step, "layer": layer, "start_ns": start,
                     "end_ns": start + took - tail, "attention_phase": phase, "correlation": -1}
                )  # fmt: skip
            now = start + took
    frame = pl.DataFrame(rows, schema_overrides=EVENTS)
    return filled(frame).with_columns(frame["attention_phase"])


def host_rows(window: tuple[int, int]) -> pl.DataFrame:
    start, end = window
    rows = [("enumerate(DataLoader)#1", start, start + 90_000), ("aten::copy_", start + 50_000, start + 160_000),
            ("synGraphCompile", end - 400_000, end - 100_000)]  # fmt: skip
    return filled(pl.DataFrame(rows, schema=["name", "start_ns", "end_ns"], orient="row"), HOST)


def ops_of(events: pl.DataFrame) -> pl.DataFrame:
    phases = events.group_by("op_id").agg(pl.col("attention_phase").first())
    return op_table(events).join(phases, on="op_id", how="left")


def idle_gaps(events: pl.DataFrame) -> pl.DataFrame:
    """Gaps between ops, in the form that the report takes."""
    ordered = events.sort("start_ns").with_columns(pl.col("end_ns").cum_max().shift(1).alias("reach_ns"))
    gaps = ordered.filter(pl.col("start_ns") > pl.col("reach_ns"))
    size = pl.when(pl.col("start_ns") - pl.col("reach_ns") > 50_000).then(pl.lit("macro")).otherwise(pl.lit("micro"))
    return gaps.select(
        (pl.col("start_ns") - pl.col("reach_ns")).alias("length_ns"),
        size.alias("size"),
        pl.lit("softmax_fwd_bf16").alias("before"),
        pl.col("kind").alias("after"),
    )


def device(name: str, events: pl.DataFrame) -> DeviceData:
    """All parts of a device's sections."""
    part, ops, gaps = partition(events), ops_of(events), idle_gaps(events)
    window = (part.start_ns, part.end_ns)
    times = pl.col("duration_ns", "exposed_ns", "hidden_ns").sum()
    lane = events.group_by("engine", "lane").agg((pl.col("end_ns") - pl.col("start_ns")).sum().alias("busy_ns"))
    pairs = ops.filter(engine="TPC").group_by("kind").agg(pl.col("hidden_ns").sum().alias("overlap_ns"))
    points = ops.group_by("engine", pl.col("kind").alias("name")).agg(pl.col("duration_ns").sum())
    findings = Findings(part, ops, gaps, lane_use(events, ops), {"Compile Time": 300_000})
    return DeviceData(
        name=name,
        partition=part,
        over_time=busy_over_time(events, most=300),
        advised=advise(findings),
        ops=by_name(ops),
        phases=ops.group_by("attention_phase", "engine").agg(times).sort("duration_ns", descending=True),
        layers=ops.group_by("layer", "engine").agg(times).sort("layer", "engine"),
        pairs=pairs.select(
            pl.lit("MME").alias("engine_a"), pl.lit("mlp_gemm").alias("kind_a"), pl.lit("TPC").alias("engine_b"),
            pl.col("kind").alias("kind_b"), "overlap_ns",
        ),
        lanes=lane.with_columns((pl.col("busy_ns") / part.window_ns).alias("share")),
        balance=lane.group_by("engine").agg(pl.len().alias("lanes"), pl.col("busy_ns").max()).sort("engine"),
        gaps=gaps,
        gap_summary=gaps.group_by("size").agg(pl.len().alias("gaps"), pl.col("length_ns").sum()).sort("size"),
        tpc=pl.DataFrame({"busy until": ["end of op", "end of last write"], "tpc_ns": [3_000_000, 3_100_000]}),
        vendor=perf_tool(events, host_rows(window), window),
        roofline=Roofline(
            points.with_columns(
                pl.int_range(1, pl.len() + 1).cast(pl.Float64).alias("flops_per_byte"),
                (pl.col("duration_ns") * 5e6).alias("flops_per_s"),
            ),
            {"MME": 432e12, "TPC": 11e12}, 2.45e12, "Peaks: made up.",
        ),
    )  # fmt: skip


def report(ranks: int = 1) -> TraceReportData:
    """A page with every section."""
    one, other = trace(), trace(seed=1, softmax=0.7, ahead=0.5)
    before, after = ops_of(one), ops_of(other)
    return TraceReportData(
        title=f"SYNTHETIC {EVIL}.pt.trace.json",
        evidence="synthetic",
        devices=[device(f"rank {rank}, {EVIL}", trace(seed=rank)) for rank in range(ranks)],
        created="2026-11-23",
        command=f"overlap analyze {EVIL}",
        method=["Every number is the length of a union of intervals, in whole ns.", EVIL],
        health=[("ok", "All lanes have rows."), ("warning", f"3 rows of {EVIL} overlap on one lane.")],
        dropped={"end without begin": 3, f"zero length {EVIL}": 12},
        rows=1_234_567,
        warnings=[f"2 clocks differ by 4 ns: {EVIL}"],
        diff=DiffData(f"before {EVIL}", "after", summary(partition(one), partition(other)), diff(before, after)),
        software={"overlap": "0"},
    )


def bare() -> TraceReportData:
    """A page with nothing but partitions."""
    full = report()
    empty = [DeviceData(one.name, one.partition) for one in full.devices]
    return replace(full, devices=empty, diff=None, health=(), dropped={}, rows=0, warnings=(), method=())

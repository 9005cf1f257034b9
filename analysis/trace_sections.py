"""The sections of one device in the report of a trace; each is left out where its part is missing or empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

import polars as pl

from overlap.analysis.advice import NOT_ADDITIVE, Advice, Advised
from overlap.analysis.buckets import length_bins
from overlap.analysis.figures.engines_over_time import engines_over_time
from overlap.analysis.figures.gap_hist import gap_hist
from overlap.analysis.figures.lane_load import lane_load
from overlap.analysis.figures.pair_heat import pair_heat
from overlap.analysis.figures.phase_bars import phase_bars
from overlap.analysis.figures.roofline_plot import roofline_plot
from overlap.analysis.html import figure_html, folded, listed, marked, scroll, section, table_html
from overlap.analysis.numbers import share_text, time_text
from overlap.analysis.partition import Partition
from overlap.traces.names import OTHER

TOP_OPS = 25


@dataclass(frozen=True)
class Roofline:
    """Points and roof as `figures.roofline_plot` takes them; `note` says where the peaks are from."""

    points: pl.DataFrame
    peak_flops: Mapping[str, float] = field(default_factory=dict)
    peak_bytes_per_s: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class DeviceData:
    """What one device did; all but name and partition may be missing.

    Args:
        name: such as `rank 0, GAUDI3`.
        partition: of the window.
        over_time: `buckets.busy_over_time`.
        advised: `advice.advise`.
        ops: `diff.by_name` of the op table.
        phases: columns `attention_phase, engine, exposed_ns, hidden_ns`; others are shown in the table.
        layers: per layer; every column is shown.
        pairs: columns `engine_a, kind_a, engine_b, kind_b, overlap_ns`.
        lanes: columns `engine, lane, busy_ns, share`.
        balance: per engine; every column is shown.
        gaps: column `length_ns`.
        gap_summary: every column is shown.
        tpc: busy TPC under both definitions (to the end of the op, to the end of its last write); every column.
        vendor: `vendor.perf_tool.perf_tool`.
        roofline: see there.
    """

    name: str
    partition: Partition
    over_time: pl.DataFrame | None = None
    advised: Advised | None = None
    ops: pl.DataFrame | None = None
    phases: pl.DataFrame | None = None
    layers: pl.DataFrame | None = None
    pairs: pl.DataFrame | None = None
    lanes: pl.DataFrame | None = None
    balance: pl.DataFrame | None = None
    gaps: pl.DataFrame | None = None
    gap_summary: pl.DataFrame | None = None
    tpc: pl.DataFrame | None = None
    vendor: pl.DataFrame | None = None
    roofline: Roofline | None = None


def device_sections(device: DeviceData) -> list[str]:
    """Sections as HTML, in the order of a reader's questions: when, what to do, which ops, where exactly, how sure."""
    made = [_over_time(device), _advice(device), _ops(device), _phases(device), _layers(device), _pairs(device)]
    made += [_lanes(device), _gaps(device), _tpc(device), _vendor(device), _roofline(device)]
    return [one for one in made if one]


def _some(frame: pl.DataFrame | None) -> pl.DataFrame | None:
    """The frame if it has rows."""
    return None if frame is None or frame.is_empty() else frame


def _over_time(device: DeviceData) -> str:
    if (frame := _some(device.over_time)) is None:
        return ""
    note = f"Busy share in each of {frame.height} pieces of the window; exact integrals, no samples."
    return section("Engines over time", figure_html(engines_over_time(frame)), note)


def _advice(device: DeviceData) -> str:
    advised = device.advised
    if advised is None:
        return ""
    rows = "".join(_advice_row(one) for one in advised.advice)
    head = '<tr><th>what</th><th>saves at most</th><th class="t">because</th><th class="t">how</th></tr>'
    table = scroll(f'<table class="advice"><thead>{head}</thead><tbody>{rows}</tbody></table>') if rows else ""
    least = (
        f"No order of the same ops, each as fast as here, takes less than {time_text(advised.least_window_ns)}: "
        "one engine is busy that long."
    )
    nothing = "" if rows else "<p>Nothing that is worth half a percent of the window was found.</p>"
    note = NOT_ADDITIVE if rows else ""
    return section("What could be saved", table + nothing + listed([least, *advised.notes]), note)


def _advice_row(one: Advice) -> str:
    return (
        f"<tr><td>{escape(one.title)}<small>{escape(one.caveat)}</small></td>"
        f'<td class="n" title="{one.saves_at_most_ns:,} ns">'
        f"{escape(time_text(one.saves_at_most_ns))}<small>{escape(share_text(one.of_window))}</small></td>"
        f'<td class="t">{listed(one.evidence)}</td><td class="t">{marked(one.knob)}</td></tr>'
    )


def _ops(device: DeviceData) -> str:
    if (frame := _some(device.ops)) is None:
        return ""
    titles = {
        "name": "op",
        "engine": "engine",
        "count": "launches",
        "duration_ns": "time",
        "exposed_ns": "exposed",
        "hidden_ns": "hidden",
        "median_ns": "median launch",
    }
    note = "Most exposed time first, under names without numbers of compilers, layers and iterations."
    return section("Ops", table_html(frame, titles, most=TOP_OPS), note)


def _phases(device: DeviceData) -> str:
    if (frame := _some(device.phases)) is None or set(frame["attention_phase"]) == {OTHER}:
        return ""
    note = "What each part of attention cost, and how much of it the other compute engine hid."
    table = table_html(frame, {name: _said(name) for name in frame.columns}, most=60)
    return section("Attention phases", figure_html(phase_bars(frame)) + folded(table, frame.height), note)


def _layers(device: DeviceData) -> str:
    frame = _some(device.layers)
    if frame is None or ("layer" in frame.columns and not (frame["layer"] >= 0).any()):
        return ""
    table = table_html(_without_sign(frame), most=1000)
    return section("Layers", folded(table, frame.height), "Layer – holds what belongs to no layer.")


def _without_sign(frame: pl.DataFrame) -> pl.DataFrame:
    """Layer -1 is the schema's word for unknown; people get a dash."""
    if "layer" not in frame.columns:
        return frame
    return frame.with_columns(pl.when(pl.col("layer") >= 0).then("layer").alias("layer"))


def _pairs(device: DeviceData) -> str:
    if (frame := _some(device.pairs)) is None:
        return ""
    titles = {
        "kind_a": "kind",
        "engine_a": "on",
        "kind_b": "beside",
        "engine_b": "on",
        "overlap_ns": "shared time",
    }
    ranked = frame.sort("overlap_ns", descending=True)
    note = "Kinds of ops that ran at once; a pair counts each moment once."
    figure = figure_html(pair_heat(frame)) if frame.height > 1 else ""
    return section("What ran beside what", figure + table_html(ranked, titles, most=12), note)


def _lanes(device: DeviceData) -> str:
    lanes, balance = _some(device.lanes), _some(device.balance)
    if lanes is None and balance is None:
        return ""
    content = figure_html(lane_load(lanes)) if lanes is not None else ""
    content += table_html(balance) if balance is not None else ""
    return section("Lanes", content, "How busy each hardware instance was, as a share of the window.")


def _gaps(device: DeviceData) -> str:
    gaps, totals = _some(device.gaps), _some(device.gap_summary)
    content = figure_html(gap_hist(length_bins(gaps["length_ns"]))) if gaps is not None else ""
    content += table_html(totals) if totals is not None else ""
    if gaps is not None:
        titles = {"length_ns": "length", "size": "size", "before": "after op", "after": "before op"}
        longest = table_html(gaps.sort("length_ns", descending=True).head(10), titles)
        content += f"<h3>The longest</h3>{longest}"
    return section("Idle gaps", content, "Stretches in which no engine was busy.") if content else ""


def _tpc(device: DeviceData) -> str:
    if (frame := _some(device.tpc)) is None or frame.height < 2:
        return ""
    note = "An op ends when its last instruction does, or when its last write has landed; the window is the same."
    titles = {name: _said(name).replace("mme", "MME").replace("tpc", "TPC") for name in frame.columns}
    return section("Busy TPC by two definitions", table_html(frame, titles), note)


def _vendor(device: DeviceData) -> str:
    if (frame := _some(device.vendor)) is None:
        return ""
    titles = {
        "name": "habana_perf_tool",
        "vendor_ns": "its figure",
        "vendor_share": "its share",
        "honest_name": "here",
        "honest_ns": "figure",
        "honest_share": "of window",
        "relation": "how they relate",
    }
    note = "What the vendor's tool would print for this trace, and what that means."
    return section("The vendor's figures", table_html(frame, titles, most=60), note)


def _roofline(device: DeviceData) -> str:
    roofline = device.roofline
    if roofline is None or roofline.points.is_empty():
        return ""
    figure = roofline_plot(roofline.points, dict(roofline.peak_flops), roofline.peak_bytes_per_s)
    return section("Roofline", figure_html(figure), roofline.note)


def _said(column: str) -> str:
    """A column's name as a title."""
    return column.removesuffix("_ns").replace("_", " ")

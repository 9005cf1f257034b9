"""The report of a trace: one HTML file that opens without a network and says what every device did with its time.

Terms
    part: a frame or value of `DeviceData` or `TraceReportData` that may be None or empty; its section is left out then.
    device: one device of one trace; with several (ranks), a table compares them before their own sections.

Contract: the page computes nothing but shares of given numbers, and all text from files is escaped. Frames may have
more columns than their sections show. Figures come from `figures/`, the sections of a device from
`trace_sections.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import polars as pl

from overlap.analysis.figures.diff_bars import diff_bars
from overlap.analysis.figures.parts import parts
from overlap.analysis.figures.style import plain, short
from overlap.analysis.html import badge, document, figure_html, listed, section, sentence_table, table_html
from overlap.analysis.numbers import counted, share_text, time_text
from overlap.analysis.page import TRACE_GLOSSARY
from overlap.analysis.partition import IDLE, Partition
from overlap.analysis.trace_sections import DeviceData, device_sections
from overlap.files import write_atomic
from overlap.traces.sweep import ENGINES

# Devices with sections of their own; a page of more opens slowly.
MOST_DEVICES = 32


@dataclass(frozen=True)
class DiffData:
    """Two traces compared: `summary` and `changes` are those of `overlap.analysis.diff`."""

    before: str
    after: str
    summary: pl.DataFrame
    changes: pl.DataFrame


@dataclass(frozen=True)
class TraceReportData:
    """What the page shows.

    Args:
        title: such as the file's name.
        evidence: measured, simulated or synthetic.
        devices: at least one, each with a name of its own.
        created: when; command: how to make the page again; method: sentences.
        health: (`ok`, `warning` or `error`; sentence) per check; a frame is shown as it is.
        dropped: rows of the source that no figure includes, counted by reason.
        warnings: of the reader.
        diff: against another trace.
        software: name → version.
    """

    title: str
    evidence: str
    devices: Sequence[DeviceData]
    created: str = ""
    command: str = ""
    method: Sequence[str] = ()
    health: pl.DataFrame | Sequence[tuple[str, str]] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    warnings: Sequence[str] = ()
    diff: DiffData | None = None
    software: Mapping[str, str] = field(default_factory=dict)


def write_trace_report(data: TraceReportData, path: Path) -> None:
    """Write the page, atomically; raises `RunDirError` where that is impossible."""
    write_atomic(path, trace_page(data).encode())


def trace_page(data: TraceReportData) -> str:
    """The page as text.

    Raises:
        ValueError: without a device, or if two devices share a name.
    """
    names = [device.name for device in data.devices]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a page needs devices with names of their own, not {names}")
    partitions = {device.name: device.partition for device in data.devices}
    sections = [
        _headline(data),
        section(
            "Where the time went",
            figure_html(parts(_drawn(partitions))),
            "Exposed and both whatever else ran; DMA, then NIC, only while no compute engine did.",
        ),
        _comparison(data.devices) if len(names) > 1 else "",
        _diff(data.diff) if data.diff is not None else "",
    ]
    for number, device in enumerate(data.devices[:MOST_DEVICES]):
        if len(names) > 1:
            sections.append(f'<h2 class="device" id="device{number}">{escape(device.name)}</h2>')
        sections += device_sections(device)
    if len(names) > MOST_DEVICES:
        left = counted(len(names) - MOST_DEVICES, "more device")
        sections.append(f'<p class="muted">Sections of {left} are left out; analysis.json has all devices.</p>')
    sections += [_trust(data), _method(data)]
    return document(data.title, "\n".join(one for one in sections if one))


def _drawn(partitions: Mapping[str, Partition]) -> dict[str, Partition]:
    """Partitions with few parts, under names that Plotly draws as they are and that stay apart when cut short."""
    names = [short(name, 24) for name in partitions]
    names = names if len(set(names)) == len(names) else [plain(name) for name in partitions]
    return dict(zip(names, map(_grouped, partitions.values()), strict=True))


def _grouped(part: Partition) -> Partition:
    """The window cut into both, exposed MME, exposed TPC and, while neither runs, the first engine that does."""
    times: dict[str, int] = {}
    for key, time_ns in part.parts_ns.items():
        busy = set(key.split("+"))
        group = "MME+TPC" if {"MME", "TPC"} <= busy else next((one for one in ENGINES if one in busy), IDLE)
        times[group] = times.get(group, 0) + time_ns
    # Both stands between what is exposed.
    order = sorted(times, key=lambda group: {"MME": 0, "MME+TPC": 1, "TPC": 2}.get(group, 3))
    return Partition(part.start_ns, part.end_ns, {group: times[group] for group in order})


def _headline(data: TraceReportData) -> str:
    """Both in large, the figures beside it in small; over all devices where there are several."""
    parts_of = [device.partition for device in data.devices]
    window_ns = sum(part.window_ns for part in parts_of)

    def share(time_ns: int) -> float:
        return time_ns / window_ns if window_ns else 0.0

    times = {
        "MME busy": sum(part.busy_ns("MME") for part in parts_of),
        "TPC busy": sum(part.busy_ns("TPC") for part in parts_of),
        "exposed MME": sum(part.exposed_mme_ns for part in parts_of),
        "exposed TPC": sum(part.exposed_tpc_ns for part in parts_of),
        "fused kernels": sum(part.busy_ns("FUSED") for part in parts_of),
        "unknown engines": sum(part.busy_ns("OTHER") for part in parts_of),
        "idle": sum(part.idle_ns for part in parts_of),
    }
    both = share(sum(part.both_ns for part in parts_of))
    shown = {
        name: time_ns for name, time_ns in times.items() if time_ns or name not in ("fused kernels", "unknown engines")
    }
    small = "".join(
        f"<div><b>{escape(share_text(share(time_ns)))}</b>"
        f"<span>{escape(name)}, {escape(time_text(time_ns))}</span></div>"
        for name, time_ns in shown.items()
    )
    devices = data.devices[0].name if len(data.devices) == 1 else f"{len(data.devices)} devices"
    below = f"of {time_text(window_ns)} had both engines busy" + (" (all devices)" if len(data.devices) > 1 else "")
    return (
        f"<header><h1>{escape(data.title)}</h1><p class='muted'>{escape(devices)}</p></header>"
        f'<section class="top"><div class="big{"" if both else " none"}"><b>{escape(share_text(both))}</b>'
        f'{badge(data.evidence)}<p>{escape(below)}</p></div><div class="kpis">{small}</div></section>'
    )


def _comparison(devices: Sequence[DeviceData]) -> str:
    """A row per device."""
    rows = []
    for device in devices:
        part = device.partition
        shares = (part.busy_ns("MME"), part.busy_ns("TPC"), part.both_ns, part.exposed_mme_ns, part.exposed_tpc_ns)
        rows.append((device.name, part.window_ns, *(part.fraction(time_ns) for time_ns in (*shares, part.idle_ns))))
    titles = {"device": "device", "window_ns": "window"}
    titles |= {f"{name} share": name for name in ("MME busy", "TPC busy", "both", "exposed MME", "exposed TPC", "idle")}
    frame = pl.DataFrame(rows, schema=list(titles), orient="row")
    return section("Devices side by side", table_html(frame, titles, most=1024), "Shares are of each device's window.")


def _diff(diff: DiffData) -> str:
    summary = {"name": "", "a_ns": "before", "b_ns": "after", "delta_ns": "change", "a_share": "before, share"}
    changes = {
        "name": "op",
        "engine": "engine",
        "status": "",
        "count_a": "launches before",
        "count_b": "after",
        "duration_a_ns": "time before",
        "duration_b_ns": "after",
        "delta_ns": "change",
        "exposed_delta_ns": "change of exposed",
    }
    content = table_html(diff.summary, {**summary, "b_share": "after, share"})
    if not diff.changes.is_empty():
        content += f"<h3>What moved most</h3>{figure_html(diff_bars(diff.changes))}{table_html(diff.changes, changes)}"
    note = f"Before: {diff.before}. After: {diff.after}. Shares are of each trace's own window."
    return section("What changed", content, note)


def _trust(data: TraceReportData) -> str:
    """Health of the trace and everything that no figure includes."""
    content = ""
    health = data.health
    if isinstance(health, pl.DataFrame):
        content += table_html(health, most=100) if health.height else ""
    elif health:
        content += sentence_table("result", "check", health)
    content += listed(data.warnings)
    lost = sum(data.dropped.values())
    of = f" of {data.rows:,} rows" if data.rows else ""
    content += f"<p>{lost:,}{of} are in no figure.</p>" if data.rows or lost else ""
    if data.dropped:
        rows = pl.DataFrame(sorted(data.dropped.items()), schema=["dropped because", "rows"], orient="row")
        content += table_html(rows, most=100)
    return section("How far to trust this", content, "Checks of the trace, and what was left out.") if content else ""


def _method(data: TraceReportData) -> str:
    software = ", ".join(f"{name} {version}" for name, version in data.software.items())
    made = "; ".join(text for text in (data.created, software) if text)
    command = f"<p><code>{escape(data.command)}</code></p>" if data.command else ""
    made = f'<p class="muted">{escape(made)}</p>' if made else ""
    words = f"<h3>Words</h3><p>{TRACE_GLOSSARY}</p>"
    return section("How this was made", listed(data.method) + command + made + words)

"""The summary of the vendor's `habana_perf_tool` beside the figures that it stands for.

The tool prints one number per engine and leaves out how they relate. What its public outputs for Gaudi2 imply, row by
row (`tests/test_vendor_perf_tool.py` has them):

    MME total       busy MME
    TPC total       busy TPC without the time that it shares with the MME
    DMA total       busy DMA, also while other engines are busy
    Idle total      device time - (MME total + TPC total + DMA total), not printed where that is negative
    Device/Host     device time / total time of the steps

Terms
    device time: per step from the first start to the last end on the device, summed over the steps.
    step: an iteration of the host's loop; the whole window where none is known.
    vendor figure: null where the tool's own rule is not public; its `relation` says so.

Contract: exact int64 ns; all honest figures are of the window, so vendor figures are theirs if the steps fill it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from overlap.analysis.intervals import Islands, clipped, islands, shared_ns, union
from overlap.analysis.partition import Partition, partition
from overlap.analysis.unions import Unions, engine_unions, union_of
from overlap.traces.schema import MODULE
from overlap.traces.sweep import Window

SUMMARY = pl.Schema(
    {
        "name": pl.String,
        "vendor_ns": pl.Int64,
        "vendor_share": pl.Float64,
        "honest_name": pl.String,
        "honest_ns": pl.Int64,
        "honest_share": pl.Float64,
        "relation": pl.String,
    }
)

# Host lines of the tool: (its name, ours, rows of the host that count, what to say). Compiled regions of torch.compile
# are left out on purpose: that is compiled code running, not code being compiled.
NOT_PUBLIC = "The tool's own rule is not public."
HOST_LINES = (
    ("Graph Build", "", "", f"{NOT_PUBLIC} The bridge builds graphs within other host rows, so rows cannot tell."),
    ("DataLoader", "host waits for the data loader", r"(?i)dataloader", NOT_PUBLIC),
    ("Input Time", "host in tensor copies", r"(?i)^aten::(_to_copy|to|copy_|_copy_from)$", NOT_PUBLIC),
    (
        "Compile Time",
        "host compiles graphs",
        r"(?i)graph_?compile|compile_?graph|compile_fx|recompil|^compile\b",
        NOT_PUBLIC,
    ),
)


# Rows that name a stretch of time; nothing need have been done in it.
_ANNOTATIONS = ("user_annotation", "gpu_user_annotation")


@dataclass(frozen=True)
class Honest:
    """Busy times of a window as unions, the device's time and the steps' total time."""

    device_ns: int
    total_ns: int
    mme_ns: int
    tpc_ns: int
    both_ns: int
    dma_ns: int


def vendor_times(honest: Honest) -> dict[str, int | None]:
    """What the tool prints for these times, by its names; None for a line that it leaves out."""
    tpc_total = honest.tpc_ns - honest.both_ns
    idle = honest.device_ns - (honest.mme_ns + tpc_total + honest.dma_ns)
    return {
        "Device/Host ratio": honest.device_ns,
        "MME total": honest.mme_ns,
        "MME/TPC overlap": honest.both_ns,
        "TPC total": tpc_total,
        "DMA total": honest.dma_ns,
        "Idle total": idle if idle >= 0 else None,
    }


def perf_tool(
    events: pl.DataFrame,
    host: pl.DataFrame,
    window: Window,
    steps: pl.DataFrame | None = None,
    unions: Unions | None = None,
) -> pl.DataFrame:
    """The tool's lines and ours.

    Args:
        events: an event table of one device (`overlap.traces.schema`).
        host: a host table; without rows the host's lines are null.
        window: (start_ns, end_ns) of the honest figures.
        steps: `start_ns, end_ns` of each iteration; the window itself where it is None or empty.
        unions: `engine_unions` of events and window, where they are known already.

    Returns:
        `name, vendor_ns, vendor_share, honest_name, honest_ns, honest_share, relation`. Vendor shares are of device
        time (of total time for Device/Host ratio), honest ones of the window.

    Raises:
        ValueError: for an unknown engine or a window that ends before it starts.
    """
    unions = engine_unions(events, window) if unions is None else unions
    busy = union_of(unions)
    part = partition(events, window, unions)
    rows = [*_device_lines(part, busy, steps), *_host_lines(host, busy, window)]
    return pl.DataFrame(rows, schema=SUMMARY, orient="row")


_Line = tuple[str, int | None, float | None, str, int | None, float | None, str]


def _device_lines(part: Partition, device: Islands, steps: pl.DataFrame | None) -> Iterator[_Line]:
    device_ns, total_ns = _device_time(device, (part.start_ns, part.end_ns), steps)
    busy = {engine: part.busy_ns(engine) for engine in ("MME", "TPC", "DMA")}
    theirs = vendor_times(Honest(device_ns, total_ns, busy["MME"], busy["TPC"], part.both_ns, busy["DMA"]))
    rest = part.window_ns - part.idle_ns - sum(busy.values()) + part.both_ns
    ours = {
        "Device/Host ratio": ("device busy, any engine", part.window_ns - part.idle_ns, _RELATIONS[0]),
        "MME total": ("busy MME", busy["MME"], _RELATIONS[1]),
        "MME/TPC overlap": ("both at once", part.both_ns, _RELATIONS[2]),
        "TPC total": ("busy TPC", busy["TPC"], _RELATIONS[3]),
        "DMA total": ("busy DMA", busy["DMA"], _RELATIONS[4]),
        "Idle total": ("idle, no engine busy", part.idle_ns, _RELATIONS[5] + _what_idle_hides(rest, theirs)),
    }
    for name, (honest_name, honest_ns, relation) in ours.items():
        whole = total_ns if name == "Device/Host ratio" else device_ns
        time = theirs[name]
        share = None if time is None or not whole else time / whole
        yield name, time, share, honest_name, honest_ns, part.fraction(honest_ns), relation
    why = "Needs the data type of every MME op, which an event table does not have."
    yield "MME Lower Precision Ratio", None, None, "", None, None, why


_RELATIONS = (
    "The tool counts a step's device time from its first start to its last end, pauses between included.",
    "The same.",
    "The same; the tool gives it as a share of device time, not of the MME's.",
    "The tool leaves out what TPC shares with the MME: busy TPC = TPC total + MME/TPC overlap.",
    "The same; it may run beside the others, so the tool's totals can exceed device time.",
    "The tool takes device time - (MME + TPC + DMA) and prints no line where that is negative",
)


def _what_idle_hides(rest_ns: int, theirs: dict[str, int | None]) -> str:
    """How the tool's idle comes to differ from ours here."""
    if theirs["Idle total"] is None:
        return ", as here."
    return f"; engines that it does not name and DMA beside others shift it here by {rest_ns:,} ns." if rest_ns else "."


def _host_lines(host: pl.DataFrame, device: Islands, window: Window) -> Iterator[_Line]:
    whole = window[1] - window[0]
    names = host["name"].unique()
    missing = "The trace has no host rows."
    for name, honest_name, pattern, relation in HOST_LINES:
        if host.is_empty() or not pattern:
            yield name, None, None, "", None, None, relation if not host.is_empty() else missing
            continue
        spent = _union(
            host.filter(pl.col("name").is_in(names.filter(names.str.contains(pattern)).implode())), window
        ).total_ns
        text = f"{relation} Ours: the union of host rows that match {pattern!r}."
        yield name, None, None, honest_name, spent, spent / whole if whole else 0.0, text
    name = "Device-Host overlapping degree"
    if host.is_empty():
        yield name, None, None, "", None, None, missing
        return
    labels = names.filter(names.str.starts_with(MODULE)).implode()
    work = ~pl.col("kind").is_in(_ANNOTATIONS) & ~pl.col("name").is_in(labels)
    side = shared_ns(device, _union(host.filter(work), window))
    text = f"{NOT_PUBLIC} Ours: time with a host row and a device row at once."
    yield name, None, None, "host and device both busy", side, side / whole if whole else 0.0, text


def host_times(summary: pl.DataFrame) -> dict[str, int]:
    """Known host figures of a `perf_tool` table by the tool's names, for the advice."""
    lines = [name for name, *_ in HOST_LINES]
    known = summary.filter(pl.col("name").is_in(lines) & pl.col("honest_ns").is_not_null())
    return dict(known.select("name", "honest_ns").iter_rows())


def _device_time(device: Islands, window: Window, steps: pl.DataFrame | None) -> tuple[int, int]:
    """(device time, total time) of the steps, clipped to the window."""
    start, end = window
    rows = [window] if steps is None or steps.is_empty() else steps.select("start_ns", "end_ns").rows()
    bounds = np.clip(np.array(rows, dtype=np.int64), start, end)
    bounds = bounds[bounds[:, 1] > bounds[:, 0]]
    # Work of two steps may overlap on the device; no time counts twice.
    apart = islands(bounds[:, 0], bounds[:, 1], touching=False)
    bounds = np.stack((apart.start_ns, apart.end_ns), axis=1)
    total = int((bounds[:, 1] - bounds[:, 0]).sum())
    starts, ends = device.start_ns, device.end_ns
    if not len(starts):
        return 0, total
    # The first interval that is not over when the step begins, and the last that has begun when it ends.
    first = np.searchsorted(ends, bounds[:, 0], side="right")
    last = np.searchsorted(starts, bounds[:, 1], side="left") - 1
    some = first <= last
    spans = np.minimum(ends[last[some]], bounds[some, 1]) - np.maximum(starts[first[some]], bounds[some, 0])
    return int(spans.sum()), total


def _union(rows: pl.DataFrame, window: Window) -> Islands:
    starts, ends, _ = clipped(rows, window)
    return union(starts, ends)

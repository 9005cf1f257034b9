"""Whether a trace can be trusted: what is missing, impossible or outside of the iterations that it is about.

Terms
    step: one iteration of the host's loop, a row `ProfilerStep#N`. Where the trace says when a step's work ran on the
        device (rows of kind `gpu_user_annotation`), those times are taken. Elsewhere they are the host's, and work that
        the device does late counts for the step during which it ran, not for the one that launched it.
    whole step: one during which a device row starts. A profiler only writes down steps that it saw begin and end.
    serial lane: a lane that does one thing at a time: TPC lanes and streams of a GPU. MME, DMA and NIC lanes take up
        work before they are done with the last one.
    overrun: time of a row of a serial lane before an earlier row of that lane has ended.

Contract: every check gives a result, also where there is nothing to check; none of them changes a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from overlap.analysis.intervals import Islands, busy_before, column, islands, union
from overlap.analysis.numbers import counted, share_text, time_text
from overlap.errors import TraceError
from overlap.traces.codes import coded
from overlap.traces.sweep import Window
from overlap.traces.trace import About

HOUR_NS = 3_600_000_000_000
# Shorter rows than this are not called absurd, however short everything else is.
ABSURD_FLOOR_NS = 1_000_000
# Up to so much device time outside of steps, or on engines that no rule knows, is no reason to worry.
TOLERATED = 0.05
DEVICE_STEPS, HOST_STEPS = "gpu_user_annotation", "user_annotation"
_STEP = r"^ProfilerStep#(\d+)$"
_HINT = (
    "add ProfilerActivity.HPU (Gaudi; HABANA_PROFILE must be set) or ProfilerActivity.CUDA to the activities of the "
    "profiler and run a step while it is active"
)


@dataclass(frozen=True)
class Check:
    """Result of one check: `detail` is a sentence for people, `count` how many rows it is about."""

    name: str
    ok: bool
    detail: str
    count: int = 0


def checks(events: pl.DataFrame, host: pl.DataFrame, about: About) -> list[Check]:
    """All checks, in a fixed order.

    Args:
        events: an event table of one device (`overlap.traces.schema`).
        host: the trace's host table; may be empty.
        about: the trace's account of itself.

    Raises:
        TraceError: no row of the device lasts.
    """
    return [
        device_rows(events, host),
        _reading(about),
        lengths(events),
        overruns(events),
        durations(events),
        unknown_engines(events),
        *_steps(events, host),
    ]


def device_rows(events: pl.DataFrame, host: pl.DataFrame) -> Check:
    """The device has work that lasts.

    Raises:
        TraceError: it has none; the hint says what to switch on.
    """
    if not events.select((pl.col("end_ns") > pl.col("start_ns")).any()).item():
        what = (
            f"{counted(events.height, 'row')} on the device, none of which lasts" if events.height else "no device rows"
        )
        raise TraceError(f"{what}, {counted(host.height, 'row')} of the host", _HINT)
    lanes = events.select(pl.struct("engine", "lane").n_unique()).item()
    return Check("device rows", True, f"{counted(events.height, 'row')} on {counted(lanes, 'lane')}", events.height)


def _reading(about: About) -> Check:
    """What the reader could not take; its warnings stand by themselves."""
    lost = sum(about.dropped.values())
    reasons = [f"{reason}: {count:,}" for reason, count in about.dropped.items()]
    detail = (
        f"left out {counted(lost, 'row')} ({', '.join(reasons)})"
        if lost
        else f"all of {counted(about.rows, 'row')} read"
    )
    return Check("reading", not lost, detail, lost)


def lengths(events: pl.DataFrame) -> Check:
    """Rows of length zero, which are never busy, and rows that end before they start, which cannot be."""
    spent = pl.col("end_ns") - pl.col("start_ns")
    zero, negative = events.select((spent == 0).sum().alias("zero"), (spent < 0).sum().alias("negative")).row(0)
    detail = (
        f"{counted(zero, 'row')} of length zero, {counted(negative, 'row')} ending before the start; none is counted"
    )
    return Check("lengths", not negative, detail if zero or negative else "every row lasts", zero + negative)


def overruns(events: pl.DataFrame) -> Check:
    """Rows of serial lanes that start before the lane is free."""
    codes, keys = coded(events, ["engine", "lane"])
    serial = (keys["engine"] == "TPC") | keys["lane"].str.contains(r"(?i)\bstream\b")
    # Work of all engines shares a stream.
    lanes, names = coded(keys, ["lane"])
    starts, ends = column(events, "start_ns"), column(events, "end_ns")
    picked = serial.to_numpy()[codes] & (ends > starts)
    starts, ends, lanes = starts[picked], ends[picked], lanes[codes[picked]]
    # One row starts every such island, so the other rows are those that start too early.
    found = islands(starts, ends, lanes, touching=False)
    early = np.bincount(lanes, minlength=names.height) - np.bincount(found.group, minlength=names.height)
    count, ns = int(early.sum()), int((ends - starts).sum()) - found.total_ns
    if not count:
        used = len(np.unique(found.group))
        return Check("serial lanes", True, f"{counted(used, 'lane')} of TPC or streams, one row at a time on each")
    on = names["lane"].gather(np.flatnonzero(early)).sort().to_list()
    detail = (
        f"{counted(count, 'row')} start before their lane is free, {time_text(ns)} in all, on {', '.join(on[:3])}"
        f"{' and others' if len(on) > 3 else ''}; unions count that time once. GPUs do so on purpose where kernels are "
        "launched ahead of the end of the last one"
    )
    return Check("serial lanes", False, detail, count)


def durations(events: pl.DataFrame) -> Check:
    """Rows longer than an hour, or longer than the time in which everything else happened."""
    starts, ends = column(events, "start_ns"), column(events, "end_ns")
    spent = ends - starts
    longest = int(spent.argmax())
    row = events.row(longest, named=True)
    ns = int(spent[longest])
    hours = int((spent > HOUR_NS).sum())
    others = spent > 0
    others[longest] = False
    low, high = (int(starts[others].min()), int(ends[others].max())) if others.any() else (0, 0)
    # At most one row can be longer than the span of all others.
    beyond = bool(others.any()) and ns > max(high - low, ABSURD_FLOOR_NS)
    count = max(hours, int(beyond))
    if not count:
        return Check("durations", True, f"the longest row lasts {time_text(ns)} (`{row['name']}`)")
    why = "an hour" if hours else f"everything else together ({time_text(high - low)})"
    are = "row lasts" if count == 1 else "rows last"
    return Check("durations", False, f"{count:,} {are} longer than {why}: `{row['name']}`, {time_text(ns)}", count)


def unknown_engines(events: pl.DataFrame) -> Check:
    """Time of rows whose engine no rule knows, as a share of the time of all rows."""
    spent = (pl.col("end_ns") - pl.col("start_ns")).clip(lower_bound=0)
    other = pl.col("engine") == "OTHER"
    count, ns, total = events.select(
        other.sum().alias("rows"), spent.filter(other).sum().alias("other"), spent.sum().alias("all")
    ).row(0)
    if not count:
        return Check("engines", True, "the engine of every row is known")
    names = (
        events.filter(other).group_by("kind").agg(spent.sum().alias("ns")).sort("ns", "kind", descending=[True, False])
    )
    most = ", ".join(f"`{name}`" for name in names["kind"].head(3))
    detail = f"no rule knows the engine of {counted(count, 'row')}, {share_text(ns / total)} of device time: {most}"
    return Check("engines", ns <= TOLERATED * total, detail, count)


def iterations(host: pl.DataFrame) -> pl.DataFrame:
    """Steps of the trace: `step, start_ns, end_ns`, in order of start.

    A step that has several rows (one per stream or thread) reaches from the first start to the last end. Steps that
    the device ran may overlap, since several streams do not change steps at once.
    """
    rows = host.filter(pl.col("kind").is_in([DEVICE_STEPS, HOST_STEPS])).with_columns(
        pl.col("name").str.extract(_STEP, 1).cast(pl.Int64, strict=False).alias("step")
    )
    rows = rows.filter(pl.col("step").is_not_null(), pl.col("end_ns") > pl.col("start_ns"))
    on_device = rows.filter(pl.col("kind") == DEVICE_STEPS)
    chosen = on_device if on_device.height else rows
    span = (pl.col("start_ns").min(), pl.col("end_ns").max())
    return chosen.group_by("step").agg(span).sort("start_ns", "step")


def whole_window(events: pl.DataFrame, host: pl.DataFrame) -> Window | None:
    """From the start of the first to the end of the last whole step; None where there is no whole step."""
    steps = _whole(events, iterations(host))
    if steps.is_empty():
        return None
    return int(steps["start_ns"].min()), int(steps["end_ns"].max())  # type: ignore[arg-type]


def _whole(events: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """Steps during which a device row starts."""
    lasting = events.filter(pl.col("end_ns") > pl.col("start_ns"))
    starts = np.sort(column(lasting, "start_ns"), kind="stable")
    low, high = (np.searchsorted(starts, column(steps, name)) for name in ("start_ns", "end_ns"))
    return steps.filter(pl.Series(high > low, dtype=pl.Boolean))


def _steps(events: pl.DataFrame, host: pl.DataFrame) -> Iterator[Check]:
    """Whether there are steps, and how much of the device's time is outside of them."""
    steps = iterations(host)
    whole = _whole(events, steps)
    if whole.is_empty():
        seen = f"; {counted(steps.height, 'step')} of the host without device work" if steps.height else ""
        yield Check("steps", False, f"no step with device work{seen}: warm-up and pauses are part of the window")
        yield Check("outside of steps", True, "nothing to compare with")
        return
    numbers = whole["step"].to_list()
    where = "device" if (host["kind"] == DEVICE_STEPS).any() else "host"
    empty = (
        f"; {counted(steps.height - whole.height, 'step')} without device work" if whole.height < steps.height else ""
    )
    detail = f"{counted(whole.height, 'whole step')}, {min(numbers)} to {max(numbers)}, by times of the {where}{empty}"
    yield Check("steps", True, detail, whole.height)
    yield _outside(events, union(column(whole, "start_ns"), column(whole, "end_ns")))


def _outside(events: pl.DataFrame, steps: Islands) -> Check:
    starts, ends = column(events, "start_ns"), column(events, "end_ns")
    busy = union(starts, ends)
    inside = busy_before(steps, busy.end_ns) - busy_before(steps, busy.start_ns)
    ns, total = busy.total_ns - int(inside.sum()), busy.total_ns
    count = int(((busy_before(steps, ends) - busy_before(steps, starts)) < ends - starts).sum())
    if not ns:
        return Check("outside of steps", True, "all device time is inside of whole steps")
    what = f"{time_text(ns)}, {counted(count, 'row')}"
    detail = f"{share_text(ns / total)} of busy device time ({what}) is outside of whole steps"
    return Check("outside of steps", ns <= TOLERATED * total, detail, count)

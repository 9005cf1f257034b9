"""What `overlap analyze` computes: every device of every file, and how they differ from an older trace."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from overlap.analysis.diff import diff, summary
from overlap.analysis.partition import Partition
from overlap.analysis.whole import DeviceAnalysis, Look, analyse, together
from overlap.app.config import AnalyzeRoot
from overlap.errors import TraceError
from overlap.traces.cache import default_root
from overlap.traces.engines import engine_rules
from overlap.traces.find import rank_name, trace_files
from overlap.traces.read import read_trace
from overlap.traces.trace import Trace

# The check that repeats what the reader dropped and warned of.
READING = "reading"


@dataclass(frozen=True)
class Source:
    """One file: its trace and its devices."""

    path: Path
    trace: Trace
    devices: Sequence[DeviceAnalysis]


@dataclass(frozen=True)
class Named:
    """A device under a name that no other device of the analysis has, and the file it is from."""

    name: str
    device: DeviceAnalysis
    source: Source


@dataclass(frozen=True)
class Compared:
    """Against the trace before: `summary` and `changes` are those of `overlap.analysis.diff`."""

    before: str
    after: str
    summary: pl.DataFrame
    changes: pl.DataFrame


@dataclass(frozen=True)
class AnalysisResult:
    """All there is to print and write. `skipped` are files of a folder that could not be read, with the reason."""

    root: AnalyzeRoot
    sources: Sequence[Source]
    skipped: Sequence[str] = ()
    compared: Compared | None = None
    seconds: float = 0.0

    @cached_property
    def devices(self) -> list[Named]:
        """Every device of every file."""
        return list(named(self.sources))

    @property
    def evidence(self) -> str:
        """The weakest evidence of all files."""
        found = {source.trace.about.evidence for source in self.sources}
        return next(one for one in ("synthetic", "simulated", "unknown", "measured") if one in found)

    @property
    def parts_ns(self) -> dict[str, int]:
        """Partition over all devices, in device-nanoseconds."""
        return dict(together([one.device.partition for one in self.devices]))

    @property
    def partition(self) -> Partition:
        """The same as one partition, from 0 to the sum of all windows; of one device, its own."""
        if len(self.devices) == 1:
            return self.devices[0].device.partition
        parts = self.parts_ns
        return Partition(0, sum(parts.values()), parts)

    @property
    def sentences(self) -> list[str]:
        """What a reader must know about the data: warnings, checks that failed, and what was dropped."""
        found = [f"skipped {one}" for one in self.skipped]
        for source in self.sources:
            prefix = f"{source.path.name}: " if len(self.sources) > 1 else ""
            about = source.trace.about
            found += [f"{prefix}warning: {sentence}" for sentence in about.warnings]
            failed = [check for device in source.devices for check in device.checks if not check.ok]
            # What the check of the reading says stands above and below already.
            checks = {check.detail: check for check in failed if check.name != READING}
            found += [f"{prefix}warning: {check.name}: {check.detail}" for check in checks.values()]
            found += [f"{prefix}dropped: {count:,} x {reason}" for reason, count in about.dropped.items()]
            outside = sum(device.outside for device in source.devices)
            found += [f"{prefix}{outside:,} rows lie outside the window; window=all includes them"] if outside else []
        return found


def analyse_all(root: AnalyzeRoot) -> AnalysisResult:
    """Read and analyse what `root` names.

    Raises:
        TraceError: nothing could be analysed; of several files, those that cannot be read are skipped.
        ConfigError: the rule file is none.
    """
    start = time.perf_counter()
    files = trace_files(Path(root.trace).expanduser())
    sources, skipped = [], []
    for path in files:
        try:
            sources.append(_source(path, root))
        except TraceError as error:
            if len(files) == 1:
                raise
            skipped.append(f"{path.name}: {error}")
    if not sources:
        raise TraceError(f"none of the {len(files)} traces in {root.trace} can be analysed", skipped[0])
    compared = _compared(sources, root) if root.diff else None
    return AnalysisResult(root, sources, skipped, compared, time.perf_counter() - start)


def named(sources: Sequence[Source]) -> list[Named]:
    """Every device with a name of its own: that of its file, its index, or both, as far as needed."""
    found = []
    for source in sources:
        for device in source.devices:
            words = [rank_name(source.path)] if len(sources) > 1 else []
            words += [f"device {device.index}"] if len(source.devices) > 1 else []
            words += [device.name] if device.name != f"device {device.index}" or not words else []
            found.append(Named(", ".join(words), device, source))
    seen: dict[str, int] = {}
    for number, one in enumerate(found):
        seen[one.name] = seen.get(one.name, 0) + 1
        if seen[one.name] > 1:
            found[number] = Named(f"{one.name} #{seen[one.name]}", one.device, one.source)
    return found


def _source(path: Path, root: AnalyzeRoot) -> Source:
    rules = engine_rules(Path(root.rules).expanduser() if root.rules else None)
    trace = read_trace(path, rules, default_root() if root.cache else None)
    look = Look(root.window == "steps", round(root.macro_gap_us * 1000))
    try:
        return Source(path, trace, analyse(trace, look))
    except TraceError as error:
        about = trace.about
        lost = [*about.warnings, *(f"{count:,} x {reason} left out" for reason, count in about.dropped.items())]
        if not lost:
            raise
        hint = "what is missing may be there; is the file whole?"
        raise TraceError("; ".join([error.message, *lost]), hint) from error


def _compared(sources: Sequence[Source], root: AnalyzeRoot) -> Compared:
    """The devices of both traces as one each: sums over devices, per iteration."""
    files = trace_files(Path(root.diff).expanduser())
    before = [_source(path, root) for path in files]
    old, new = (_pooled(one) for one in (before, sources))
    changes = diff(old.ops, new.ops, steps_a=old.steps, steps_b=new.steps)
    short = summary(old.partition, new.partition, steps_a=old.steps, steps_b=new.steps)
    names = [rank_name(Path(one)) for one in (root.diff, root.trace)]
    if names[0] == names[1]:
        names = [f"{name} ({when})" for name, when in zip(names, ("before", "after"), strict=True)]
    return Compared(names[0], names[1], short, changes)


@dataclass(frozen=True)
class _Pool:
    ops: pl.DataFrame
    partition: Partition
    steps: int


def _pooled(sources: Sequence[Source]) -> _Pool:
    devices = [device for source in sources for device in source.devices]
    parts = together([device.partition for device in devices])
    whole = devices[0].partition if len(devices) == 1 else Partition(0, sum(parts.values()), parts)
    return _Pool(pl.concat([device.ops for device in devices]), whole, max(device.steps for device in devices))

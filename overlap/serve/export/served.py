"""The tuned config that the plug-in reads at level 1: the same file, reduced to what it can do.

Terms
    reduced: an entry runs what level 1 chose for it, or passes through. Its bucket is the shape that vLLM runs, whose
        context is whole blocks.

Contract: the file obeys every rule of a tuned config. An entry whose split is an alternative has the times of that
alternative; nobody looked at its engines and memory, so these are 0, and it has the error of what was kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from overlap.serve.export.limits import served
from overlap.serve.export.plan import Option
from overlap.serve.export.times import PROGRAM
from overlap.serve.tuned import Busy, Entry, Spread, Tuned
from overlap.split import Split
from overlap.workload import Bucket

UNKNOWN = Busy(mme=0.0, tpc=0.0, both=0.0, idle=0.0)


def reduced(tuned: Tuned, options: Sequence[Option], block: int) -> Tuned:
    """What the plug-in is to read; where two buckets run in one shape, the entry that was tuned nearest below it."""
    found: dict[Bucket, Entry] = {}
    for entry, option in zip(tuned.entries, options, strict=True):
        shape = served(entry.bucket, block)
        if shape is None:
            continue
        before = found.get(shape)
        fresh = _entry(entry, option)
        if before is None or before.bucket.context < entry.bucket.context:
            found[shape] = fresh
    return tuned.with_entries(msgspec.structs.replace(entry, bucket=shape) for shape, entry in found.items())


def _entry(entry: Entry, option: Option) -> Entry:
    if not option.tuned or option.split is None or option.time_us is None:
        return _passing(entry)
    is_kept = entry.order == PROGRAM and abs(option.time_us - entry.latency_us.median) <= 1e-9 * option.time_us
    if is_kept and _attention(option.split) == _attention(entry.split):
        return msgspec.structs.replace(entry, split=option.split, alternatives=(), verified=None)
    return _other(entry, option.split, option.time_us)


def _attention(split: Split) -> dict[str, object]:
    return {name: value for name, value in split.changed().items() if name != "layers_per_graph"}


def _passing(entry: Entry) -> Entry:
    """The entry of the baseline, in which every number is that of the baseline."""
    baseline, stack = entry.baseline_latency_us, entry.speedup_vs_stack
    ratio = entry.latency_us.median / baseline.median
    return msgspec.structs.replace(
        entry,
        pass_through=True,
        split=Split(),
        order=PROGRAM,
        latency_us=baseline,
        speedup=_exact(1.0),
        speedup_vs_stack=None if stack is None else _exact(stack.median * ratio),
        attribution=None,
        busy=entry.baseline_busy,
        gap=baseline.median / entry.bound_us - 1,
        error=msgspec.structs.replace(entry.error, rel_l2=entry.error.baseline_rel_l2),
        peak_bytes=entry.baseline_peak_bytes,
        alternatives=(),
        verified=None,
    )


def _other(entry: Entry, split: Split, time_us: float) -> Entry:
    """The entry of another split."""
    stack = entry.speedup_vs_stack
    return msgspec.structs.replace(
        entry,
        pass_through=False,
        split=split,
        order=PROGRAM,
        latency_us=_exact(time_us),
        speedup=_exact(entry.baseline_latency_us.median / time_us),
        speedup_vs_stack=None if stack is None else _exact(stack.median * entry.latency_us.median / time_us),
        attribution=None,
        busy=UNKNOWN,
        gap=time_us / entry.bound_us - 1,
        peak_bytes=0,
        alternatives=(),
        verified=None,
    )


def _exact(value: float) -> Spread:
    """A number without an interval of its own."""
    return Spread(median=value, low=value, high=value)

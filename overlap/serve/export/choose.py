"""One choice of settings for a whole server, and per bucket what the plug-in does beside them.

Terms
    settings: they hold for every bucket, while splits were kept per bucket. So level 0 takes the settings with the
        least geometric mean of the time over all buckets, prefill and decode, for both run under the same settings.
    tie: settings whose mean is within `MARGIN` of the least; the fewest settings win, for each of them costs memory,
        compile time or explanations.
    gain: what is changed at all must be timed against the stack in every bucket, or nothing is changed.

Level 1 is chosen in the same way over settings that keep the fused attention, whose class the plug-in replaces. A
bucket that passes through and was never timed under other graphs is assumed to take what it takes with a graph per
layer, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from overlap.serve.export.plan import Option
from overlap.serve.export.routes import attention_only, overridable
from overlap.serve.export.server import (
    FUSED,
    NAIVE,
    NAIVE_FAST,
    SLICES,
    ServerSettings,
    graphs,
    layers_of,
    may_slice,
    slice_sizes,
)
from overlap.serve.export.times import Known, times
from overlap.serve.tuned import Entry, Tuned
from overlap.split import Split
from overlap.workload import Workload

# As a sweep accepts a split only above a margin of 1 % (`search.margin`).
MARGIN = 1.01


@dataclass(frozen=True)
class Shape:
    """One bucket with what is known of it."""

    entry: Entry
    workload: Workload
    times: Mapping[Split, Known]


@dataclass(frozen=True)
class Choice:
    """Settings with what every bucket runs under them, in the order of the entries."""

    settings: ServerSettings
    options: Sequence[Option]

    @property
    def mean_us(self) -> float | None:
        """Geometric mean, none where a time is not known."""
        found = [one.time_us for one in self.options]
        known = [one for one in found if one is not None]
        if not known or len(known) < len(found):
            return None
        return math.exp(math.fsum(math.log(one) for one in known) / len(known))


def shapes_of(tuned: Tuned) -> list[Shape]:
    """The buckets of a config."""
    return [Shape(entry, tuned.workload(entry), times(tuned, entry)) for entry in tuned.entries]


def choose0(shapes: Sequence[Shape], mode: str, block: int, fp32: bool) -> Choice:
    """Settings of level 0; `fp32` says that the softmax of this model must stay in fp32."""
    usual = _level0(ServerSettings(), shapes)
    if usual.mean_us is None:
        return usual
    kinds = [FUSED, NAIVE] if fp32 else [FUSED, NAIVE, NAIVE_FAST]
    return _least([usual, *(_level0(one, shapes) for one in _able(shapes, mode, block, kinds))])


def choose1(shapes: Sequence[Shape], mode: str, block: int) -> Choice:
    """Settings of level 1, and what the plug-in does."""
    usual = _level1(ServerSettings(), shapes)
    if usual.mean_us is None:
        return usual
    return _least([usual, *(_level1(one, shapes) for one in _able(shapes, mode, block, [FUSED]))])


def gains(upper: Choice, lower: Choice) -> bool:
    """Whether level 1 is worth a plug-in: it does something in a bucket, is faster there, and not slower over all."""
    better = any(
        one.tuned and (other.time_us is None or (one.time_us is not None and one.time_us < other.time_us))
        for one, other in zip(upper.options, lower.options, strict=True)
    )
    means = upper.mean_us, lower.mean_us
    return better and (means[0] is None or means[1] is None or means[0] <= means[1])


def _least(choices: Iterable[Choice]) -> Choice:
    known = [(one.mean_us, one) for one in choices]
    means = [mean for mean, _ in known if mean is not None]
    most = min(means) * MARGIN
    within = [(one.settings.count, mean, one.settings, one) for mean, one in known if mean and mean <= most]
    return min(within, key=lambda found: found[:3])[3]


def _able(shapes: Sequence[Shape], mode: str, block: int, kinds: Sequence[str]) -> Iterator[ServerSettings]:
    """Settings that something was timed under."""
    window = shapes[0].workload.window_layers
    seen = {layers_of(split, shape.workload) for shape in shapes for split in shape.times}
    for layers in sorted(one for one in seen | {1} if graphs(mode, one, window)):
        yield from (ServerSettings(kind, layers=layers) for kind in kinds)
        for size in sorted({size for shape in shapes for split in shape.times for size in slice_sizes(split, block)}):
            for threshold in _thresholds(shapes, size, layers):
                yield ServerSettings(SLICES, size, threshold, layers)


def _thresholds(shapes: Sequence[Shape], size: int, layers: int) -> list[int]:
    """Lengths from which slices of `size` were timed in every bucket with a prefix."""
    everywhere = ServerSettings(SLICES, size, size, layers)
    timed: dict[int, bool] = {}
    for shape in shapes:
        bucket = shape.entry.bucket
        if may_slice(bucket) and bucket.key_tokens >= size:
            known = everywhere.runs(shape.workload) in shape.times
            timed[bucket.key_tokens] = timed.get(bucket.key_tokens, True) and known
    untimed = max((length for length, known in timed.items() if not known), default=0)
    return sorted(length for length in timed if length > untimed)


def _level0(settings: ServerSettings, shapes: Sequence[Shape]) -> Choice:
    return Choice(settings, [_stack(settings, shape) for shape in shapes])


def _level1(settings: ServerSettings, shapes: Sequence[Shape]) -> Choice:
    return Choice(settings, [_with_plugin(settings, shape) for shape in shapes])


def _stack(settings: ServerSettings, shape: Shape, assume: bool = False) -> Option:
    """What the stack runs in a bucket by itself."""
    split = settings.runs(shape.workload)
    known = None if split is None else shape.times.get(split)
    what = _words(settings, split, shape)
    if known is not None:
        return _option(what, split, known, shape)
    per_layer = replace(settings, layers=1).runs(shape.workload) if assume else None
    other = None if per_layer is None else shape.times.get(per_layer)
    if other is None:
        return Option(what=what, split=split, time_us=None, loss=None, how="unknown", note="nobody timed this")
    made = _option(what, split, other, shape)
    note = "timed with a graph per layer, and assumed to be no slower in larger graphs"
    return Option(what=what, split=split, time_us=made.time_us, loss=made.loss, how="assumed", note=note)


def _with_plugin(settings: ServerSettings, shape: Shape) -> Option:
    """What the plug-in runs where that is faster than what the stack does by itself."""
    stack = _stack(settings, shape, assume=True)
    able = [
        known
        for split, known in shape.times.items()
        if layers_of(split, shape.workload) == settings.layers
        and split != stack.split
        and overridable(split, shape.workload)
    ]
    best = min(able, key=lambda known: known.time_us, default=None)
    if best is None or stack.time_us is None or best.time_us >= stack.time_us:
        return stack
    split = attention_only(best.split, shape.workload)
    return _option(str(split) if split.changed() else "unsplit", split, best, shape, tuned=True)


def _option(what: str, split: Split | None, known: Known, shape: Shape, tuned: bool = False) -> Option:
    loss = known.time_us / shape.entry.latency_us.median - 1
    return Option(what=what, split=split, time_us=known.time_us, loss=loss, how="known", tuned=tuned, note=known.note)


def _words(settings: ServerSettings, split: Split | None, shape: Shape) -> str:
    """`stack`, or what the settings make of it."""
    found = "stack"
    if shape.entry.bucket.phase == "prefill":
        if settings.attention in (NAIVE, NAIVE_FAST):
            found = "unsplit attention"
        elif settings.attention == SLICES and (split is None or split.kv_tile):
            found = f"slices of {settings.chunk}"
    whole = settings.layers == shape.workload.window_layers and settings.layers > 1
    many = f", {settings.layers} layers per graph" if settings.layers > 1 else ""
    return found + (many if not whole else ", graphs of several layers")

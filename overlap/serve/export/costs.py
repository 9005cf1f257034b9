"""What settings cost, in words, and in numbers where somebody timed them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from overlap.serve.export.choose import Choice, Shape
from overlap.serve.export.server import LAZY, NAIVE, NAIVE_FAST, SLICES, ServerSettings
from overlap.serve.tuned import Tuned


def over_stack(choice: Choice, shapes: Sequence[Shape]) -> float | None:
    """By how much the choice is faster than the untouched stack, geometric mean; none where a time is missing."""
    usual = [_time(ServerSettings(), shape) for shape in shapes]
    return _ratio(usual, [option.time_us for option in choice.options])


def costs_of(choice: Choice, shapes: Sequence[Shape], tuned: Tuned, mode: str, level: int) -> Iterator[str]:
    """Sentences about everything that is not the default."""
    settings = choice.settings
    if settings.layers > 1 and tuned.window_layers > 1:
        yield from _graphs(settings, shapes, tuned, mode)
    if settings.attention in (NAIVE, NAIVE_FAST):
        yield "plain attention keeps the whole score matrix of a prompt: batch * heads * query * keys numbers per layer"
    if settings.attention == NAIVE:
        yield "VLLM_FP32_SOFTMAX also puts the softmax of decode in fp32, which nobody timed"
        if mode == LAZY:
            yield "in lazy mode a softmax in fp32 may end the graph before it, which nobody timed"
    if settings.attention == SLICES:
        yield (
            "slice size and PAD_MAX go together: PAD_MAX tells which chunks may hold padding and get a mask, so it "
            "covers the most padding that buckets.txt allows; change both or none"
        )
        yield (
            "slices were timed with a mask on the diagonal alone; every chunk that may hold padding gets one too, so "
            "they may gain less than what is shown"
        )
        yield "buckets are padded by `pad`, and every slice keeps a partial result in fp32"
    if assumed := sum(option.how == "assumed" for option in choice.options):
        yield f"in {assumed} of {len(shapes)} buckets the stack was timed with a graph per layer only; that is taken"
    if level:
        yield "the plug-in replaces the class of the prefill attention; decode and other shapes run as they did"


def _graphs(settings: ServerSettings, shapes: Sequence[Shape], tuned: Tuned, mode: str) -> Iterator[str]:
    """Larger graphs: what they cost, and what they were worth."""
    if mode == LAZY:
        yield (
            f"VLLM_CONFIG_HIDDEN_LAYERS={settings.layers}: graphs of {settings.layers} layers take longer to compile "
            "and keep a larger workspace, so that less memory is left for the KV cache"
        )
    else:
        yield (
            "VLLM_T_COMPILE_REGIONAL_COMPILATION=false: the whole model is one graph, which takes long to compile, is "
            f"compiled anew for every bucket, and was timed on {tuned.window_layers} layers only"
        )
    single = replace(settings, layers=1)
    pairs = [(_time(single, shape), _time(settings, shape)) for shape in shapes]
    known = [(one, many) for one, many in pairs if one and many]
    if known:
        worth = _ratio([one for one, _ in known], [many for _, many in known])
        yield f"larger graphs were worth {worth:.3f}x where the same splits were timed in both ({len(known)} buckets)"
    else:
        yield "nobody timed the same splits with a graph per layer, so what larger graphs are worth is not known"


def _time(settings: ServerSettings, shape: Shape) -> float | None:
    split = settings.runs(shape.workload)
    known = None if split is None else shape.times.get(split)
    return None if known is None else known.time_us


def _ratio(before: Sequence[float | None], after: Sequence[float | None]) -> float | None:
    """Geometric mean of before over after."""
    logs = [math.log(one / other) for one, other in zip(before, after, strict=True) if one and other]
    return math.exp(math.fsum(logs) / len(logs)) if logs and len(logs) == len(before) else None

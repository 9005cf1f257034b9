"""What an operator must know of a whole export before trusting it."""

from __future__ import annotations

from collections.abc import Iterator

from overlap.serve.export.environment import has_prefix, left_out, wants_fp32
from overlap.serve.export.limits import line_of
from overlap.serve.export.server import mode_of
from overlap.serve.tuned import Tuned

SERVED = "bfloat16"


def plugin_obstacle(tuned: Tuned) -> str:
    """Why the plug-in would refuse a config on a card, so that a level with it would stop the server; or empty."""
    if tuned.device.kind == "host":
        return "it was tuned on a CPU"
    return "" if tuned.model.dtype == SERVED else f"it was tuned in {tuned.model.dtype}, and is served in {SERVED}"


def common(tuned: Tuned, mode: str) -> Iterator[str]:
    """Doubts about the numbers, for every stack."""
    software, kind = tuned.device.software, tuned.device.kind
    if kind == "host":
        yield "tuned on a CPU (device=host): no time here is one of a card"
    if tuned.model.dtype != SERVED:
        yield f"tuned in {tuned.model.dtype}, and served in {SERVED}"
    own = software.get("mode", "")
    if own and kind != "host" and (own == "eager" or mode_of(software) != mode):
        yield f"tuned in mode {own}, and exported for {mode}: the times are not of that mode"


def of_vllm(tuned: Tuned, block: int) -> Iterator[str]:
    """Doubts about a server of vLLM on Gaudi."""
    yield from _shapes(tuned, block)
    if why := plugin_obstacle(tuned):
        yield f"no level 1: the plug-in takes no such config, for {why}"
    software = tuned.device.software
    if wants_fp32(tuned.model) and software.get("hpu.softmax_mode") != "fp32":
        yield "vLLM on Gaudi keeps the softmax of Qwen2 in fp32, which is slower than what was timed; it stays so"
    elif tuned.device.kind == "hpu" and "hpu.softmax_mode" not in software:
        yield "timed with softmax_mode None of the fused attention; vLLM calls it in mode fast"
    if names := left_out(software):
        yield f"not exported, for a rule is against their values: {', '.join(names)}"


def _shapes(tuned: Tuned, block: int) -> Iterator[str]:
    buckets = [entry.bucket for entry in tuned.entries]
    phases = {one.phase for one in buckets}
    for phase in ("prefill", "decode"):
        if phase not in phases:
            yield f"no {phase} bucket was tuned: vLLM compiles every {phase} shape when it first comes"
    if "prefill" in phases and not has_prefix(buckets):
        yield "no prefill with a prefix was tuned: prefix caching is off, and prompts longer than a step are not timed"
    if any(line_of(one, block) is None for one in buckets):
        yield "a prefill of one token is in no line of the bucket file, for vLLM takes it for decode"

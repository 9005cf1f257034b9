"""Rules for attention over a prefix in slices: sizes that stop vLLM, and what switches it off."""

from __future__ import annotations

from collections.abc import Iterator

from overlap.serve.vllm.env_file import Finding
from overlap.serve.vllm.facts import EXP, LIN, PAD, Facts

SLICE = "VLLM_HPU_FSDPA_SLICE_"
ENABLED, THRESHOLD, CHUNK, BREAKS = (
    f"{SLICE}{part}" for part in ("ENABLED", "SEQ_LEN_THLD", "CHUNK_SIZE", "WITH_GRAPH_BREAKS")
)
QUERY_PAD, STRATEGY = "VLLM_PROMPT_QUERY_BUCKET_PAD_MAX", "VLLM_BUCKETING_STRATEGY"
# Both the least threshold and what slices are multiples of.
SLICE_STEP = 1024
USUAL_THRESHOLD = 8192
NO_EFFECT = "it has no effect"


def _slicing(facts: Facts) -> str | None:
    """The name that asks for attention in slices, if one does."""
    if facts.on(ENABLED) is False:
        return None
    return next((name for name in (ENABLED, THRESHOLD, CHUNK, BREAKS) if name in facts.values), None)


def _active(facts: Facts) -> bool:
    """Whether attention is sliced: so it is with buckets by `pad` unless something is against it."""
    against = facts.on(ENABLED) is False or facts.on("VLLM_ENABLE_BUCKETING") is False
    return facts.strategy == PAD and not against and not facts.on("VLLM_MERGED_PREFILL")


def _usual_threshold(facts: Facts) -> int | None:
    tokens = facts.flag("max-num-batched-tokens")
    return None if tokens is None else min(tokens, USUAL_THRESHOLD)


def slice_threshold(facts: Facts) -> Iterator[Finding]:
    """The length from which attention is sliced: above a block, and 1024 at least."""
    told = THRESHOLD in facts.values
    at = THRESHOLD if told else _slicing(facts) or STRATEGY
    value = facts.whole(THRESHOLD) if told else _usual_threshold(facts)
    if value is None or facts.on(ENABLED) is False or not (told or _active(facts)):
        return
    least = max(SLICE_STEP, facts.block + 1)
    if value < least:
        what = f"{value}" if told else f"the threshold follows from --max-num-batched-tokens and is {value}"
        why = f"it must be above the block size {facts.block} and at least {SLICE_STEP}"
        yield facts.error(at, f"{what}, and vLLM stops: {why}, so set {THRESHOLD} to {least} or more")
    elif told and value < (_usual_threshold(facts) or USUAL_THRESHOLD):
        usual = _usual_threshold(facts)
        shown = f"the default {usual}" if usual else "max_num_batched_tokens or 8192, whichever is less"
        yield facts.warning(at, f"{value}: vLLM advises against less than {shown}: raise it or remove the line")


def slice_chunk(facts: Facts) -> Iterator[Finding]:
    """Tokens of a slice: above a block, within the threshold, after rounding up."""
    at = next((name for name in (CHUNK, THRESHOLD) if name in facts.values), STRATEGY)
    told = facts.whole(THRESHOLD) if THRESHOLD in facts.values else _usual_threshold(facts)
    most = told if told is not None else USUAL_THRESHOLD
    given = facts.whole(CHUNK) if CHUNK in facts.values else most // 2
    set_here = CHUNK in facts.values or (THRESHOLD in facts.values and most >= SLICE_STEP)
    by_default = _active(facts) and told is not None and told >= SLICE_STEP
    if given is None or facts.on(ENABLED) is False or not (set_here or by_default):
        return
    size = -(-given // SLICE_STEP) * SLICE_STEP
    if at == CHUNK and size != given:
        yield facts.warning(CHUNK, f"{given} is rounded up to {size}: write a multiple of {SLICE_STEP}")
    if size <= facts.block:
        yield facts.error(
            at, f"slices of {size} tokens are no longer than a block of {facts.block}, vLLM stops: enlarge {CHUNK}"
        )
    elif size > most:
        yield facts.error(
            at, f"slices of {size} tokens are longer than the threshold {most}, vLLM stops: reduce {CHUNK}"
        )


def slice_padding(facts: Facts) -> Iterator[Finding]:
    """The padding that slices count on is a block at least."""
    at, value, tokens = QUERY_PAD, facts.whole(QUERY_PAD), facts.flag("max-num-batched-tokens")
    if QUERY_PAD not in facts.values and tokens is not None and _active(facts):
        at, value = STRATEGY, -(-tokens // 4)
    if value is not None and value < facts.block and facts.on(ENABLED) is not False:
        what = f"{QUERY_PAD} is {value}, less than a block of {facts.block}, and vLLM stops where attention is sliced"
        yield facts.error(at, f"{what}: set it to {facts.block} or more, or {ENABLED}=false")


def slice_without_effect(facts: Facts) -> Iterator[Finding]:
    """Slices that the other settings switch off."""
    at = _slicing(facts)
    if at is None:
        return
    if facts.strategy in (EXP, LIN):
        reason = f"buckets are spaced by {facts.strategy}, which attention in slices does not work with, so {NO_EFFECT}"
        yield facts.warning(at, f"{reason}: set {STRATEGY}={PAD}")
    if facts.on("VLLM_ENABLE_BUCKETING") is False:
        yield facts.warning(
            at, f"without buckets, attention is not sliced and {NO_EFFECT}: set VLLM_ENABLE_BUCKETING=true"
        )
    if facts.on("VLLM_MERGED_PREFILL"):
        yield facts.warning(at, f"merged prefill is not sliced and {NO_EFFECT}: set VLLM_MERGED_PREFILL=false")
    cached = facts.flags.get("enable-prefix-caching") != "false" and not facts.on("VLLM_CONTIGUOUS_PA")
    if not cached and facts.flags.get("enable-chunked-prefill") == "false":
        reason = (
            f"without prefix caching and chunked prefill no prompt has a prefix, only such are sliced, and {NO_EFFECT}"
        )
        yield facts.warning(at, f"{reason}: serve with --enable-chunked-prefill, or remove it")


def slice_details_when_off(facts: Facts) -> Iterator[Finding]:
    """Sizes of slices that are switched off."""
    if facts.on(ENABLED) is False:
        for name in (THRESHOLD, CHUNK, BREAKS):
            if name in facts.values:
                yield facts.warning(name, f"{ENABLED} is off, so {NO_EFFECT}: remove one of them")


def slice_graphs(facts: Facts) -> Iterator[Finding]:
    """One graph per slice exists in lazy mode only."""
    if facts.on(BREAKS) and not facts.lazy:
        yield facts.warning(BREAKS, f"graphs are broken between slices in lazy mode only, so {NO_EFFECT}: remove it")


RULES = (
    slice_threshold,
    slice_chunk,
    slice_padding,
    slice_without_effect,
    slice_details_when_off,
    slice_graphs,
)

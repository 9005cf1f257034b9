"""Rules for buckets: ranges that are empty or ignored, strategies that contradict each other, a bucket file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from overlap.serve.vllm.bucket_lines import Limits, check_lines
from overlap.serve.vllm.env_file import Finding
from overlap.serve.vllm.facts import EXP, LIN, PAD, Facts
from overlap.serve.vllm.settings import range_names

STRATEGY, FILE, OLD = "VLLM_BUCKETING_STRATEGY", "VLLM_BUCKETING_FROM_FILE", "VLLM_EXPONENTIAL_BUCKETING"
PROMPT_BATCH, QUERY, CONTEXT, DECODE_BATCH, BLOCKS = (
    f"VLLM_{part}_BUCKET" for part in ("PROMPT_BS", "PROMPT_QUERY", "PROMPT_CTX", "DECODE_BS", "DECODE_BLOCK")
)
OLD_QUERY = "VLLM_PROMPT_SEQ_BUCKET"
PARTS = ("MIN", "STEP", "MAX", "PAD_MAX", "PAD_PERCENT")
# What the exponential strategy looks at all the same; a query MIN only if it is 1.
READ_BY_EXP = (f"{PROMPT_BATCH}_MAX", f"{CONTEXT}_MAX")


def empty_ranges(facts: Facts) -> Iterator[Finding]:
    """Ranges whose least value is above the largest."""
    for one in range_names():
        low, high = _name(facts, one, "MIN"), _name(facts, one, "MAX")
        least = facts.whole(low) if low in facts.values else _usual_min(facts, one)
        most = facts.whole(high) if high in facts.values else _usual_max(facts, one)
        if least is None or most is None or least <= most or not {low, high} & facts.values.keys():
            continue
        at = high if high in facts.values else low
        what = [f"{name} is {value}" for name, value in ((low, least), (high, most))]
        usual = [" by default" if name not in facts.values else "" for name in (low, high)]
        yield facts.error(
            at, f"{what[0]}{usual[0]} and {what[1]}{usual[1]}, so there is no bucket: correct one of them"
        )


def _name(facts: Facts, one: str, part: str) -> str:
    """What is read for a part of a range: the old name where only that is set."""
    name, old = f"{one}_{part}", f"{OLD_QUERY}_{part}"
    return old if one == QUERY and name not in facts.values and old in facts.values else name


def _usual_min(facts: Facts, one: str) -> int | None:
    """The least value where none is set and the strategy looks at ranges."""
    if facts.strategy == EXP:
        return {PROMPT_BATCH: 1, CONTEXT: 0}.get(one)
    if not facts.strategy:
        return None
    blocks = 1 if facts.strategy == LIN else facts.block
    return {PROMPT_BATCH: 1, QUERY: facts.block, CONTEXT: 0, DECODE_BATCH: 1, BLOCKS: blocks}.get(one)


def _usual_max(facts: Facts, one: str) -> int | None:
    if facts.strategy not in (LIN, PAD):
        return None
    return {QUERY: facts.flag("max-num-batched-tokens"), DECODE_BATCH: facts.flag("max-num-seqs")}.get(one)


def ignored_ranges(facts: Facts) -> Iterator[Finding]:
    """Parts of ranges that the strategy does not look at."""
    for name in (f"{one}_{part}" for one in range_names() for part in PARTS):
        if name not in facts.values:
            continue
        if facts.strategy == EXP and name not in READ_BY_EXP and not _least_query(facts, name):
            reason = f"{STRATEGY} is {EXP}, which spaces buckets by itself, so it has no effect"
            yield facts.warning(name, f"{reason}: set {STRATEGY}={LIN} or {PAD}, or remove it")
        elif facts.strategy == LIN and "_PAD_" in name:
            yield facts.warning(name, f"{STRATEGY} is {LIN}, so it has no effect: only {PAD} limits padding")


def _least_query(facts: Facts, name: str) -> bool:
    return name == f"{QUERY}_MIN" and facts.whole(name) == 1


def old_switch(facts: Facts) -> Iterator[Finding]:
    """The deprecated switch wins over the strategy."""
    if OLD in facts.values and STRATEGY in facts.values:
        yield facts.error(OLD, f"it overrides {STRATEGY}, and buckets are spaced by {facts.strategy}: remove it")


def without_buckets(facts: Facts) -> Iterator[Finding]:
    """Settings of buckets where there are none."""
    if facts.on("VLLM_ENABLE_BUCKETING") is False:
        for name in (STRATEGY, FILE):
            if name in facts.values:
                yield facts.warning(name, "VLLM_ENABLE_BUCKETING is off, so it has no effect: remove one of them")


def bucket_file(facts: Facts) -> Iterator[Finding]:
    """The bucket file is there, and every line of it is a bucket."""
    text = facts.text(FILE)
    if not text or (facts.folder is None and not text.startswith("/")):
        return
    try:
        path = (facts.folder or Path("/")) / text
        if not path.is_file():
            yield facts.error(FILE, f"there is no file {text[:200]!r}, vLLM stops at the start: correct the path")
            return
        lines = path.read_bytes().decode("utf-8").splitlines()
    except (OSError, ValueError):
        yield facts.error(
            FILE, f"{text[:200]!r} cannot be read as text, vLLM stops at the start: correct the path or the file"
        )
        return
    limits = Limits(
        facts.block,
        facts.flag("max-model-len"),
        facts.flag("max-num-batched-tokens"),
        contiguous=facts.on("VLLM_CONTIGUOUS_PA"),
    )
    for bad, reason in check_lines(lines, limits):
        yield facts.error(FILE, f"{path.name} {reason}") if bad else facts.warning(FILE, f"{path.name} {reason}")


RULES = (empty_ranges, ignored_ranges, old_switch, without_buckets, bucket_file)

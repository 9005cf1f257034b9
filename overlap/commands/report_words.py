"""Numbers of a tuned config in plain words, for the page of `overlap report`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from html import escape

import polars as pl

from overlap.analysis.figures.time_bars import SCHEMA
from overlap.analysis.numbers import time_text
from overlap.serve.tuned import Busy, Entry, Spread
from overlap.split import Split
from overlap.workload import Bucket

NS_PER_US = 1e3
NOTHING = "–"
FACTORS = {
    "work": "scores that the causal mask hides are not computed",
    "tiling": "smaller tensors, which stay in caches",
    "order": "another order of the same steps",
    "overlap": "both engines at once",
}
# Axis → what a value other than the neutral one means, in a few words; those of chunks mean nothing without any.
IN_SHORT = {
    "head_groups": "{} groups of heads",
    "query_tile": "{:,} queries at a time",
    "kv_tile": "{:,} keys at a time",
    "masked_blocks": "masked scores left out",
    "normalise": "softmax divided last",
    "softmax": "softmax in the model's dtype",
    "projections": "projections one by one",
    "fused_sdpa": "fused attention",
    "layers_per_graph": "graphs of {} layers",
}
OF_CHUNKS = ("chunks", "chunk_axis", "lag", "turn", "attend")


def bucket_in_words(bucket: Bucket) -> str:
    """`a prompt of 2,048 tokens`, `the next token of 8 sequences with 4,096 tokens each`."""
    if bucket.phase == "decode":
        who = "a sequence" if bucket.batch == 1 else f"{bucket.batch:,} sequences"
        each = "" if bucket.batch == 1 else " each"
        return f"the next token of {who} with {bucket.context:,} tokens{each}"
    who = "a prompt" if bucket.batch == 1 else f"{bucket.batch:,} prompts"
    each = "" if bucket.batch == 1 else " each"
    behind = f", behind {bucket.context:,} that are cached" if bucket.context else ""
    return f"{who} of {bucket.query:,} tokens{each}{behind}"


def bucket_in_short(bucket: Bucket) -> str:
    """`prompt 4 × 512 + 1,024`, for tables."""
    name = "prompt" if bucket.phase == "prefill" else "next token"
    cached = f" + {bucket.context:,}" if bucket.context else ""
    return f"{name} {bucket.batch:,} × {bucket.query:,}{cached}"


def split_in_short(split: Split, order: str) -> str:
    """`2 chunks of the prompt, fused attention`, for tables; an axis without words is shown as it is written."""
    return ", ".join(_phrases(split, order)) or "as the model is written"


def _phrases(split: Split, order: str) -> Iterator[str]:
    if split.chunks > 1:
        whole = ", attention uncut" if split.attend == "whole" else ""
        yield f"{split.chunks} chunks of the {'prompt' if split.chunk_axis == 'query' else 'batch'}{whole}"
    for name, value in split.changed().items():
        if name in OF_CHUNKS:
            continue
        words = IN_SHORT[name].format(value) if name in IN_SHORT else f"{name}={value}"
        yield "a graph per layer" if (name, value) == ("layers_per_graph", 1) else words
    if order != "program":
        yield "steps in another order"


def ms(us: float) -> str:
    """A time."""
    return time_text(round(us * NS_PER_US))


def times(factor: float) -> str:
    """A factor."""
    return f"{factor:.2f}×"


def memory(size: int) -> str:
    """Bytes; below a MiB in KiB, since an MiB is much for a single token."""
    return f"{size / 2**20:,.0f} MiB" if size >= 2**20 else f"{size / 2**10:,.1f} KiB"


def ends(spread: Spread, shown: Callable[[float], str]) -> str:
    """`[1.02×, 1.10×]`; nothing for an interval without width."""
    if spread.low == spread.high:
        return ""
    return f"[{shown(spread.low)}, {shown(spread.high) if math.isfinite(spread.high) else 'open'}]"


def spread_ms(spread: Spread) -> str:
    """A time with its interval."""
    return f"{ms(spread.median)} {ends(spread, ms)}".rstrip()


def spread_times(spread: Spread) -> str:
    """A factor with its interval."""
    return f"{times(spread.median)} {ends(spread, times)}".rstrip()


def with_interval(spread: Spread | None, shown: Callable[[float], str]) -> str:
    """HTML of a number with its interval below it."""
    if spread is None:
        return NOTHING
    interval = ends(spread, shown)
    return escape(shown(spread.median)) + (f"<small>{escape(interval)}</small>" if interval else "")


def shares(busy: Busy) -> dict[str, float]:
    """Parts of a window that add up to 1, as `time_bars` calls them."""
    found = {"MME": max(0.0, busy.mme - busy.both), "MME+TPC": busy.both, "TPC": max(0.0, busy.tpc - busy.both)}
    total = sum(found.values())
    if total > 1.0:
        # No window holds more than itself; a file that was edited may say so.
        found = {name: share / total for name, share in found.items()}
    rest = max(0.0, 1.0 - total)
    idle = min(busy.idle, rest)
    return found | {"other": rest - idle, "idle": idle}


def parts_of(entry: Entry) -> tuple[pl.DataFrame, dict[str, tuple[float, float]]]:
    """Rows for `time_bars`, and the interval of each bar."""
    runs = {"before": (entry.baseline_latency_us, entry.baseline_busy), "now": (entry.latency_us, entry.busy)}
    if entry.pass_through:
        runs = {"as it is": runs["now"]}
    rows = [
        (run, part, share * spread.median * NS_PER_US)
        for run, (spread, busy) in runs.items()
        for part, share in shares(busy).items()
    ]
    spreads = {run: (one.low * NS_PER_US, one.high * NS_PER_US) for run, (one, _) in runs.items()}
    return pl.DataFrame(rows, schema=SCHEMA, orient="row"), spreads


def factors_in_words(entry: Entry) -> list[str]:
    """The gain in its factors; none where nobody took it apart."""
    if entry.attribution is None or entry.pass_through:
        return []
    found = {name: getattr(entry.attribution, name) for name in FACTORS}
    said = [f"{times(factor)}: {FACTORS[name]}" for name, factor in found.items() if factor is not None]
    if entry.attribution.overlap is None:
        said.append("This device cannot run one engine at a time, so what overlap gains is in the others.")
    return said

"""Tuned configs for the tests of exporters: entries, a table of 64 buckets, and whatever hypothesis thinks of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import strategies as st

from overlap.serve.tuned import (
    Alternative,
    Attribution,
    Busy,
    Entry,
    Spread,
    Tuned,
)
from overlap.split import Split, canonical, violations
from overlap.workload import Bucket, ModelShape, Workload
from tests import tuned_configs
from tests.strategies import splits_of

LLAMA = ModelShape("llama-3.2-1b", 2048, 32, 8, 64, 8192, 16)
QWEN2 = ModelShape("qwen2.5-0.5b", 896, 14, 2, 64, 4864, 24, qkv_bias=True)
BUSY = Busy(mme=0.5, tpc=0.5, both=0.25, idle=0.25)
FUSED = Split(fused_sdpa=True, masked_blocks="skip")
TILED = Split(query_tile=256, masked_blocks="skip")


def one(value: float) -> Spread:
    """A time without noise, as a model gives it."""
    return tuned_configs.spread(value, 0.0)


def other(split: Split, time_us: float, order: str = "program", recipe: str = "") -> Alternative:
    """A finalist that was not kept."""
    return Alternative(split=split, order=order, latency_us=one(time_us), recipe=recipe)


def entry(
    bucket: Bucket,
    split: Split = TILED,
    kept_us: float = 100.0,
    stack_us: float | None = 120.0,
    baseline_us: float = 180.0,
    **changes: Any,
) -> Entry:
    """An entry told by its three times."""
    values: dict[str, Any] = {
        "evidence": "simulated",
        "latency_us": one(kept_us),
        "baseline_latency_us": one(baseline_us),
        "speedup": one(baseline_us / kept_us),
        "speedup_vs_stack": None if stack_us is None else one(stack_us / kept_us),
        "attribution": None,
    }
    made = tuned_configs.entry(bucket, split, latency_us=kept_us)
    return msgspec.structs.replace(made, **(values | changes))


def config(entries: Sequence[Entry], model: ModelShape = LLAMA, **changes: Any) -> Tuned:
    """A config of a modelled card; `kind`, `name`, `evidence` and `software` are of its device."""
    device = {"name": "Gaudi2 (simulated)", "evidence": "simulated", "software": {"mode": "compile"}}
    found = tuned_configs.tuned((), model, kind=changes.pop("kind", "gaudi2"), **(device | changes))
    return found.with_entries(entries)


def table64(**changes: Any) -> Tuned:
    """64 buckets, every kind of kept split among them."""
    splits = [
        TILED,
        FUSED,
        Split(chunks=2, lag=1),
        Split(),
        replace(FUSED, query_tile=1024, kv_tile=1024),
        Split(head_groups=2),
    ]
    prompts = [
        Bucket("prefill", 1, query, context) for query in (1024, 2048, 4096, 8192) for context in (0, 1024, 4096, 1000)
    ]
    prompts += [Bucket("prefill", batch, 1024, context) for batch in (2, 4) for context in (0, 1024, 2048, 100)]
    decodes = [
        Bucket("decode", batch, 1, context)
        for batch in (1, 2, 4, 8, 32)
        for context in (128, 1000, 1056, 2048, 4096, 8191, 8192, 33)
    ]
    found = []
    for number, bucket in enumerate([*prompts, *decodes]):
        split = splits[number % len(splits)] if bucket.phase == "prefill" else splits[number % 2 * 3]
        if bucket.phase == "decode":
            split = Split(chunks=2, chunk_axis="batch") if number % 3 == 0 and bucket.batch > 1 else Split()
        found.append(_fitting(bucket, split, 100.0 + number))
    return config(found, **changes)


def _fitting(bucket: Bucket, split: Split, kept_us: float) -> Entry:
    workload = Workload(LLAMA, bucket, 1, 2)
    split = Split() if violations(split, workload) else canonical(split, workload)
    kept = 180.0 if not split.changed() else kept_us
    return entry(bucket, split, kept, stack_us=kept * 1.2, baseline_us=max(180.0, kept))


SIZES = st.sampled_from([1, 64, 100, 128, 1000, 1024, 2048, 3072])
CONTEXTS = st.sampled_from([0, 1, 64, 100, 128, 1000, 1024, 2048, 4096])
NAMES = (
    "PT_HPU_SDPA_BR_FACTOR",
    "PT_HPU_SDPA_BC_FACTOR",
    "PT_HPU_SDPA_QKV_SLICE_MODE_FWD",
    "PT_HPU_QKV_SLICE_SEQ_LEN_THLD",
)
VALUES = st.sampled_from(["0", "1", "1024", "2048", "-3", "abc", "", "true", "１２", "1e3", "a b", "'"])


@st.composite
def softwares(draw: st.DrawFn) -> dict[str, str]:
    """What a device may say of itself."""
    found = {"overlap": "0.1.0", "torch": "2.9.0"}
    if mode := draw(st.sampled_from(["", "compile", "lazy", "lazy_graphs", "hpu_graph", "eager"])):
        found["mode"] = mode
    if softmax := draw(st.sampled_from(["", "fast", "fp32"])):
        found["hpu.softmax_mode"] = softmax
    return found | draw(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))


@st.composite
def buckets(draw: st.DrawFn) -> Bucket:
    """Any shape, among them such as no bucket file can say."""
    batch = draw(st.sampled_from([1, 1, 1, 2, 3, 8]))
    if draw(st.booleans()):
        return Bucket("decode", batch, 1, max(1, draw(CONTEXTS)))
    return Bucket("prefill", batch, draw(SIZES), draw(CONTEXTS))


@st.composite
def near_stack(draw: st.DrawFn, workload: Workload, like: str = "any") -> Split:
    """Splits that settings or the plug-in may reach, as far as they fit; random ones would never be among them."""
    size = draw(st.sampled_from([1024, 2048]))
    options = [
        FUSED,
        Split(),
        Split(softmax="fast"),
        replace(FUSED, query_tile=size if size < workload.bucket.query else 0, kv_tile=size),
        replace(FUSED, query_tile=size),
        Split(query_tile=128, masked_blocks="skip"),
    ]
    options = {"sliced": options[3:4], "tiled": options[4:]}.get(like, options)
    split = replace(draw(st.sampled_from(options)), layers_per_graph=draw(st.sampled_from([0, 0, 1])))
    if workload.bucket.phase == "decode":
        split = Split(layers_per_graph=split.layers_per_graph)
    return Split() if violations(split, workload) else canonical(split, workload)


@st.composite
def entries(draw: st.DrawFn, model: ModelShape, window: int, degree: int, bucket: Bucket, like: str) -> Entry:
    """An entry of a bucket with alternatives; a `like` other than any is for one that gains by a certain way."""
    workload = Workload(model, bucket, degree, window)
    times = st.floats(50.0, 150.0)
    if like != "any":
        stack_us = draw(times)
        kept = draw(near_stack(workload, like))
        kept_us = stack_us * (0.7 if kept.changed() else 1.1)
        return entry(bucket, kept, kept_us, stack_us, max(kept_us, stack_us * 1.1))
    splits = st.one_of(near_stack(workload), near_stack(workload), splits_of(workload))
    kept = draw(splits)
    kept_us = draw(times)
    order = draw(st.sampled_from(["program", "list", "searched"]))
    return entry(
        bucket,
        kept,
        kept_us,
        draw(st.one_of(times, times, times, st.none())),
        kept_us if not kept.changed() else draw(times),
        order=order,
        attribution=draw(st.sampled_from([None, Attribution(work=1.0, tiling=1.1, order=1.2, overlap=None)])),
        alternatives=[other(split, draw(times)) for split in draw(st.lists(splits, max_size=3))],
    )


@st.composite
def configs(draw: st.DrawFn) -> Tuned:
    """A whole config of one to four buckets."""
    model = draw(st.sampled_from([LLAMA, QWEN2]))
    window, degree = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2]))
    like = draw(st.sampled_from(["any", "any", "sliced", "tiled"]))
    shapes = draw(st.lists(buckets(), min_size=1, max_size=4, unique=True))
    return config(
        [draw(entries(model, window, degree, bucket, like)) for bucket in shapes],
        model,
        window_layers=window,
        tensor_parallel=degree,
        kind=draw(st.sampled_from(["gaudi2", "hpu", "host"])),
        name=draw(st.sampled_from(["Gaudi2 (simulated)", "a # vllm serve --split-qkv\nVLLM_X=1", "'\"$(x)`"])),
        software=draw(softwares()),
    )

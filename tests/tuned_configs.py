"""Tuned configs for tests of serving; every number in them obeys `tuned_rules`.

By hand:
    spread(100.0)                   a median with an interval around it
    entry(bucket, split, **fields)  one entry; an unchanged split passes through. Times follow from `latency_us`
    alternative(split, 120.0)       a finalist that was not kept
    verified(**fields)              what `overlap verify` found
    tuned(entries, model, kind)     a file; `kind` decides name, evidence and software of the device
    table64()                       64 buckets on the model of Gaudi2: half prefill, half decode, every kind of split
By hypothesis: `buckets()`, `entries(model, bucket)`, `tuned_configs()`; whatever they draw is valid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import strategies as st

from overlap.serve.tuned import (
    SCHEMA,
    Alternative,
    Attribution,
    Busy,
    Entry,
    Errors,
    Spread,
    Tuned,
    TunedDevice,
    Verified,
)
from overlap.serve.tuned_rules import EVIDENCE, ORDERS
from overlap.split import Split, canonical, violations
from overlap.workload import DTYPE_BYTES, Bucket, ModelShape, Workload
from tests.strategies import splits_of

LLAMA = ModelShape("llama-3.2-1b", 2048, 32, 8, 64, 8192, 16, norm_eps=1e-5, rope_theta=500000.0)
QWEN = ModelShape("qwen2.5-0.5b", 896, 14, 2, 64, 4864, 24, qkv_bias=True, rope_theta=1000000.0)
WINDOW = 2

FUSED = Split(fused_sdpa=True, masked_blocks="skip")
SLICES_1024 = Split(fused_sdpa=True, masked_blocks="skip", query_tile=1024, kv_tile=1024)
SLICES_2048 = Split(fused_sdpa=True, masked_blocks="skip", query_tile=2048, kv_tile=2048)
QUERY_TILES = Split(query_tile=256, masked_blocks="skip")
HEADS = Split(head_groups=4)
KV_TILES = Split(kv_tile=1024)
CHUNKS = Split(chunks=4, lag=1, masked_blocks="skip")
BATCH_CHUNKS = Split(chunks=2, chunk_axis="batch", lag=1)
UNCUT = Split()
PREFILL_SPLITS = (FUSED, SLICES_1024, SLICES_2048, QUERY_TILES, HEADS, KV_TILES, CHUNKS, BATCH_CHUNKS, UNCUT)
DECODE_SPLITS = (FUSED, HEADS, UNCUT, KV_TILES, BATCH_CHUNKS)

SIMULATED = {"overlap": "0.1.0", "model": "gaudi-model 1", "mode": "compile", "torch": "2.9.0"}
DEVICES: dict[str, tuple[str, str, dict[str, str]]] = {
    "host": ("host (some CPU, 1+1 threads)", "measured", {"overlap": "0.1.0", "torch": "2.9.0", "memory_pool": "none"}),
    "gaudi2": ("Gaudi2 (simulated by gaudi-model 1)", "simulated", SIMULATED),
    "gaudi3": ("Gaudi3 (simulated by gaudi-model 1)", "simulated", SIMULATED),
    "hpu": (
        "GAUDI2 (lazy_graphs, software 1.23.0)",
        "measured",
        {"overlap": "0.1.0", "torch": "2.9.0", "habana-torch-plugin": "1.23.0", "mode": "lazy_graphs"},
    ),
}


def spread(median: float, around: float = 0.01) -> Spread:
    return Spread(median=median, low=median * (1 - around), high=median * (1 + around))


def alternative(split: Split, latency_us: float = 120.0, order: str = "program", recipe: str = "") -> Alternative:
    return Alternative(split=split, order=order, latency_us=spread(latency_us), recipe=recipe)


def verified(**changes: Any) -> Verified:
    values: dict[str, Any] = {
        "verdict": "gain",
        "reason": "faster for sure, and the same tokens",
        "date": "2026-01-02",
        "model": "random weights",
        "stack": "transformers 5.0",
        "device": "host",
        "evidence": "measured",
        "block": spread(1.2),
        "model_speedup": spread(1.1),
        "model_over_eager": None,
        "model_latency_us": spread(1000.0),
        "untouched_latency_us": spread(1100.0),
        "tokens": 64,
        "tokens_equal": True,
        "first_difference": None,
        "tie": False,
        "logits_rel_l2": 0.001,
        "peak_bytes": None,
        "untouched_peak_bytes": None,
        "rounds": 12,
    }
    return Verified(**(values | changes))


def entry(
    bucket: Bucket | None = None,
    split: Split = QUERY_TILES,
    *,
    latency_us: float = 100.0,
    ratio: float = 1.5,
    bound_us: float = 50.0,
    **changes: Any,
) -> Entry:
    """`ratio` is that of the times, baseline over kept; it is 1 where nothing is changed."""
    ratio = ratio if split.changed() else 1.0
    values: dict[str, Any] = {
        "bucket": bucket or Bucket(),
        "pass_through": not split.changed(),
        "split": split,
        "order": "program",
        "evidence": "measured",
        "latency_us": spread(latency_us),
        "baseline_latency_us": spread(latency_us * ratio),
        "speedup": spread(ratio),
        "speedup_vs_stack": None,
        "attribution": Attribution(work=ratio, tiling=1.0, order=1.0) if split.changed() else None,
        "busy": Busy(mme=0.5, tpc=0.5, both=0.25, idle=0.25),
        "baseline_busy": Busy(mme=0.5, tpc=0.25, both=0.0, idle=0.25),
        "bound_us": bound_us,
        "gap": latency_us / bound_us - 1,
        "error": Errors(rel_l2=0.002, baseline_rel_l2=0.001),
        "peak_bytes": 1000,
        "baseline_peak_bytes": 2000,
        "samples": 12,
        "trace": "traces/kept.pt.trace.json.gz" if split.changed() else "traces/baseline.pt.trace.json.gz",
    }
    return Entry(**(values | changes))


def device(kind: str = "host", **changes: Any) -> TunedDevice:
    name, evidence, software = DEVICES.get(kind, (kind, "measured", {}))
    return TunedDevice(**({"kind": kind, "name": name, "evidence": evidence, "software": software} | changes))


def tuned(entries: Iterable[Entry] = (), model: ModelShape = LLAMA, kind: str = "host", **changes: Any) -> Tuned:
    """Sorted by bucket; entries get the evidence of the device. `software` and `name` are of the device."""
    of_device = {name: changes.pop(name) for name in ("software", "name", "evidence") if name in changes}
    here = changes.pop("device", device(kind, **of_device))
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "model": model,
        "tensor_parallel": 1,
        "window_layers": WINDOW,
        "device": here,
        "entries": [],
    }
    return Tuned(**(values | changes)).with_entries(_with(one, evidence=here.evidence) for one in entries)


def _with(one: Entry, **changes: Any) -> Entry:
    return Entry(**({name: getattr(one, name) for name in Entry.__struct_fields__} | changes))


def table64(model: ModelShape = LLAMA, kind: str = "gaudi2", **changes: Any) -> Tuned:
    """64 buckets with contexts that are multiples of 128; kept splits are canonical, some rows pass through."""
    prefill = [
        Bucket("prefill", *point) for point in itertools.product((1, 2), _powers(1024, 4), (0, *_powers(1024, 3)))
    ]
    decode = [Bucket("decode", batch, 1, context) for batch in (1, 4, 16, 64) for context in _powers(128, 8)]
    made = [_fitting(bucket, PREFILL_SPLITS, number, model) for number, bucket in enumerate(prefill)]
    made += [_fitting(bucket, DECODE_SPLITS, number, model) for number, bucket in enumerate(decode)]
    return tuned(made, model, kind, **changes)


def _powers(first: int, count: int) -> list[int]:
    return [first << turn for turn in range(count)]


def _fitting(bucket: Bucket, splits: Sequence[Split], number: int, model: ModelShape) -> Entry:
    """An entry with the next of `splits` that fits, and the one after it as alternative."""
    workload = Workload(model, bucket, 1, WINDOW)
    turned = [splits[(number + turn) % len(splits)] for turn in range(len(splits))]
    kept, other, *_ = [one for one in turned if not violations(one, workload) and canonical(one, workload) == one]
    latency = 100.0 + number
    others = (alternative(other, latency * 1.1, "list", "query_tiles" if other == QUERY_TILES else ""),)
    return entry(bucket, kept, latency_us=latency, speedup_vs_stack=spread(1.1), alternatives=others)


# -- hypothesis ------------------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.floats(1e-3, 1e6).map(lambda value: float(f"{value:.6g}"))
COUNTS = st.integers(0, 2**40)
SIZES = st.sampled_from([1, 3, 16, 100, 128, 1024, 2048])


@st.composite
def buckets(draw: st.DrawFn) -> Bucket:
    batch, context = draw(st.sampled_from([1, 2, 3, 8])), draw(st.sampled_from([0, 1, 100, 128, 1024, 4096]))
    if draw(st.booleans()):
        return Bucket("decode", batch, 1, max(1, context))
    return Bucket("prefill", batch, draw(SIZES), context)


@st.composite
def spreads(draw: st.DrawFn) -> Spread:
    """Also the open intervals of too few samples."""
    low, median, high = sorted(draw(st.tuples(NUMBERS, NUMBERS, NUMBERS)))
    if draw(st.integers(0, 3)) == 0:
        low, high = 0.0, math.inf
    return Spread(median=median, low=low, high=high)


@st.composite
def busys(draw: st.DrawFn) -> Busy:
    shares = st.integers(0, 100).map(lambda percent: percent / 100)
    mme, tpc = draw(shares), draw(shares)
    return Busy(mme=mme, tpc=tpc, both=min(mme, tpc, draw(shares)), idle=draw(shares))


@st.composite
def verdicts(draw: st.DrawFn) -> Verified:
    maybe = st.none() | COUNTS
    return verified(
        reason=draw(WORDS),
        evidence=draw(st.sampled_from(EVIDENCE)),
        block=draw(st.none() | spreads()),
        model_speedup=draw(spreads()),
        tokens_equal=draw(st.booleans()),
        first_difference=draw(maybe),
        peak_bytes=draw(maybe),
        logits_rel_l2=draw(NUMBERS),
    )


@st.composite
def entries(
    draw: st.DrawFn, model: ModelShape = LLAMA, bucket: Bucket | None = None, degree: int = 1, window: int = WINDOW
) -> Entry:
    """Of `bucket`, or of any."""
    bucket = bucket or draw(buckets())
    workload = Workload(model, bucket, degree, window)
    splits = st.just(UNCUT) | splits_of(workload).map(lambda one: canonical(one, workload))
    kept, factor = draw(splits), draw(st.floats(0.6, 1.8))
    latency, times = draw(NUMBERS), draw(st.floats(0.5, 4.0))
    factors = st.builds(Attribution, work=NUMBERS, tiling=NUMBERS, order=NUMBERS, overlap=st.none() | NUMBERS)
    others = st.builds(Alternative, split=splits, order=st.sampled_from(ORDERS), latency_us=spreads(), recipe=WORDS)
    return entry(
        bucket,
        kept,
        latency_us=latency,
        ratio=times,
        bound_us=draw(NUMBERS),
        speedup=spread((times if kept.changed() else 1.0) * factor),
        order=draw(st.sampled_from(ORDERS)),
        speedup_vs_stack=draw(st.none() | spreads()),
        attribution=draw(st.none() | factors),
        busy=draw(busys()),
        peak_bytes=draw(COUNTS),
        samples=draw(st.integers(1, 1000)),
        trace=draw(WORDS),
        alternatives=tuple(draw(st.lists(others, max_size=2))),
        verified=draw(st.none() | verdicts()),
    )


@st.composite
def softwares(draw: st.DrawFn, kind: str) -> dict[str, str]:
    """What a device of this kind may say of itself."""
    found = dict(DEVICES[kind][2])
    if kind == "host":
        return found | {"os": draw(WORDS)}
    found["mode"] = draw(st.sampled_from(["compile", "lazy", "lazy_graphs"]))
    prefix = "hpu" if kind == "hpu" else "gaudi"
    if draw(st.booleans()):
        found[f"{prefix}.softmax_mode"] = draw(st.sampled_from(["fast", "fp32"]))
    if draw(st.booleans()):
        block = draw(st.sampled_from(["512", "1024", "2048"]))
        found |= {"PT_HPU_SDPA_BR_FACTOR": block, "PT_HPU_SDPA_BC_FACTOR": block}
    return found


@st.composite
def tuned_configs(draw: st.DrawFn, kinds: Sequence[str] = tuple(DEVICES), most_entries: int = 3) -> Tuned:
    """A file of any model, degree, window and device, with entries of different buckets; also one without any."""
    base = draw(st.sampled_from([LLAMA, QWEN]))
    values = {name: getattr(base, name) for name in ModelShape.__dataclass_fields__}
    model = ModelShape(**(values | {"name": draw(WORDS), "dtype": draw(st.sampled_from(tuple(DTYPE_BYTES)))}))
    degree, window = draw(st.sampled_from([1, 2])), draw(st.integers(1, 3))
    kind = draw(st.sampled_from(kinds))
    shapes = draw(st.lists(buckets(), max_size=most_entries, unique=True))
    return tuned(
        [draw(entries(model, bucket, degree, window)) for bucket in shapes],
        model,
        kind,
        tensor_parallel=degree,
        window_layers=window,
        name=draw(WORDS),
        software=draw(softwares(kind)),
    )

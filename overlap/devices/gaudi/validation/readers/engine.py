"""reciprocating-engine: an engine that compiles its own recipes for Gaudi2 and launches them without PyTorch.

What its sources say of a run, in few words
    batch 1 on one card, and tensor parallelism: attention reads the whole cache, whatever is filled; capacity 1024
        unless given. Decode uses the fused attention node since it was added (the tables of the README).
    batches: the cache is compiled for the first of 256, 512, ... that holds the longest sequence; 64 tokens follow a
        prompt of 128. Before there were such buckets, the whole capacity was read.
    prefill: one block of all tokens over a cache of 1024, or 16 more than the prompt; a full mask, so nothing is
        skipped, and the logits of all tokens.
    device loop: the tables of the README have it on one card; older measurements launch every step from the host.
    tensor parallelism: two recipes per layer, an all-reduce in f32 behind each, launched by the host.
"""

from __future__ import annotations

import re
from dataclasses import replace

from overlap.devices.gaudi.validation.calls import AllReduce, Forward, Term
from overlap.devices.gaudi.validation.cases import Case
from overlap.devices.gaudi.validation.models import Model
from overlap.devices.gaudi.validation.predictor import Stack
from overlap.devices.gaudi.validation.readers.forwards import check_dtype, model_of, prefill, steps, whole_model
from overlap.devices.gaudi.validation.readers.units import measure
from overlap.devices.gaudi.validation.rows import Inexpressible, Row
from overlap.workload import Bucket

CAPACITY, FIRST_BUCKET, MARGIN = 1024, 256, 16
PROMPT, NEW_TOKENS = 128, 64
# Hidden size of a 70B model, whose all-reduces are given without it.
LARGE_HIDDEN, F32_BYTES = 8192, 4


def read_engine(row: Row) -> Case:
    """Whatever that project published, by the description of the workload."""
    for pattern, reason in REFUSED:
        if re.search(pattern, row.op, re.I):
            raise Inexpressible(reason)
    if re.search(r"all-reduces", row.op):
        return read_sums(row)
    assumed = check_dtype(row)
    if re.search(r"layer wall", row.op):
        return _layer(row)
    if re.search(r"prefill", row.op):
        return _prefill(row, assumed)
    if re.search(r"decode|step|TP\d", row.op):
        return _decode(row, assumed)
    raise Inexpressible("no whole layer, step or prefill")


REFUSED = (
    (r"recipe [AB] ", "part of a layer"),
    (r"layer (busy|idle)", "how a layer's time divides among the engines"),
    (r"scatter", "the in-place update of the cache is not modelled"),
    (r"data parallel", "several copies beside each other"),
)


def _decode(row: Row, assumed: tuple[str, ...]) -> Case:
    model, batch, degree = model_of(row), row.need("batch"), _cards(row)
    read, stack = cache_read(row, batch, degree), decode_stack(row, batch, degree)
    terms = (steps(model, batch, read, degree, stack),)
    how = measure(row, tokens=float(batch))
    return whole_model(row, "decode", model, terms, how, batch, degree, f"decode, cache {read}", assumed)


def _cards(row: Row) -> int:
    """Cards that share the model; a description such as `TP2` counts where the parameters say nothing."""
    said = re.search(r"TP(\d+)", row.op)
    return row.count("num_devices") or (int(said.group(1)) if said else 1)


def cache_read(row: Row, batch: int, degree: int) -> int:
    """Tokens of the cache that a decode step reads per sequence."""
    capacity = row.count("kv_capacity")
    if capacity is not None:
        return capacity
    needed = (row.count("in_len") or row.count("context") or PROMPT) + NEW_TOKENS
    whole = max(CAPACITY, needed)
    if batch == 1 or degree > 1 or "before KV buckets" in row.op:
        return whole
    bucket = FIRST_BUCKET
    while bucket < needed:
        bucket *= 2
    return min(bucket, whole)


def decode_stack(row: Row, batch: int, degree: int) -> Stack:
    """How a decode step of a row is run."""
    tables = row.section.startswith("README") or "PR #" in row.section
    loop = bool(re.search(r"with device loop|device window", row.op)) or (tables and "without" not in row.op)
    fused = tables and batch == 1
    return Stack(
        attention="fused" if fused else "plain",
        mode="hpu_graph",
        layers_per_recipe=1 if degree > 1 else 0,
        device_loop=loop and degree == 1,
    )


def _prefill(row: Row, assumed: tuple[str, ...]) -> Case:
    model, tokens, degree = model_of(row), row.need("seq"), _cards(row)
    batch = row.count("batch") or 1
    context = max(CAPACITY, tokens + MARGIN) - tokens
    stack = Stack(attention="plain", mode="hpu_graph", logits="all", layers_per_recipe=1 if degree > 1 else 0)
    terms = (prefill(model, batch, tokens, degree, stack, context),)
    how = measure(row, tokens=float(batch * tokens))
    return whole_model(row, "forward_direct", model, terms, how, batch, degree, f"prefill of {tokens}", assumed)


def _layer(row: Row) -> Case:
    """One layer of a step: what two of them take longer than one."""
    model, batch = model_of(row), row.need("batch")
    stack, bucket = Stack(device_loop=True), Bucket("decode", batch, 1, cache_read(row, batch, 1) - 1)
    terms = tuple(Term(Forward(_cut(model, layers), bucket, 1, stack), sign) for layers, sign in ((2, 1.0), (1, -1.0)))
    detail = f"one layer of a decode step, cache {bucket.key_tokens}"
    return whole_model(row, "layer", model, terms, measure(row), batch, 1, detail)


def _cut(model: Model, layers: int) -> Model:
    return replace(model, shape=replace(model.shape, layers=layers))


def read_sums(row: Row) -> Case:
    """The two all-reduces of a layer in decode."""
    degree, batch = row.need("num_devices"), row.count("batch") or 1
    return Case(
        row=row,
        kind="all_reduce",
        terms=(Term(AllReduce(LARGE_HIDDEN * F32_BYTES * batch, degree), 2),),
        measure=measure(row),
        workload=f"2 sums of {LARGE_HIDDEN} x {batch} f32 over {degree} cards",
        batch=batch,
    )

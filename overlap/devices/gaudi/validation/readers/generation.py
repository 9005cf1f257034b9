"""Generation with a framework: optimum-habana's script, as its authors and as LLM-Inference-Bench ran it.

Terms
    static shapes: one recipe serves all steps, so a prompt is padded to the length it will have in the end, and every
        step reads the whole cache. Bucketing reads only as much as is filled, rounded up.
    total: prompt and output together.

The first token of a generation is that of the prefill; the others take a step each.
"""

from __future__ import annotations

import re
from dataclasses import replace

from overlap.devices.gaudi.validation.calls import Term
from overlap.devices.gaudi.validation.cases import Case
from overlap.devices.gaudi.validation.predictor import Stack
from overlap.devices.gaudi.validation.readers.forwards import (
    check_dtype,
    growing,
    model_of,
    prefill,
    steps,
    whole_model,
)
from overlap.devices.gaudi.validation.readers.units import measure
from overlap.devices.gaudi.validation.rows import Inexpressible, Row

# The script computes the logits of all prompt tokens unless it is told not to.
PLAIN = Stack(attention="plain", softmax="exact", mode="hpu_graph", logits="all")
# Tokens that a bucket of the cache has, as the script's authors recommend.
CACHE_BUCKET = 128


def read_bench(row: Row) -> Case:
    """LLM-Inference-Bench: static shapes, scores materialised, HPU graphs; its rates count prompt and output."""
    assumed = check_dtype(row)
    model, batch, degree = model_of(row), row.need("batch"), row.count("num_devices") or 1
    prompt, output = row.need("in_len"), row.need("out_len")
    total = prompt + output
    how = measure(row, tokens=float(batch * total))
    whole = prefill(model, batch, total, degree, PLAIN)
    if row.params.get("kv_cache") is False:
        terms: tuple[Term, ...] = (Term(whole.call, output),)
        return whole_model(
            row, "forward_unfused", model, terms, how, batch, degree, f"{output} forwards of {total}", assumed
        )
    terms = (whole, *_static(row, steps(model, batch, total, degree, PLAIN, output - 1)))
    detail = f"{prompt} -> {output} tokens, static"
    return whole_model(row, "generation", model, terms, how, batch, degree, detail, assumed)


def _static(row: Row, term: Term) -> tuple[Term, ...]:
    return (term,) if term.count > 0 else ()


def read_script(row: Row) -> Case:
    """A row of optimum-habana: the prompt alone in prefill, a cache of the total length; rates count the output."""
    assumed = check_dtype(row)
    prompt, output = row.need("in_len"), row.need("out_len")
    model, batch, degree = model_of(row), row.need("batch"), row.count("num_devices") or 1
    stack, detail = script_stack(row.op), f"{prompt} -> {output} tokens"
    first = prefill(model, batch, prompt, degree, stack)
    # Fast softmax is for prefill only.
    decode = replace(stack, softmax="exact")
    if bucketed(row.op):
        rest: tuple[Term, ...] = growing(model, batch, prompt + 1, prompt + output - 1, degree, decode, CACHE_BUCKET)
    else:
        rest = _static(row, steps(model, batch, prompt + output, degree, decode, output - 1))
    how = measure(row, tokens=float(batch * output))
    return whole_model(row, "generation", model, (first, *rest), how, batch, degree, detail, assumed)


def script_stack(op: str) -> Stack:
    """What the description of a run says about its attention."""
    fused = bool(re.search(r"fused ?sdpa|flash", op, re.I)) and not re.search(r"\bno fused|without fused", op, re.I)
    fast = bool(re.search(r"fast softmax", op, re.I))
    graphs = not re.search(r"without hpu graphs|lazy(?! \+)", op, re.I)
    return replace(
        PLAIN,
        attention="fused" if fused else "plain",
        softmax="fast" if fast else "exact",
        mode="hpu_graph" if graphs else "lazy",
    )


def bucketed(op: str) -> bool:
    """Whether only the filled part of the cache is read."""
    return bool(re.search(r"bucket", op, re.I)) and not re.search(r"without (kv )?bucket|no bucket", op, re.I)


def read_baseline(row: Row) -> Case:
    """A regression threshold of optimum-habana's tests; most do not tell their prompt."""
    if "fp8" in row.dtype:
        check_dtype(row)
    model_of(row)
    if row.count("in_len") is None:
        raise Inexpressible("prompt length is not recorded")
    return read_script(row)

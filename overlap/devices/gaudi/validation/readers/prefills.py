"""Prefill of whole models as the gaudi-perf scripts of NAVER and Intel time it.

Their model runs under DeepSpeed, with HPU graphs on one card only, and computes the logits of all tokens. Attention is
the fused op with its causal flag and fast softmax. Their FLOP count takes attention as not masked and the K and V
projections as wide as that of Q, which reproduces the published rates from the published times to all digits.
"""

from __future__ import annotations

from overlap.devices.gaudi.validation.cases import Case
from overlap.devices.gaudi.validation.models import Model
from overlap.devices.gaudi.validation.predictor import Mode, Stack
from overlap.devices.gaudi.validation.readers.forwards import check_dtype, model_of, prefill, whole_model
from overlap.devices.gaudi.validation.readers.units import measure
from overlap.devices.gaudi.validation.rows import Row


def read_prefill(row: Row) -> Case:
    """A time, or a rate per card."""
    assumed = check_dtype(row)
    model, tokens = model_of(row), row.need("seq")
    batch, degree = row.count("batch") or 1, row.count("num_devices") or 1
    mode: Mode = "hpu_graph" if degree == 1 else "lazy"
    stack = Stack(attention="fused", softmax="fast", mode=mode, logits="all")
    how = measure(row, tokens=float(batch * tokens), flops=counted_flops(model, tokens) * batch / degree)
    terms = (prefill(model, batch, tokens, degree, stack),)
    return whole_model(row, "forward_fused", model, terms, how, batch, degree, f"prefill of {tokens}", assumed)


def counted_flops(model: Model, tokens: int) -> float:
    """FLOPs of one sequence as the source counts them."""
    one = model.shape
    linear = one.layers * (4 * one.hidden**2 + 3 * one.hidden * one.ffn) + model.vocab * one.hidden
    return 2.0 * tokens * linear + 4.0 * tokens**2 * one.hidden * one.layers

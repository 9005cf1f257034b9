"""Comparisons whose sources give a ratio, or two times, but not the shapes: only their direction can be checked.

They are asked for a model and lengths that are typical of the source and say so.
"""

from __future__ import annotations

from dataclasses import replace

from overlap.devices.gaudi.validation.calls import Term
from overlap.devices.gaudi.validation.cases import Case, Measure
from overlap.devices.gaudi.validation.models import find_model
from overlap.devices.gaudi.validation.predictor import Mode, Stack
from overlap.devices.gaudi.validation.readers.forwards import prefill, steps, whole_model
from overlap.devices.gaudi.validation.readers.units import checked, measure
from overlap.devices.gaudi.validation.rows import Inexpressible, Row

MODEL, LENGTH = "Llama-2-7b", 128
LONG_MODEL = "Llama-3.1-8B"


def read_graph_ratio(row: Row) -> Case:
    """HPU graphs against lazy mode; the ratio is with over without."""
    if row.unit != "x" or "TTFT" in row.op:
        raise Inexpressible("the prompt of a time to first token is not recorded")
    model = find_model(MODEL)

    def run(mode: Mode) -> tuple[Term, ...]:
        stack = Stack(attention="plain", mode=mode, logits="all")
        first = prefill(model, 1, LENGTH, 1, stack)
        return first, steps(model, 1, 2 * LENGTH, 1, stack, LENGTH - 1)

    detail = f"{LENGTH} -> {LENGTH} tokens with HPU graphs / without"
    how, assumed = checked(row, Measure(1.0, rate="throughput" in row.op)), ("model", "lengths")
    case = whole_model(row, "nominal", model, run("hpu_graph"), how, 1, 1, detail, assumed)
    return replace(case, over=run("lazy"))


def read_long_prompt(row: Row) -> Case:
    """One long prompt with the scores materialised, or with the fused op."""
    model, tokens, batch = find_model(LONG_MODEL), row.need("seq"), row.count("batch") or 1
    fused = "FusedSDPA" in row.op
    stack = Stack(attention="fused" if fused else "plain", mode="hpu_graph")
    terms = (prefill(model, batch, tokens, 1, stack),)
    detail = f"prefill of {tokens}, {stack.attention}"
    return whole_model(row, "nominal", model, terms, measure(row), batch, 1, detail, ("model",))

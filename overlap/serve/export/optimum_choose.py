"""What optimum-habana's text generation can be made to run in a bucket, told as a split.

Terms
    way: one choice of options. `plain` is attention over the whole score matrix with its softmax in fp32, `plain_bf16`
        in bf16; `full` is the fused attention with a mask, `fused` the same where the kernel masks by itself.
    parts: of the batch, through all layers: all attentions of a layer before all of its MLPs, whose residual is added
        in the next layer. That is what a block of turns in lockstep does here.
    layers: per graph. torch.compile takes the whole model or, by region, a layer; lazy mode ends a graph after every
        layer on one card, and nowhere on several.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from overlap.serve.export.choose import Shape
from overlap.serve.export.optimum_flags import flags
from overlap.serve.export.plan import Option
from overlap.serve.export.server import COMPILE
from overlap.split import Split, canonical, violations
from overlap.workload import ModelShape, Workload

PLAIN, PLAIN_BF16, FULL, FUSED = ("plain", "plain_bf16", "full", "fused")
FAMILIES = ("qwen2", "qwen3", "llama", "mistral")


@dataclass(frozen=True, order=True)
class Way:
    """One choice; `layers` of 0 is the whole model."""

    attention: str = FUSED
    parts: int = 1
    layers: int = 1

    def runs(self, workload: Workload) -> Split | None:
        """The split that it runs, none where it does not fit."""
        decode = workload.bucket.phase == "decode"
        split = Split(
            chunks=self.parts,
            chunk_axis="batch" if self.parts > 1 else "query",
            turn="block" if self.parts > 1 else "stage",
            softmax="fast" if self.attention == PLAIN_BF16 and not decode else "exact",
            fused_sdpa=self.attention in (FULL, FUSED) and not decode,
            masked_blocks="skip" if self.attention == FUSED and not decode else "compute",
            layers_per_graph=self.layers % workload.window_layers,
        )
        return None if violations(split, workload) else canonical(split, workload)

    @property
    def words(self) -> str:
        """For a table."""
        names = {PLAIN: "plain", PLAIN_BF16: "plain, bf16 softmax", FULL: "fused with a mask", FUSED: "fused"}
        parts = f", {self.parts} parts of the batch" if self.parts > 1 else ""
        return names[self.attention] + parts + (", one graph" if not self.layers else "")


def family_of(model: ModelShape) -> str:
    """The family of a model by what only its layers have, else by its name; empty where nobody knows."""
    if model.qk_norm or model.qkv_bias:
        return "qwen3" if model.qk_norm else "qwen2"
    # `Meta-Llama-3.1-8B`, `TinyLlama`; but Llama 4 is another family.
    return next((one for one in FAMILIES if re.search(rf"{one}(?!-?4)", model.name.lower())), "")


def ways(shape: Shape, family: str, mode: str) -> Iterator[Way]:
    """All that can be asked for; the usual way first."""
    cards, batch = shape.workload.tensor_parallel, shape.entry.bucket.batch
    layers = (1, 0) if mode == COMPILE else ((1,) if cards == 1 else (0,))
    split = cards > 1 and family in flags()["--attn_batch_split"].models
    kinds = [FUSED, FULL, PLAIN] if family in flags()["--use_flash_attention"].models else [PLAIN]
    # A softmax in bf16 changes answers of Qwen2, which serving stacks keep in fp32.
    if family in flags()["--attn_softmax_bf16"].models and family != "qwen2":
        kinds.append(PLAIN_BF16)
    for graph in layers:
        for parts in range(1, min(batch, 4) + 1 if split else 2):
            yield from (Way(kind, parts, graph) for kind in kinds)


def choose(shape: Shape, family: str, mode: str, prompt: Way | None = None) -> tuple[Way, Option]:
    """The fastest way that was timed, with the graphs of the `prompt` before it; the usual one where nothing was."""
    able = [one for one in ways(shape, family, mode) if prompt is None or one.layers == prompt.layers]
    known = [(one, found) for one in able if (found := _option(one, shape)).time_us is not None]
    if not known:
        return able[0], _option(able[0], shape)
    # At the same time the first, which is the more usual one.
    return min(known, key=lambda pair: pair[1].time_us or 0.0)


def _option(way: Way, shape: Shape) -> Option:
    split = way.runs(shape.workload)
    known = None if split is None else shape.times.get(split)
    if known is None:
        note = "nobody timed this"
        return Option(what=way.words, split=split, time_us=None, loss=None, how="unknown", note=note)
    loss = known.time_us / shape.entry.latency_us.median - 1
    return Option(what=way.words, split=split, time_us=known.time_us, loss=loss, how="known", note=known.note)

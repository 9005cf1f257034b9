"""What vLLM on Gaudi runs under settings that hold for a whole server, told as a split.

Terms
    attention: `fused` is the default, one fused causal attention per layer; `naive` is plain attention over the whole
        score matrix, with its softmax in fp32, `naive_fast` with its softmax in bf16; `slices` is the fused attention
        over a prefix in slices of `chunk` tokens where a prompt has `threshold` keys or more, else `fused`.
    layers: layers per graph; a window that was measured without a fence is `layers` of the window.
    unknown: a shape for which no split says exactly what the stack does.

Contract: `ServerSettings().runs` is `overlap.search.bench.stack_split`, which is what sweeps time as the stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from overlap.split import Split, canonical, violations
from overlap.workload import Bucket, Workload

FUSED, NAIVE, NAIVE_FAST, SLICES = "fused", "naive", "naive_fast", "slices"
COMPILE, LAZY = MODES = ("compile", "lazy")
# Modes of sweeps; replayed graphs are a feature of lazy mode.
LAZY_SWEEPS = ("lazy", "lazy_graphs", "hpu_graph")
# Both what slices are multiples of and the least threshold (vllm-gaudi 091bbadd, extension/utils.py).
SLICE_STEP = 1024


@dataclass(frozen=True, order=True)
class ServerSettings:
    """One choice for a whole server; sizes are tokens."""

    attention: str = FUSED
    chunk: int = 0
    threshold: int = 0
    layers: int = 1

    @property
    def count(self) -> int:
        """How many choices differ from the default: the tie-break between equally fast ones."""
        return (self.attention != FUSED) + (self.layers != 1)

    def runs(self, workload: Workload) -> Split | None:
        """The split that the stack runs, none where no split says it."""
        graph = self.layers % workload.window_layers
        if workload.bucket.phase == "decode":
            return canonical(Split(layers_per_graph=graph), workload)
        if self.attention in (NAIVE, NAIVE_FAST):
            softmax = "fast" if self.attention == NAIVE_FAST else "exact"
            return canonical(Split(softmax=softmax, layers_per_graph=graph), workload)
        whole = Split(fused_sdpa=True, masked_blocks="skip", layers_per_graph=graph)
        return self._sliced(workload, whole) if self._slices(workload) else canonical(whole, workload)

    def _slices(self, workload: Workload) -> bool:
        bucket = workload.bucket
        return self.attention == SLICES and may_slice(bucket) and bucket.key_tokens >= self.threshold

    def _sliced(self, workload: Workload, whole: Split) -> Split | None:
        """Chunks of unequal length have no split: the stack cuts them from the end."""
        query = workload.bucket.query
        tile = self.chunk if self.chunk < query else 0
        if tile and query % tile:
            return None
        split = replace(whole, query_tile=tile, kv_tile=min(self.chunk, workload.bucket.key_tokens))
        return None if violations(split, workload) else canonical(split, workload)


def may_slice(bucket: Bucket) -> bool:
    """Whether the stack slices such prompts where they are long enough; one token is no prompt to it."""
    return bucket.phase == "prefill" and bucket.batch == 1 and bucket.query > 1 and bucket.context > 0


def layers_of(split: Split, workload: Workload) -> int:
    """Layers per graph of a split."""
    return split.layers_per_graph or workload.window_layers


def mode_of(software: Mapping[str, str]) -> str:
    """The mode of a server that runs as the sweep did; that of vLLM itself where the sweep had none of the two."""
    return LAZY if software.get("mode") in LAZY_SWEEPS else COMPILE


def graphs(mode: str, layers: int, window: int) -> bool:
    """Whether a server of `mode` can be told to put `layers` layers in a graph; `window` were measured."""
    return mode == LAZY or layers in (1, window)


def slice_sizes(split: Split, block: int) -> Iterator[int]:
    """Slices that could make the stack run `split`."""
    if split.fused_sdpa and split.kv_tile:
        for size in {split.query_tile, split.kv_tile}:
            if size > block and size % SLICE_STEP == 0:
                yield size

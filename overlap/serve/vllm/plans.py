"""What the entries of a tuned config come to at the seam, where only one layer's attention can be seen.

Terms
    plan: what to do with a shape: a split within the layer, or the reason why the stack's own attention runs it.
    partly: a split also cuts what the seam cannot see, such as chunks through layers; the plan is the rest of it.

All plans are made when the config is read. Looking one up reads a plain dict and writes nothing, so that it may be
traced by a compiler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from overlap.serve.attend import within_layer
from overlap.serve.tuned import Entry, Tuned
from overlap.split import Split
from overlap.workload import Bucket

PREFILL = "prefill"
UNTUNED = "no bucket of this shape"


@dataclass(frozen=True)
class Plan:
    """What to do at a bucket; `reason` says why nothing, and is empty where `split` runs."""

    bucket: Bucket
    split: Split
    name: str
    reason: str = ""

    @property
    def needs_causal(self) -> bool:
        """Whether keys behind a row are left out, whatever a mask says of them."""
        return self.split.masked_blocks == "skip"

    def __str__(self) -> str:
        """For the log: `prefill 1x2048+0: query_tile=256`."""
        return f"{self.name}: {self.reason or self.split}"


def plans(tuned: Tuned) -> Mapping[tuple[int, int, int], Plan]:
    """Plans of the prefill buckets by (batch, query, context)."""
    made = [plan_of(entry) for entry in tuned.entries if entry.bucket.phase == PREFILL]
    return {(one.bucket.batch, one.bucket.query, one.bucket.context): one for one in made}


def plan_of(entry: Entry) -> Plan:
    """The plan of one entry."""
    inner = replace(within_layer(entry.split, entry.bucket.query), projections="fused", layers_per_graph=0)
    partly = ", within the layer only" if inner != entry.split else ""
    return Plan(entry.bucket, inner, f"{entry.bucket}{partly}", _reason(entry, inner))


def _reason(entry: Entry, inner: Split) -> str:
    """Why an entry does not run; empty if it does."""
    over = entry.speedup_vs_stack
    if entry.pass_through:
        return "the baseline was the best"
    if not inner.changed():
        return "nothing of the split is within a layer"
    if over is not None and over.high < 1:
        return "the stack's own attention was faster"
    if inner.fused_sdpa and inner.kv_tile:
        return "slices of the fused attention are VLLM_HPU_FSDPA_SLICE_*"
    if inner.fused_sdpa and not inner.query_tile and inner.head_groups == 1:
        return "the split is the stack's own attention"
    return "a single token" if entry.bucket.query == 1 else ""

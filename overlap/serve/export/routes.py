"""By which route vLLM on Gaudi can be made to run a split, axis by axis.

Terms
    level: 0 is settings alone, 1 our plug-in for the attention of a prefill, none neither of them.
    beyond: why an axis needs more than a level can do, in words.
    override: what the plug-in does in one layer's prefill attention. It changes neither what is around the attention
        nor where graphs end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from overlap.serve.export.server import (
    FUSED,
    NAIVE,
    NAIVE_FAST,
    SLICES,
    ServerSettings,
    graphs,
    layers_of,
    slice_sizes,
)
from overlap.split import Split, canonical
from overlap.workload import Workload

ANOTHER_MODEL = "needs another model class, for the decoder's loop over its layers changes"
PREFILL_ONLY = "the plug-in replaces the attention of a prefill only"
# Axes that no level reaches.
BEYOND: Mapping[str, str] = {
    "chunks": f"chunks travel through projections and MLP, which {ANOTHER_MODEL}",
    "projections": "separate projections need other weights than vLLM loads",
}
# Axes of one layer's attention, which the plug-in computes; settings reach none of them but in the forms of the stack.
WITHIN = ("head_groups", "query_tile", "kv_tile", "masked_blocks", "normalise", "softmax", "fused_sdpa")


@dataclass(frozen=True)
class Route:
    """The lowest level that runs a split, the settings that level 0 takes for it, and why no lower one does."""

    level: int | None
    settings: ServerSettings | None
    reasons: tuple[str, ...]


def route(split: Split, workload: Workload, mode: str, block: int) -> Route:
    """The route of `split` on a server of `mode`."""
    split = canonical(split, workload)
    if reasons := _unreachable(split, workload, mode):
        return Route(None, None, reasons)
    if (settings := level0(split, workload, block)) is not None:
        return Route(0, settings, ())
    changed = ", ".join(f"{name}={value}" for name, value in split.changed().items() if name in WITHIN)
    why = f"{changed or 'unsplit attention'}: no setting does this, the plug-in computes it in every layer's prefill"
    if reason := not_overridable(split, workload):
        return Route(None, None, (reason,))
    return Route(1, None, (why,))


def level0(split: Split, workload: Workload, block: int) -> ServerSettings | None:
    """The settings that make the stack run `split`, none if there are none."""
    layers = layers_of(split, workload)
    able = [ServerSettings(attention, layers=layers) for attention in (FUSED, NAIVE, NAIVE_FAST)]
    for size in sorted(slice_sizes(split, block)):
        if workload.bucket.key_tokens >= size:
            able.append(ServerSettings(SLICES, size, max(size, workload.bucket.key_tokens), layers))
    return next((one for one in able if one.runs(workload) == split), None)


def _unreachable(split: Split, workload: Workload, mode: str) -> tuple[str, ...]:
    reasons = [f"{name}={value}: {BEYOND[name]}" for name, value in split.changed().items() if name in BEYOND]
    layers = layers_of(split, workload)
    if not graphs(mode, layers, workload.window_layers):
        reasons.append(f"layers_per_graph={layers}: in compile mode a graph holds one layer or all of them")
    return tuple(reasons)


def overridable(split: Split, workload: Workload) -> bool:
    """Whether the plug-in can run the attention of `split`, wherever graphs end."""
    return not not_overridable(split, workload)


def not_overridable(split: Split, workload: Workload) -> str:
    """Why the plug-in cannot run the attention of `split`; empty if it can."""
    for reason in (rule(split, workload) for rule in RULES):
        if reason:
            return reason
    return ""


def _phase(split: Split, workload: Workload) -> str:
    if workload.bucket.phase == "decode":
        return f"{split}: {PREFILL_ONLY}"
    return "one token: vLLM takes it for decode" if workload.bucket.query == 1 else ""


def _around(split: Split, _: Workload) -> str:
    return next((f"{name}={value}: {BEYOND[name]}" for name, value in split.changed().items() if name in BEYOND), "")


def _merged(split: Split, _: Workload) -> str:
    if split.fused_sdpa and split.kv_tile:
        return f"kv_tile={split.kv_tile} of a fused attention: slices are merged by vLLM's own settings only"
    return ""


def _stock(split: Split, workload: Workload) -> str:
    """What the plug-in leaves to the stack, for there is nothing to do."""
    inner = attention_only(split, workload)
    if not inner.changed():
        return "unsplit attention: the plug-in only runs what is split within a layer"
    if inner.fused_sdpa and not inner.query_tile and inner.head_groups == 1:
        return f"{inner}: one fused attention is what the stack runs, and its mask is the stack's choice"
    return ""


RULES: tuple[Callable[[Split, Workload], str], ...] = (_phase, _around, _merged, _stock)


def attention_only(split: Split, workload: Workload) -> Split:
    """The part of a split that the plug-in is told: graphs end where the server's settings say."""
    return canonical(replace(split, layers_per_graph=0), workload)

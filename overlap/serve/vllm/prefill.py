"""Tuned prefill attention in vLLM on Gaudi: a subclass of the stack's `ModuleFusedSDPA`, one per layer.

Terms
    seam: that class; see `overlap.serve.vllm.call` for its arguments.
    shared: what all layers of a process have in common: the plans of a config, and the tally.

Contract: the config is read when the first layer is made, never at import and never in a forward. What a layer does not
run tuned, it hands to the stack's own forward with exactly the arguments it got. A forward decides by shapes alone,
writes nothing while a compiler traces it, and is the same code for all layers, so that they share what is compiled.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from overlap.serve.attend import Frame, attend
from overlap.serve.tuned import Entry, Tuned
from overlap.serve.tuned_file import load
from overlap.serve.vllm.call import Call, Shard, obstacle, read
from overlap.serve.vllm.here import check_here
from overlap.serve.vllm.plans import UNTUNED, Plan, plans
from overlap.serve.vllm.tally import Tally
from overlap.serve.vllm.tiles import fused_tiles
from overlap.workload import Workload

log = logging.getLogger("vllm.plugins.overlap")


@dataclass(frozen=True)
class Shared:
    """What the layers of a process share; `path` names it."""

    path: str
    shard: Shard
    plans: Mapping[tuple[int, int, int], Plan]
    tally: Tally


@functools.cache
def shared(path: str) -> Shared:
    """The config at `path`, read and compared with this process once.

    Raises:
        TunedError: it is damaged, or for something else.
    """
    tuned = load(Path(path))
    for warning in check_here(tuned):
        log.warning("overlap: %s", warning)
    shape = Workload(tuned.model, tensor_parallel=tuned.tensor_parallel, window_layers=tuned.window_layers).shard
    shard = Shard(shape.heads, shape.kv_heads, shape.head_dim, getattr(torch, shape.dtype))
    made = Shared(path, shard, plans(tuned), Tally())
    _tell(made, tuned)
    made.tally.tell_at_end()
    return made


def _tell(made: Shared, tuned: Tuned) -> None:
    """One line per bucket."""
    log.info("overlap: %s was tuned on %s (%s)", made.path, tuned.device.name, tuned.device.evidence)
    worth = {entry.bucket: _worth(entry) for entry in tuned.entries}
    for plan in made.plans.values():
        log.info("overlap: %s%s", plan, "" if plan.reason else f", {worth[plan.bucket]}")


def _worth(entry: Entry) -> str:
    """What an entry was worth when it was tuned, over what the server would run without it where that was timed."""
    if entry.speedup_vs_stack is not None:
        return f"when tuned {entry.speedup_vs_stack.median:.3f}x over the stack"
    return f"when tuned {entry.speedup.median:.3f}x over the unsplit block"


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def note_compiled(path: str, what: str) -> bool:
    """Count a trace. A compiler calls this once, where it traces, and keeps what it gives back."""
    shared(path).tally.compiled(what)
    return True


class TunedPrefill(torch.nn.Module):
    """Stands before the stack's class in the bases of `tuned_class`."""

    config_path = ""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._overlap = shared(self.config_path)

    def forward(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """Attention [B, H, T, D] as the stack calls it."""
        call = read(arguments, named)
        plan = self._plan(call) if call is not None else None
        reason = "an argument that is not known" if call is None else self._reason(call, plan)
        self._note(plan, reason)
        if reason or call is None or plan is None:
            return self._stock(*arguments, **named)
        return self._tuned(call, plan)

    def _plan(self, call: Call) -> Plan | None:
        """The plan of the call's shape, if there is one."""
        if call.query.dim() != 4 or call.key.dim() != 4:
            return None
        batch, tokens = call.query.shape[0], call.query.shape[2]
        context = call.key.shape[2] - tokens
        if not torch.compiler.is_compiling():
            return self._overlap.plans.get((batch, tokens, context))
        # Sizes may be symbols here: compared one by one, all untuned shapes may still share a graph.
        for (one, query, cached), plan in self._overlap.plans.items():
            if batch == one and tokens == query and context == cached:
                return plan
        return None

    def _reason(self, call: Call, plan: Plan | None) -> str:
        """Why the call passes through; empty if it runs tuned."""
        differs = self._overlap.shard.differs(call)
        if differs or plan is None:
            return differs or UNTUNED
        return plan.reason or obstacle(call, plan)

    def _note(self, plan: Plan | None, reason: str) -> None:
        """Count the call; while a compiler traces it, count the trace instead."""
        what = plan.name if plan is not None else ""
        if torch.compiler.is_compiling():
            note_compiled(self._overlap.path, f"not tuned, {reason}" if reason else what)
        elif reason:
            self._overlap.tally.went_through(reason)
        else:
            self._overlap.tally.ran(what)

    def _tuned(self, call: Call, plan: Plan) -> torch.Tensor:
        if plan.split.fused_sdpa:
            return fused_tiles(self._stock, call, plan.split)
        bucket = plan.bucket
        frame = Frame(bucket, bucket.batch, bucket.query, bucket.context)
        bias = frame.bias(call.attn_mask, call.query.dtype, call.query.device)
        return attend(call.query, call.key, call.value, bias, plan.split, frame).transpose(1, 2)

    def _stock(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """The stack's own forward."""
        made: torch.Tensor = super().forward(*arguments, **named)
        return made


def tuned_class(base: type, path: str) -> type[TunedPrefill]:
    """A subclass of `base` that runs by the config at `path`; it has the name that quantisation looks for."""
    return type(base.__name__, (TunedPrefill, base), {"config_path": path, "__qualname__": base.__qualname__})

"""Configs and calls for tests of the plug-in for vLLM, and fixtures that find the stand-in in `vllm_double/`.

Fixtures are had by assignment: `stack, layer = vllm_calls.stack, vllm_calls.layer`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from overlap.serve.tuned import SCHEMA, Busy, Entry, Errors, Spread, Tuned, TunedDevice
from overlap.serve.tuned_file import save_json
from overlap.serve.vllm.call import Call
from overlap.serve.vllm.prefill import TunedPrefill, tuned_class
from overlap.split import Split
from overlap.workload import Bucket, ModelShape

DOUBLE = Path(__file__).resolve().parent / "vllm_double"
GQA = ModelShape("gqa", hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=48, layers=4, dtype="float32")
MHA = replace(GQA, name="mha", kv_heads=4)
ONE = Spread(median=1.0, low=1.0, high=1.0)
TILED = Split(query_tile=8, masked_blocks="skip")


def entry(split: Split, *shape: int, **more: Any) -> Entry:
    """An entry of invented times at a prefill bucket (batch, query, context)."""
    busy = Busy(mme=0.5, tpc=0.5, both=0.2, idle=0.2)
    values = {
        "bucket": Bucket("prefill", *(shape or (1, 32, 0))),
        "pass_through": False,
        "split": split,
        "order": "program",
        "evidence": "measured",
        "latency_us": ONE,
        "baseline_latency_us": ONE,
        "speedup": ONE,
        "speedup_vs_stack": None,
        "attribution": None,
        "busy": busy,
        "baseline_busy": busy,
        "bound_us": 1.0,
        "gap": 0.0,
        "error": Errors(rel_l2=0.0, baseline_rel_l2=0.0),
        "peak_bytes": 1,
        "baseline_peak_bytes": 1,
        "samples": 20,
        "trace": "trace.json",
    }
    return Entry(**{**values, **more})


def tuned(*entries: Entry, model: ModelShape = GQA, degree: int = 1, **device: Any) -> Tuned:
    """A config of a Gaudi 3."""
    told = {"kind": "gaudi3", "name": "Gaudi 3", "evidence": "measured", "software": {}, **device}
    return Tuned(
        schema=SCHEMA,
        model=model,
        tensor_parallel=degree,
        window_layers=2,
        device=TunedDevice(**told),
        entries=list(entries),
    )


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in's module of the seam, imported anew and forgotten afterwards."""
    monkeypatch.syspath_prepend(str(DOUBLE))
    yield __import__("vllm_gaudi.extension.utils", fromlist=["utils"])
    for name in [one for one in sys.modules if one.split(".")[0] in ("vllm", "vllm_gaudi")]:
        del sys.modules[name]


@pytest.fixture
def layer(stack: Any, tmp_path: Path) -> Callable[..., TunedPrefill]:
    """Make a tuned layer of a config."""

    def make(config: Tuned) -> TunedPrefill:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        save_json(config, path)
        return tuned_class(stack.ModuleFusedSDPA, str(path))(None)

    return make


def call(
    model: ModelShape, batch: int = 1, tokens: int = 32, context: int = 0, mask: torch.Tensor | None = None, **more: Any
) -> Call:
    """A call as vllm-gaudi makes it."""
    generator = torch.Generator().manual_seed(batch * 1000 + tokens + context)
    query, key, value = (
        torch.randn(batch, length, heads, model.head_dim, generator=generator).transpose(1, 2)
        for length, heads in (
            (tokens, model.heads),
            (context + tokens, model.kv_heads),
            (context + tokens, model.kv_heads),
        )
    )
    lengths = torch.full((batch,), tokens, dtype=torch.int32) if mask is None else None
    made = Call(query, key, value, mask, 0.0, True, model.head_dim**-0.5, "fast", True, lengths, "right")
    return replace(made, **more)


def flat(one: Call) -> tuple[Any, ...]:
    """Its arguments by position."""
    return tuple(vars(one).values())


def bias(tokens: int, context: int, *real: tuple[int, int], lowest: float = float("-inf")) -> torch.Tensor:
    """vllm-gaudi's mask [B, 1, T, S]: causal, with `real` cached and new tokens in each sequence."""
    keys, rows = torch.arange(context + tokens), torch.arange(tokens).unsqueeze(1)
    masks = []
    for cached, new in real:
        hidden = (keys >= context) & ((keys - context > rows) | (keys - context >= new))
        masks.append(hidden | ((keys < context) & (keys >= cached)))
    return torch.zeros(len(real), 1, tokens, context + tokens).masked_fill(torch.stack(masks).unsqueeze(1), lowest)


def untuned(made: TunedPrefill) -> str:
    """The only reason for which calls passed through."""
    counts = made._overlap.tally
    assert not counts.tuned
    return next(iter(counts.passed))


def passes(made: TunedPrefill, one: tuple[Any, ...], **named: Any) -> None:
    """Check that a call arrives at the stack as it is."""
    seen: list[tuple[Any, ...]] = []
    made._hpu_kernel_fsdpa = None
    base = type(made).__mro__[2]

    def forward(self: Any, *arguments: Any, **more: Any) -> torch.Tensor:
        seen.append((arguments, more))
        return torch.zeros(1)

    kept, base.forward = base.forward, forward  # type: ignore[attr-defined]
    try:
        made(*one, **named)
    finally:
        base.forward = kept  # type: ignore[attr-defined]
    ((arguments, more),) = seen
    assert [id(part) for part in arguments] == [id(part) for part in one]
    assert more == named

"""Tuned prefill attention at vLLM's seam: values, what passes through, and what compilers see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import torch

from overlap.serve.tuned import Entry, Spread
from overlap.serve.vllm.call import read
from overlap.serve.vllm.plans import plan_of
from overlap.serve.vllm.prefill import shared
from overlap.split import Split
from overlap.workload import ModelShape
from tests import vllm_calls
from tests.vllm_calls import GQA, MHA, TILED, bias, call, entry, flat, passes, tuned, untuned

# Fixtures; imported by name, every use would look like a second definition.
stack, layer = vllm_calls.stack, vllm_calls.layer
SPLITS = (
    Split(query_tile=8, masked_blocks="skip"),
    Split(query_tile=8, kv_tile=8, masked_blocks="skip", normalise="after"),
    Split(query_tile=4, kv_tile=12),
    Split(head_groups=2),
    Split(softmax="fast", query_tile=16, masked_blocks="skip"),
    Split(fused_sdpa=True, query_tile=8, masked_blocks="skip"),
    Split(fused_sdpa=True, query_tile=8),
    Split(fused_sdpa=True, head_groups=2),
    Split(chunks=2, lag=1, masked_blocks="skip"),
)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [GQA, MHA], ids=lambda model: model.name)
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_a_tuned_layer_computes_what_the_stack_does(layer: Any, stack: Any, split: Split, model: ModelShape) -> None:
    made = layer(tuned(entry(split, 1, 32, 0), entry(split, 2, 32, 16), model=model))
    stock = stack.ModuleFusedSDPA(None)
    chunked = [bias(32, 16, (16, 32), (5, 20)), bias(32, 16, (9, 32), lowest=-3e38)]
    for one in (call(model), call(model, mask=bias(32, 0, (0, 20))), *(call(model, 2, 32, 16, m) for m in chunked)):
        torch.testing.assert_close(made(*flat(one)), stock(*flat(one)), rtol=1e-5, atol=1e-5)
    counts = made._overlap.tally
    assert counts.tuned.total() == 4
    assert not counts.passed


@pytest.mark.parametrize("split", SPLITS[:2], ids=str)
def test_padding_behind_needs_no_mask(layer: Any, stack: Any, split: Split) -> None:
    """What lies behind the real tokens may be anything finite: no real row sees it."""
    made, one = layer(tuned(entry(split))), call(GQA)
    changed = replace(one, key=one.key.clone(), value=one.value.clone(), valid_sequence_lengths=torch.tensor([20]))
    changed.key[:, :, 20:] = 1e3
    changed.value[:, :, 20:] = -1e3
    assert torch.equal(made(*flat(changed))[:, :, :20], made(*flat(one))[:, :, :20])
    assert made._overlap.tally.tuned.total() == 2


def test_bfloat16_is_as_near_to_the_truth_as_the_stack(layer: Any, stack: Any) -> None:
    model = replace(GQA, dtype="bfloat16")
    made, stock, truth = layer(tuned(entry(SPLITS[0]), model=model)), stack.ModuleFusedSDPA(None), call(model)
    one = replace(truth, **{name: getattr(truth, name).bfloat16() for name in ("query", "key", "value")})
    wanted = stock(
        *(part.float() if torch.is_tensor(part) and part.is_floating_point() else part for part in flat(one))
    )
    error, stocks = ((found(*flat(one)).float() - wanted).norm() for found in (made, stock))
    assert error < 2 * stocks + 1e-3
    assert made._overlap.tally.tuned.total() == 1


def test_a_card_has_its_part_of_the_heads(layer: Any, stack: Any) -> None:
    split = Split(query_tile=8, masked_blocks="skip")
    made = layer(tuned(entry(split), model=replace(MHA, kv_heads=2), degree=4))
    part = call(replace(MHA, heads=1, kv_heads=1))
    torch.testing.assert_close(made(*flat(part)), stack.ModuleFusedSDPA(None)(*flat(part)), rtol=1e-5, atol=1e-5)
    assert made._overlap.tally.tuned.total() == 1


def test_tiles_of_the_fused_attention_see_what_they_may_and_no_more(layer: Any, stack: Any) -> None:
    made = layer(tuned(entry(Split(fused_sdpa=True, query_tile=8, masked_blocks="skip", head_groups=2))))
    made.calls = []
    made(*flat(call(GQA)))
    seen = [(query.shape[1:3], key.shape[1:3], mask is None, causal) for query, key, _, mask, causal, *_ in made.calls]
    assert seen == [
        ((2, 8), (1, 8 * (tile + 1)), tile == 0, tile == 0)  # the kernel's causal mode at the first key alone
        for _ in range(2)
        for tile in range(4)
    ]


# -- what passes through -----------------------------------------------------------------------------------------------

FULL = torch.zeros(1, 1, 32, 32)
PLANS = {
    "the baseline was the best": entry(Split(), pass_through=True),
    "nothing of the split is within a layer": entry(Split(chunks=2, chunk_axis="batch", lag=1), 2, 32, 0),
    "the stack's own attention was faster": entry(TILED, speedup_vs_stack=Spread(median=0.8, low=0.7, high=0.9)),
    "slices of the fused attention are VLLM_HPU_FSDPA_SLICE_*": entry(
        Split(fused_sdpa=True, query_tile=8, kv_tile=8, masked_blocks="skip")
    ),
    "the split is the stack's own attention": entry(Split(fused_sdpa=True, masked_blocks="skip")),
}
CALLS: dict[str, list[dict[str, Any]]] = {
    "no bucket of this shape": [{"tokens": 24}, {"tokens": 32, "context": 8}, {"batch": 2}, {"tokens": 1}],
    "attention of another shape": [
        {"model": replace(GQA, heads=8)},
        {"model": replace(GQA, head_dim=32)},
        {"query": torch.zeros(4, 32, 16)},
    ],
    "keys of another shape": [{"model": MHA}, {"model": replace(GQA, kv_heads=1)}, {"key": torch.zeros(2, 32, 16)}],
    "values of another shape than keys": [{"value": torch.zeros(1, 2, 32, 8)}],
    "another dtype": [
        {name: torch.zeros(1, 2, 32, 16, dtype=dtype) for name in ("key", "value")}
        for dtype in (torch.bfloat16, torch.float8_e4m3fn)
    ],
    "a sliding window": [{"window_size": (16, 0)}],
    "attention sinks": [{"sinks": torch.zeros(4)}],
    "dropout": [{"dropout_p": 0.1}],
    "another scaling": [{"scale": 0.5}, {"scale": 1.0}],
    "attention that is not causal": [{"is_causal": False}],
    "padding on the left": [{"padding_side": "left"}],
    "a mask of another shape": [
        {"mask": torch.zeros(shape)} for shape in ((1, 4, 32, 32), (1, 1, 1, 32), (32, 32), (3, 1, 32, 32))
    ]
    + [{"mask": FULL.bool()}],
    "a mask that need not be causal": [{"mask": FULL, "is_causal": False}],
}


@pytest.mark.parametrize(("reason", "one"), PLANS.items(), ids=list(PLANS))
def test_entries_that_do_not_run(layer: Any, reason: str, one: Entry) -> None:
    made = layer(tuned(one))
    passes(made, flat(call(GQA, one.bucket.batch)))
    assert untuned(made) == reason


@pytest.mark.parametrize(
    ("reason", "more"),
    [(reason, more) for reason, several in CALLS.items() for more in several],
    ids=[f"{reason}-{n}" for reason, several in CALLS.items() for n in range(len(several))],
)
def test_calls_that_pass_through(layer: Any, reason: str, more: dict[str, Any]) -> None:
    made = layer(tuned(entry(TILED)))
    passes(made, flat(call(**{"model": GQA, **more})))
    assert untuned(made) == reason


def test_a_context_needs_a_mask(layer: Any) -> None:
    made = layer(tuned(entry(TILED, 1, 32, 16)))
    passes(made, flat(call(GQA, 1, 32, 16)))
    assert untuned(made) == "a context without a mask"


def test_a_fast_softmax_never_answers_for_one_in_fp32(layer: Any) -> None:
    fast, exact = (layer(tuned(entry(Split(query_tile=8, softmax=softmax)))) for softmax in ("fast", "exact"))
    for mode in ("fp32", "None"):
        passes(fast, flat(call(GQA, softmax_mode=mode)))
        exact(*flat(call(GQA, softmax_mode=mode)))
    assert untuned(fast) == "a softmax in fp32 is wanted"
    assert exact._overlap.tally.tuned.total() == 2


def test_a_mask_over_everything_is_added_where_nothing_is_left_out(layer: Any, stack: Any) -> None:
    """A split that computes masked blocks needs no causality, so it runs attention that looks both ways, too."""
    made, one = layer(tuned(entry(Split(query_tile=8)))), call(GQA, mask=FULL, is_causal=False)
    torch.testing.assert_close(made(*flat(one)), stack.ModuleFusedSDPA(None)(*flat(one)), rtol=1e-5, atol=1e-5)
    assert made._overlap.tally.tuned.total() == 1


def test_arguments_of_a_later_stack_pass_through(layer: Any) -> None:
    made, one = layer(tuned(entry(TILED))), flat(call(GQA))
    passes(made, one, context_len=7)
    assert untuned(made) == "an argument that is not known"
    assert read((*one, 7), {}) is None
    assert read((*one, None), {}) is not None
    assert read(one, {"context_len": None}) is not None
    assert read(one[:11], {"sinks": None, "window_size": (8, 0)}).window_size == (8, 0)  # type: ignore[union-attr]


def test_keywords_are_read_as_positions_are(layer: Any, stack: Any) -> None:
    made, one = layer(tuned(entry(TILED))), call(GQA)
    named = {name: part for name, part in vars(one).items() if name not in ("query", "window_size")}
    torch.testing.assert_close(made(one.query, **named), stack.ModuleFusedSDPA(None)(*flat(one)), rtol=1e-5, atol=1e-5)
    assert made._overlap.tally.tuned.total() == 1


def test_plans_say_what_is_left_of_a_split() -> None:
    carried = plan_of(entry(Split(chunks=4, lag=1, projections="split", masked_blocks="skip")))
    assert carried.split == Split(query_tile=8, masked_blocks="skip")
    assert carried.name == "prefill 1x32+0, within the layer only"
    assert plan_of(entry(TILED)).name == "prefill 1x32+0"


# -- compilers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [SPLITS[1], SPLITS[2], SPLITS[5], SPLITS[7]], ids=str)
def test_a_compiled_layer_is_the_same_and_all_layers_share_it(layer: Any, split: Split) -> None:
    config = tuned(entry(split), entry(split, 1, 16, 16))
    first = layer(config)
    layers = [first, *(type(first)(None) for _ in range(5))]
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    calls = [call(GQA), call(GQA, 1, 16, 16, bias(16, 16, (9, 16))), call(GQA, tokens=24)]
    counts = first._overlap.tally
    for _ in range(2):
        for one in layers:
            compiled = torch.compile(one, backend=backend, fullgraph=True)
            for arguments in calls:
                eager = one(*flat(arguments))
                before = str(counts.tuned), str(counts.passed)
                assert torch.equal(compiled(*flat(arguments)), eager)
                assert (str(counts.tuned), str(counts.passed)) == before
    assert len(graphs) == len(calls)
    assert sorted(counts.traced.items()) == [
        ("not tuned, no bucket of this shape", 1),
        ("prefill 1x16+16", 1),
        ("prefill 1x32+0", 1),
    ]


def test_a_model_in_one_graph(stack: Any, layer: Any) -> None:
    cls = type(layer(tuned(entry(TILED))))
    module = __import__("vllm_gaudi.attention.backends.hpu_attn", fromlist=["hpu_attn"])
    module.ModuleFusedSDPA = cls

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(module.HPUAttentionImpl(4, 16, 0.25, 2) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for one in self.layers:
                x = one(x, x[:, :, :2], x[:, :, 2:], lengths=torch.tensor([30]))
            return x

    torch._dynamo.reset()
    model, x = Model(), torch.randn(1, 32, 4, 16)
    made = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)(x)
    assert torch.equal(made, model(x))
    counts = model.layers[0].fused_scaled_dot_product_attention._overlap.tally
    assert counts.traced == {"prefill 1x32+0": 3}
    assert counts.tuned == {"prefill 1x32+0": 3}


def test_shapes_that_are_not_tuned_share_a_graph_where_sizes_are_symbols(stack: Any, layer: Any) -> None:
    cls = type(layer(tuned(entry(TILED))))
    module = __import__("vllm_gaudi.attention.backends.hpu_attn", fromlist=["hpu_attn"])
    module.ModuleFusedSDPA = cls
    one = module.HPUAttentionImpl(4, 16, 0.25, 2)
    torch._dynamo.reset()
    compiled = torch.compile(one, backend="eager", fullgraph=True)
    for tokens in (40, 48, 32, 56, 64, 72, 80, 88, 96, 104):
        query, key = torch.randn(1, tokens, 4, 16), torch.randn(1, tokens, 2, 16)
        torch.testing.assert_close(compiled(query, key, key), one(query, key, key))
    traced = one.fused_scaled_dot_product_attention._overlap.tally.traced
    assert traced == {"not tuned, no bucket of this shape": 2, "prefill 1x32+0": 1}


def test_a_call_that_passes_through_is_compiled_as_such(layer: Any) -> None:
    made, one = layer(tuned(entry(TILED))), flat(call(GQA, window_size=(8, 0)))
    torch._dynamo.reset()
    assert torch.equal(torch.compile(made, backend="eager", fullgraph=True)(*one), made(*one))
    assert made._overlap.tally.traced == {"not tuned, a sliding window": 1}


def test_a_config_of_nothing_runs_nothing(layer: Any) -> None:
    made = layer(msgspec.structs.replace(tuned(), entries=[]))
    passes(made, flat(call(GQA)))
    assert untuned(made) == "no bucket of this shape"
    assert shared(made.config_path) is made._overlap

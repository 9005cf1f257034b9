"""Models that somebody else also looks into, changes, trains or compiles: the same results, tuned or passed through."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("transformers")
import torch

from overlap.errors import ServeError
from overlap.serve.transformers import Applied, apply, remove
from overlap.split import Split
from overlap.workload import Bucket
from tests.hf_models import config, make, prompts
from tests.tuned_configs import entry

TOKENS = 16
WITHIN = Split(query_tile=4, masked_blocks="skip")
CARRIED = Split(chunks=2, lag=1, masked_blocks="skip")
WATCHED = "chunks are not carried: somebody else's hooks or forwards in the layers"


def tuned(model: Any, split: Split, batch: int = 2, **options: Any) -> Applied:
    return apply(model, config(model, [entry(Bucket("prefill", batch, TOKENS, 0), split)]), **options)


def logits(model: Any, batch: int = 2, tokens: int = TOKENS, padding: int = 2) -> torch.Tensor:
    """Of the real tokens of a left-padded batch."""
    ids, mask = prompts(batch, tokens, "left", padding)
    with torch.inference_mode():
        found: torch.Tensor = model(ids, attention_mask=mask, use_cache=False).logits
    return found[mask.bool()]


def doubled(module: Any, arguments: Any, output: Any) -> Any:
    """A hook that changes what a module gives back."""
    return (output[0] * 2, *output[1:]) if isinstance(output, tuple) else output * 2


def first(layer: Any) -> Any:
    return layer


def attention(layer: Any) -> Any:
    return layer.self_attn


@pytest.mark.parametrize("place", [first, attention])
@pytest.mark.parametrize("split", [WITHIN, CARRIED], ids=str)
def test_hooks_of_others_run(split: Split, place: Callable[[Any], Any]) -> None:
    model = make()
    plain = logits(model)
    place(model.model.layers[1]).register_forward_hook(doubled)
    expected = logits(model)
    assert not torch.allclose(plain, expected, atol=1e-3)
    applied = tuned(model, split)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
    remove(model)
    assert (WATCHED in applied.counts.passed) == (split is CARRIED)


@pytest.mark.parametrize("place", [first, attention])
def test_forwards_of_others_run(place: Callable[[Any], Any]) -> None:
    """Put there before `apply`, as accelerate does."""
    model = make()
    module = place(model.model.layers[1])
    original = module.forward

    @functools.wraps(original)
    def changed(*arguments: Any, **named: Any) -> Any:
        return doubled(module, (), original(*arguments, **named))

    module.forward = changed
    expected = logits(model)
    applied = tuned(model, CARRIED)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
    remove(model)
    assert WATCHED in applied.counts.passed
    assert module.__dict__["forward"] is changed


def test_hooks_of_transformers_are_no_others() -> None:
    """They stay after a pass with hidden states, and are asleep."""
    model = make()
    ids, _ = prompts(2, TOKENS)
    applied = tuned(model, CARRIED)
    with torch.inference_mode():
        model(ids, output_hidden_states=True)
    assert any(layer._forward_hooks for layer in model.model.layers)
    logits(model)
    remove(model)
    assert applied.counts.tuned["prefill 2x16+0, carried"] == 3


def test_a_layer_that_is_called_by_hand_is_one_layer() -> None:
    model = make()
    hidden = torch.randn(2, TOKENS, 64, generator=torch.Generator().manual_seed(1))
    tables = model.model.rotary_emb(hidden, torch.arange(TOKENS)[None])
    for arguments, named in (((), {"attention_mask": None}), ((None,), {})):
        with torch.inference_mode():
            expected = model.model.layers[1](hidden, *arguments, position_embeddings=tables, **named)
            tuned(model, CARRIED)
            logits(model)
            first, second = (
                model.model.layers[number](hidden, *arguments, position_embeddings=tables, **named) for number in (0, 1)
            )
            remove(model)
        assert not torch.allclose(first, second, atol=1e-3)
        torch.testing.assert_close(second, expected, rtol=1e-4, atol=1e-5)


def test_dropout_stays_where_it_was() -> None:
    """Samples of a model in train mode, without gradients."""
    model = make(attention_dropout=0.5).train()
    torch.manual_seed(3)
    expected = logits(model)
    applied = tuned(model, CARRIED)
    torch.manual_seed(3)
    assert torch.equal(logits(model), expected)
    remove(model)
    assert not applied.counts.tuned


@pytest.mark.parametrize("split", [WITHIN, CARRIED, Split(fused_sdpa=True)], ids=str)
@pytest.mark.parametrize("trained", ["", "v_proj", "mlp"])
def test_gradients_behind_frozen_embeddings(split: Split, trained: str) -> None:
    """As adapters are trained: in eval mode, the hidden states that come in need none."""
    model = make()
    ids, mask = prompts(2, TOKENS, padding=0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = trained in name and "embed" not in name
    model(ids, attention_mask=mask, labels=ids).loss.backward()
    expected = [one.grad.clone() for one in model.parameters() if one.requires_grad]
    model.zero_grad()
    tuned(model, split)
    model(ids, attention_mask=mask, labels=ids).loss.backward()
    remove(model)
    found = [one.grad for one in model.parameters() if one.requires_grad]
    assert found
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("split", [WITHIN, CARRIED, Split(kv_tile=4)], ids=str)
def test_autocast_is_left_to_the_model(split: Split) -> None:
    """The kernels compute in the dtype of what they get; autocast would change it halfway."""
    model = make()
    with torch.autocast("cpu", torch.bfloat16):
        expected = logits(model, 3, padding=4)
        applied = tuned(model, split, 3)
        assert torch.equal(logits(model, 3, padding=4), expected)
        remove(model)
    assert not applied.counts.tuned
    assert applied.counts.passed["autocast"] == 3


@pytest.mark.parametrize("split", [WITHIN, Split(kv_tile=4)], ids=str)
def test_rows_of_padding_stay_numbers_in_half_precision(split: Split) -> None:
    """A score that is added to fp16's lowest number leaves its range."""
    model = make(layers=2)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(3000)
    model = model.to(torch.float16)
    tuned(model, split, 3)
    assert torch.isfinite(logits(model, 3, padding=4)).all()
    remove(model)


@pytest.mark.parametrize(
    "split",
    [Split(projections="split"), Split(layers_per_graph=1), Split(chunks=2, chunk_axis="batch", lag=1)],
    ids=str,
)
def test_what_does_nothing_within_a_layer_leaves_the_attention_alone(split: Split) -> None:
    """A hook keeps chunks from being carried; then nothing is left to do."""
    model = make()
    model.model.layers[0].register_forward_hook(lambda *_: None)
    expected = logits(model)
    applied = tuned(model, split)
    assert torch.equal(logits(model), expected)
    remove(model)
    assert not applied.counts.tuned
    assert applied.counts.passed["nothing of the split lies within a layer"] == 3


def test_a_forward_that_somebody_took_away_is_forgiven() -> None:
    model = make()
    expected = logits(model)
    tuned(model, CARRIED)
    del model.model.layers[1].__dict__["forward"]
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
    remove(model)
    assert model.config._attn_implementation == "sdpa"
    assert not any("forward" in layer.__dict__ for layer in model.model.layers)
    assert not model.model._forward_hooks
    assert not model.model._forward_pre_hooks
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("split", [WITHIN, CARRIED], ids=str)
def test_compiled_code_is_one_graph_for_all_lengths(split: Split, pad: bool) -> None:
    """A look-up that wrote lengths down would make a graph for each, and an error of the ninth."""
    model = make(layers=1)
    lengths = [TOKENS, *range(20, 44, 2)]
    expected = [logits(model, 1, tokens, 0) for tokens in lengths]
    tuned(model, split, 1, pad=pad)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    found = [logits(compiled, 1, tokens, 0) for tokens in lengths]
    torch._dynamo.reset()
    remove(model)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_config_that_two_models_share_is_named() -> None:
    """Applying to one changes both; the hint of the attention's name would undo it."""
    model = make()
    twin = type(model)(model.config)
    applied = tuned(model, WITHIN)
    with pytest.raises(ServeError, match="shares its config with a model that runs tuned"):
        tuned(twin, WITHIN)
    assert model.config._attn_implementation == applied.function.name
    remove(model)

"""A tuned config applied to models of transformers: the same answers, counted calls, and nothing left behind."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from overlap.errors import ServeError
from overlap.serve.transformers import apply, remove
from overlap.split import Split
from overlap.workload import Bucket
from tests.hf_models import FAMILIES, config, greedy, make, prompts
from tests.tuned_configs import entry

TOKENS = 16
# Cuts within a layer, and cuts that carry chunks through the layers.
WITHIN = (
    Split(query_tile=4, masked_blocks="skip"),
    Split(query_tile=8),
    Split(kv_tile=5),
    Split(kv_tile=3, normalise="after", masked_blocks="skip", query_tile=4),
    Split(normalise="after"),
    Split(head_groups=2, query_tile=8, masked_blocks="skip"),
    Split(fused_sdpa=True, masked_blocks="skip"),
    Split(fused_sdpa=True, masked_blocks="skip", query_tile=4, kv_tile=2),
)
CARRIED = (
    Split(chunks=2, lag=1, masked_blocks="skip"),
    Split(chunks=4, query_tile=2, masked_blocks="skip"),
    Split(chunks=4, lag=2, turn="block"),
    Split(chunks=2, attend="whole", query_tile=4, masked_blocks="skip"),
    Split(chunks=2, lag=1, layers_per_graph=1),
    Split(chunks=4, kv_tile=4, lag=1),
)
BY_BATCH = (
    Split(chunks=2, chunk_axis="batch", lag=1),
    Split(chunks=4, chunk_axis="batch", turn="block", lag=1, query_tile=8, masked_blocks="skip"),
    Split(chunks=2, chunk_axis="batch", attend="whole"),
)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {family: make(family) for family in FAMILIES}


@pytest.fixture(autouse=True)
def nothing_left(models: dict[str, Any]) -> Iterator[None]:
    """Whatever a test applies, it removes."""
    yield
    for model in models.values():
        with suppress(ServeError):
            remove(model)
        assert model.config._attn_implementation == "sdpa"
        assert not any("forward" in layer.__dict__ for layer in model.model.layers)


def prefill(split: Split, batch: int = 1, tokens: int = TOKENS, context: int = 0) -> Any:
    return entry(Bucket("prefill", batch, tokens, context), split)


def logits(model: Any, ids: torch.Tensor, mask: torch.Tensor, **options: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(ids, attention_mask=mask, **options).logits
    return found


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch", [1, 2, 3, 4])
@pytest.mark.parametrize("family", ["Llama", "Qwen2"])
def test_greedy_output_stays_the_same(models: dict[str, Any], family: str, batch: int, side: str) -> None:
    """64 tokens, every batch, both sides of padding; a split of each sort in turn."""
    model = models[family]
    ids, mask = prompts(batch, TOKENS, side)
    expected = greedy(model, ids, mask)
    for split in (WITHIN[batch % len(WITHIN)], CARRIED[batch % len(CARRIED)]):
        applied = apply(model, config(model, [prefill(split, batch)]))
        found = greedy(model, ids, mask)
        remove(model)
        assert torch.equal(found, expected), split
        assert applied.counts.tuned.total() == 3


@pytest.mark.parametrize("split", [*WITHIN, *CARRIED, *BY_BATCH], ids=str)
def test_every_axis_gives_the_same_logits(models: dict[str, Any], split: Split) -> None:
    model = models["Qwen2"]
    ids, mask = prompts(4, TOKENS, "left", padding=3)
    expected = logits(model, ids, mask)
    applied = apply(model, config(model, [prefill(split, 4)]))
    found = logits(model, ids, mask)
    remove(model)
    assert applied.counts.tuned.total() == 3
    assert not applied.counts.passed
    real = mask.bool()
    torch.testing.assert_close(found[real], expected[real], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_families(models: dict[str, Any], family: str) -> None:
    model = models[family]
    ids, mask = prompts(2, TOKENS)
    expected = greedy(model, ids, mask, 16)
    for split in (WITHIN[0], CARRIED[0]):
        applied = apply(model, config(model, [prefill(split, 2)]))
        assert torch.equal(greedy(model, ids, mask, 16), expected)
        remove(model)
        assert applied.counts.tuned.total() == 3


@pytest.mark.parametrize("split", [WITHIN[0], CARRIED[0], BY_BATCH[1]], ids=str)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_to_the_smallest_bucket_that_contains_it(models: dict[str, Any], split: Split, side: str) -> None:
    """13 tokens of 3 sequences run at 4x16+0, and not at 4x32+0."""
    model = models["Llama"]
    ids, mask = prompts(3, 13, side)
    expected, scores = greedy(model, ids, mask, 24), logits(model, ids, mask)
    entries = [prefill(split, 4), prefill(split, 4, 32)]
    applied = apply(model, config(model, entries), pad=True)
    assert torch.equal(greedy(model, ids, mask, 24), expected)
    found = logits(model, ids, mask)
    remove(model)
    real = mask.bool()
    torch.testing.assert_close(found[real], scores[real], rtol=1e-4, atol=1e-5)
    assert all(name.startswith("prefill 4x16+0") and name.endswith("padded") for name in applied.counts.tuned)
    assert applied.counts.tuned.total() == 6


def test_without_padding_only_the_very_shape_runs_tuned(models: dict[str, Any]) -> None:
    model = models["Llama"]
    ids, mask = prompts(1, 13)
    expected = logits(model, ids, mask)
    applied = apply(model, config(model, [prefill(WITHIN[0])]))
    assert torch.equal(logits(model, ids, mask), expected), "passing through changes no bit"
    remove(model)
    assert applied.counts.passed == {"no bucket of this shape": 3}
    assert not applied.counts.tuned


def test_a_bucket_where_the_baseline_won_passes_through(models: dict[str, Any]) -> None:
    model = models["Llama"]
    ids, mask = prompts(1, TOKENS)
    expected = logits(model, ids, mask)
    applied = apply(model, config(model, [prefill(Split())]))
    assert torch.equal(logits(model, ids, mask), expected)
    remove(model)
    assert applied.counts.passed == {"the baseline was the best": 3}


@pytest.mark.parametrize("split", [Split(kv_tile=7), Split(head_groups=2), BY_BATCH[0]], ids=str)
def test_decode_runs_tuned(models: dict[str, Any], split: Split) -> None:
    """Every step is padded to one bucket of the KV cache."""
    model = models["Qwen2"]
    ids, mask = prompts(2, TOKENS)
    expected = greedy(model, ids, mask, 32)
    applied = apply(model, config(model, [entry(Bucket("decode", 2, 1, 48), split)]), pad=True)
    assert torch.equal(greedy(model, ids, mask, 32), expected)
    remove(model)
    assert applied.counts.tuned.total() == 31 * 3
    assert applied.counts.passed == {"no bucket contains this shape": 3}


@pytest.mark.parametrize("split", [WITHIN[0], WITHIN[1], CARRIED[0], CARRIED[2], BY_BATCH[0]], ids=str)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_a_mask_that_looks_ahead_is_the_callers_own(models: dict[str, Any], split: Split, dtype: torch.dtype) -> None:
    """What lies ahead is left out by some splits, and may not be; the others run tuned."""
    model = models["Llama"]
    ids, _ = prompts(2, TOKENS)
    sees = torch.rand(2, 1, TOKENS, TOKENS, generator=torch.Generator().manual_seed(1)) < 0.7
    sees |= torch.eye(TOKENS, dtype=torch.bool)
    mask = sees if dtype is torch.bool else torch.zeros(sees.shape).masked_fill(~sees, float("-inf"))
    expected = logits(model, ids, mask)
    applied = apply(model, config(model, [prefill(split, 2)]))
    torch.testing.assert_close(logits(model, ids, mask), expected, rtol=1e-4, atol=1e-5)
    remove(model)
    leaves_out = split.masked_blocks == "skip"
    assert any("a mask of the caller's own" in why for why in applied.counts.passed) == (
        split not in (WITHIN[1], BY_BATCH[0])
    )
    assert applied.counts.tuned.total() == (0 if leaves_out else 3)


@pytest.mark.parametrize("split", [WITHIN[1], CARRIED[2], BY_BATCH[0]], ids=str)
def test_a_mask_for_each_head_is_left_to_the_model(models: dict[str, Any], split: Split) -> None:
    """The kernels have one bias for all heads of a sequence."""
    model = models["Llama"]
    ids, _ = prompts(2, TOKENS)
    sees = torch.rand(2, 4, TOKENS, TOKENS, generator=torch.Generator().manual_seed(1)) < 0.7
    sees |= torch.eye(TOKENS, dtype=torch.bool)
    expected = logits(model, ids, sees)
    applied = apply(model, config(model, [prefill(split, 2)]))
    assert torch.equal(logits(model, ids, sees), expected)
    remove(model)
    assert applied.counts.passed["a mask for each head"] == 3
    assert not applied.counts.tuned


@pytest.mark.parametrize("pad", [False, True])
def test_a_prompt_of_one_token_is_no_decode(models: dict[str, Any], pad: bool) -> None:
    model = models["Llama"]
    ids, mask = prompts(1, 1)
    expected = greedy(model, ids, mask, 8)
    applied = apply(model, config(model, [prefill(CARRIED[0]), entry(Bucket("decode", 1, 1, 8), WITHIN[2])]), pad=pad)
    assert torch.equal(greedy(model, ids, mask, 8), expected)
    remove(model)
    assert sorted(applied.counts.tuned) == (["decode 1x1+8, padded", "prefill 1x16+0, carried, padded"] if pad else [])


@pytest.mark.parametrize("split", [WITHIN[0], CARRIED[0], CARRIED[3]], ids=str)
def test_a_prompt_behind_a_cache(models: dict[str, Any], split: Split) -> None:
    """Chunked prefill: new tokens behind cached ones; the cache comes out as it would."""
    from transformers import DynamicCache

    model = models["Llama"]
    ids, mask = prompts(2, TOKENS + 12)

    def both() -> tuple[torch.Tensor, Any]:
        cache = DynamicCache(config=model.config)
        logits(model, ids[:, :12], mask[:, :12], past_key_values=cache)
        return logits(model, ids[:, 12:], mask, past_key_values=cache), cache

    expected, before = both()
    applied = apply(model, config(model, [prefill(split, 2, TOKENS, 12)]))
    found, after = both()
    remove(model)
    assert applied.counts.tuned.total() == 3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    real = mask.bool()
    for one, other in zip(after.layers, before.layers, strict=True):
        assert one.keys.shape == other.keys.shape
        for mine, theirs in ((one.keys, other.keys), (one.values, other.values)):
            torch.testing.assert_close(mine.transpose(1, 2)[real], theirs.transpose(1, 2)[real], rtol=1e-4, atol=1e-5)


def test_a_window_that_slides_is_kept() -> None:
    model = make("Mistral", sliding_window=6)
    ids, mask = prompts(2, TOKENS)
    expected = greedy(model, ids, mask, 16)
    assert not torch.equal(expected, greedy(make("Mistral"), ids, mask, 16)), "the window matters here"
    for split in (WITHIN[0], CARRIED[0]):
        applied = apply(model, config(model, [prefill(split, 2)]))
        assert torch.equal(greedy(model, ids, mask, 16), expected)
        remove(model)
        assert applied.counts.tuned.total() == 3


@pytest.mark.parametrize("split", [WITHIN[0], CARRIED[0]], ids=str)
def test_a_static_cache(models: dict[str, Any], split: Split) -> None:
    """Keys behind the prompt are places that nobody has written; the second prompt is padded, so it has a mask."""
    model = models["Llama"]
    ids, mask = prompts(2, TOKENS)
    expected = greedy(model, ids, mask, 16, cache_implementation="static", disable_compile=True)
    applied = apply(model, config(model, [prefill(split, 2)]))
    found = greedy(model, ids, mask, 16, cache_implementation="static", disable_compile=True)
    remove(model)
    assert torch.equal(found, expected)
    assert applied.counts.tuned.total() == 3
    assert any("carried" in what for what in applied.counts.tuned) == (split.chunks > 1)


def test_plain_attention_as_the_original(models: dict[str, Any]) -> None:
    """Its masks are added, not boolean."""
    model = make("Llama", attn_implementation="eager")
    ids, mask = prompts(3, TOKENS)
    expected = logits(model, ids, mask)
    for split in (WITHIN[3], CARRIED[1]):
        applied = apply(model, config(model, [prefill(split, 3)]))
        found = logits(model, ids, mask)
        remove(model)
        assert model.config._attn_implementation == "eager"
        assert applied.counts.tuned.total() == 3
        real = mask.bool()
        torch.testing.assert_close(found[real], expected[real], rtol=1e-4, atol=1e-5)


def test_half_precision_is_as_close_as_the_models_own_attentions() -> None:
    model = make("Qwen2").to(torch.bfloat16)
    ids, mask = prompts(2, TOKENS)
    expected = logits(model, ids, mask).float()
    model.set_attn_implementation("eager")
    own = (logits(model, ids, mask).float() - expected)[mask.bool()].norm()
    model.set_attn_implementation("sdpa")
    for split in (WITHIN[0], CARRIED[0]):
        apply(model, config(model, [prefill(split, 2)]))
        found = (logits(model, ids, mask).float() - expected)[mask.bool()].norm()
        remove(model)
        assert 0 < found < 3 * own


def test_a_copy_carries_through_its_own_layers(models: dict[str, Any]) -> None:
    model = models["Llama"]
    ids, mask = prompts(1, TOKENS)
    expected = logits(model, ids, mask)
    apply(model, config(model, [prefill(CARRIED[0])]))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.layers[1].mlp.down_proj.weight.zero_()
    changed = logits(other, ids, mask)
    torch.testing.assert_close(logits(model, ids, mask), expected, rtol=1e-4, atol=1e-5)
    remove(model)
    assert (changed - expected).abs().max() > 1e-2


def test_a_model_that_is_gone_leaves_no_name_behind() -> None:
    from transformers.modeling_utils import AttentionInterface

    model = make("Llama", layers=2)
    name = apply(model, config(model, [prefill(CARRIED[0])])).function.name
    assert name in AttentionInterface._global_mapping
    del model
    gc.collect()
    assert name not in AttentionInterface._global_mapping


def test_a_pass_that_broke_off_leaves_nothing_for_the_next(models: dict[str, Any]) -> None:
    """It broke off behind the layer that ran them all, before the others had given back what they were given."""
    model = models["Llama"]
    ids, mask = prompts(1, TOKENS)
    expected = logits(model, ids[:, :5], mask[:, :5])

    def stop(*_: Any) -> None:
        raise RuntimeError("broken off")

    apply(model, config(model, [prefill(CARRIED[0])]))
    hook = model.model.layers[1].register_forward_pre_hook(stop)
    with pytest.raises(RuntimeError, match="broken off"):
        logits(model, ids, mask)
    hook.remove()
    assert torch.equal(logits(model, ids[:, :5], mask[:, :5]), expected)
    remove(model)


def test_compiled_models_compute_the_same_for_every_shape() -> None:
    """Chunks are not carried there; shapes that come after a tuned one run as before."""
    model = make(layers=2)
    shapes = [prompts(1, tokens) for tokens in (TOKENS, 9, TOKENS, 7)]
    expected = [logits(model, *one, use_cache=False) for one in shapes]
    apply(model, config(model, [prefill(CARRIED[0])]))
    compiled = torch.compile(model, backend="eager", dynamic=True)
    found = [logits(compiled, *one, use_cache=False) for one in shapes]
    torch._dynamo.reset()
    remove(model)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)

"""What a model or a config is refused for, what passes through and why; a model that was refused is as it was."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

pytest.importorskip("transformers")

from overlap.errors import OverlapError, ServeError, TunedError
from overlap.serve.transformers import apply, remove
from overlap.serve.tuned import Tuned
from overlap.serve.tuned_file import save
from overlap.split import Split
from overlap.workload import Bucket
from tests.hf_models import config, make, prompts
from tests.tuned_configs import entry

TOKENS = 16
WITHIN = Split(query_tile=4, masked_blocks="skip")
CARRIED = Split(chunks=2, lag=1, masked_blocks="skip")


@pytest.fixture(scope="module")
def model() -> Any:
    return make()


@pytest.fixture(autouse=True)
def nothing_applied(model: Any) -> Iterator[None]:
    yield
    with suppress(ServeError):
        remove(model)


def one(model: Any, split: Split = CARRIED, **changes: Any) -> Tuned:
    return config(model, [entry(Bucket("prefill", 1, TOKENS, 0), split)], **changes)


def state(model: Any) -> tuple[Any, ...]:
    """Everything that applying a config touches."""
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    layers = [dict(layer.__dict__) for layer in model.model.layers]
    names = (sorted(AttentionInterface._global_mapping), sorted(AttentionMaskInterface._global_mapping))
    return model.config.to_dict(), model.config._attn_implementation, layers, list(model.state_dict()), names


def changed_device(tuned: Tuned, **changes: Any) -> Tuned:
    return msgspec.structs.replace(tuned, device=msgspec.structs.replace(tuned.device, **changes))


def another_shape(tuned: Tuned, **changes: Any) -> Tuned:
    return msgspec.structs.replace(tuned, model=replace(tuned.model, **changes))


REFUSED: list[tuple[Callable[[Tuned], Tuned], str]] = [
    (lambda tuned: another_shape(tuned, hidden=128, head_dim=32), "another model.*hidden 128, not 64"),
    (lambda tuned: another_shape(tuned, qkv_bias=True), "another model.*qkv_bias True, not False"),
    (lambda tuned: another_shape(tuned, layers=4), "another model.*layers 4, not 3"),
    (lambda tuned: another_shape(tuned, dtype="bfloat16"), "tuned for bfloat16, the model is float32"),
    (lambda tuned: msgspec.structs.replace(tuned, tensor_parallel=2), "tensor_parallel 2"),
    (lambda tuned: changed_device(tuned, kind="hpu", name="Gaudi3"), "tuned on Gaudi3, and this is host"),
    (lambda tuned: changed_device(tuned, kind="abacus", name="Abacus"), "tuned on Abacus, and this is host"),
    (lambda tuned: changed_device(tuned, software={"torch": "1.13.0"}), "tuned with torch 1.13.0"),
]


@pytest.mark.parametrize(("change", "says"), REFUSED)
def test_a_config_for_something_else_is_refused(model: Any, change: Callable[[Tuned], Tuned], says: str) -> None:
    before = state(model)
    with pytest.raises(TunedError, match=says):
        apply(model, change(one(model)))
    assert state(model) == before


def test_parts_of_the_key_can_be_waived_but_not_the_model(model: Any) -> None:
    tuned = changed_device(one(model), kind="hpu", software={})
    apply(model, tuned, waive=("device", "software"))
    remove(model)
    with pytest.raises(TunedError, match="'model' cannot be waived"):
        apply(model, tuned, waive=("model",))


def test_what_nobody_knows_is_a_warning(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    applied = apply(model, changed_device(one(model), software={}))
    remove(model)
    assert len(applied.warnings) == 1
    assert "torch: tuned with an unknown version" in caplog.text


def test_a_config_from_a_file(model: Any, tmp_path: Path) -> None:
    save(one(model), tmp_path / "tuned.yaml")
    assert apply(model, tmp_path / "tuned.yaml").tuned == one(model)
    remove(model)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[: len(text) // 2], "line|cut off|missing"),
        (lambda text: text.replace("tuned/1", "tuned/7"), "'overlap.tuned/7' is unknown"),
        (lambda text: "", "is not a tuned config"),
    ],
)
def test_a_damaged_file_is_refused(model: Any, tmp_path: Path, damage: Callable[[str], str], says: str) -> None:
    path, before = tmp_path / "tuned.yaml", state(model)
    save(one(model), path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(TunedError, match=says):
        apply(model, path)
    with pytest.raises(TunedError, match="cannot read"):
        apply(model, tmp_path / "nothing.yaml")
    assert state(model) == before


def test_models_without_a_seam(model: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    other = GPT2LMHeadModel(GPT2Config(n_embd=32, n_head=2, n_layer=2, vocab_size=64))
    with pytest.raises(ServeError, match=r"GPT2LMHeadModel has no seam: family 'gpt2' \(one of llama"):
        apply(other, one(model))
    with pytest.raises(ServeError, match="Linear is no model of transformers"):
        apply(torch.nn.Linear(2, 2), one(model))
    assert other.config._attn_implementation == "sdpa"


def test_a_layer_that_somebody_rebuilt_has_no_seam() -> None:
    model = make(layers=2)
    tuned = one(model)
    del model.model.layers[1].post_attention_layernorm
    before = state(model)
    with pytest.raises(ServeError, match="LlamaDecoderLayer lacks post_attention_layernorm"):
        apply(model, tuned)
    assert state(model) == before


@pytest.mark.parametrize(("version", "says"), [("4.57.1", r"4\.57\.1 is too old"), ("", "not installed")])
def test_transformers_that_is_too_old_or_not_there(
    model: Any, version: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned, before = one(model), state(model)

    def told(name: str) -> str:
        if not version:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", told)
    with pytest.raises(ServeError, match=f"{says}.*pip install 'overlap"):
        apply(model, tuned)
    assert state(model) == before


def test_another_attention_is_refused() -> None:
    model = make(attn_implementation="flex_attention")
    with pytest.raises(ServeError, match=r"runs 'flex_attention'.*set_attn_implementation\('sdpa'\)"):
        apply(model, one(model))
    assert model.config._attn_implementation == "flex_attention"


def test_a_failure_halfway_leaves_no_trace(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(model)
    monkeypatch.setattr(type(model), "_can_set_attn_implementation", lambda self: False)
    with pytest.raises(ServeError, match="takes no attention by name"):
        apply(model, one(model))
    monkeypatch.undo()
    assert state(model) == before


def test_applied_once_removed_once(model: Any) -> None:
    before = state(model)
    apply(model, one(model))
    assert state(model) != before
    with pytest.raises(ServeError, match="applied to this model already"):
        apply(model, one(model))
    remove(model)
    assert state(model) == before
    with pytest.raises(ServeError, match="no tuned config is applied"):
        remove(model)


def test_an_attention_that_was_chosen_meanwhile_stays(model: Any) -> None:
    apply(model, one(model))
    model.set_attn_implementation("eager")
    remove(model)
    assert model.config._attn_implementation == "eager"
    model.set_attn_implementation("sdpa")


def test_every_error_has_a_hint(model: Any) -> None:
    for change, _ in REFUSED:
        with pytest.raises(OverlapError) as caught:
            apply(model, change(one(model)))
        assert caught.value.hint


# -- passing through ---------------------------------------------------------------------------------------------------


def run(model: Any, split: Split, **options: Any) -> Any:
    """One pass on the tuned shape; what was counted."""
    ids, mask = prompts(1, TOKENS)
    applied = apply(model, one(model, split))
    try:
        model(ids, attention_mask=mask, **options)
    finally:
        remove(model)
    return applied.counts


def test_training_passes_through(model: Any) -> None:
    assert set(run(model, WITHIN).passed) == {"training"}
    assert set(run(model, CARRIED).passed) == {"chunks are not carried: training", "training"}


def test_gradients_are_those_of_the_untouched_model(model: Any) -> None:
    ids, _ = prompts(1, TOKENS)
    model(ids, labels=ids).loss.backward()
    weight = model.model.layers[0].self_attn.q_proj.weight
    expected = weight.grad.clone()
    model.zero_grad()
    apply(model, one(model))
    model(ids, labels=ids).loss.backward()
    remove(model)
    assert torch.equal(weight.grad, expected)
    model.zero_grad()


def test_hidden_states_are_all_there(model: Any) -> None:
    """Chunks cannot be carried then, but the layers' attention runs tuned."""
    ids, mask = prompts(1, TOKENS)
    with torch.inference_mode():
        expected = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        applied = apply(model, one(model))
        found = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    remove(model)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert applied.counts.tuned == {"prefill 1x16+0": 3}
    assert list(applied.counts.passed) == ["chunks are not carried: hidden states or attention weights are wanted"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"softcap": 30.0}, "soft-capped scores"),
        ({"s_aux": torch.ones(4)}, "attention sinks"),
        ({"dropout": 0.1}, "training"),
        ({"is_causal": False}, "attention that is not causal"),
        ({"scaling": 0.5}, "another scaling"),
        ({"output_attentions": True}, "attention weights are wanted"),
    ],
)
def test_arithmetic_that_the_kernels_do_not_have(model: Any, arguments: dict[str, Any], reason: str) -> None:
    """The original gets exactly what came in."""
    seen: list[tuple[Any, ...]] = []

    def original(*given: Any, **named: Any) -> tuple[str, None]:
        seen.append((given, named))
        return "made", None

    applied = apply(model, one(model, WITHIN))
    applied.function._original = original  # type: ignore[assignment]
    module = model.model.layers[0].self_attn
    query, key = torch.randn(1, 4, TOKENS, 16), torch.randn(1, 2, TOKENS, 16)
    with torch.inference_mode():
        made = applied.function(module, query, key, key, None, **arguments)
    remove(model)
    assert made[0] == "made"
    assert [(given[1] is query, named) for given, named in seen] == [(True, arguments)]
    assert applied.counts.passed == {reason: 1}


def test_what_runs_is_logged_at_start_and_when_it_is_new(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="overlap.serve")
    ids, mask = prompts(1, TOKENS)
    applied = apply(model, one(model, WITHIN))
    assert "LlamaForCausalLM runs by a config tuned on host (measured)" in caplog.text
    assert "prefill 1x16+0: query_tile=4 masked_blocks=skip; when tuned 1.500x over the unsplit block" in caplog.text
    with torch.inference_mode():
        for _ in range(2):
            model(ids, attention_mask=mask)
            model(ids[:, :5], attention_mask=mask[:, :5])
    remove(model)
    assert caplog.text.count("overlap: runs tuned: prefill 1x16+0") == 1
    assert caplog.text.count("overlap: passes through: no bucket of this shape") == 1
    assert str(applied.counts) == ("6 calls tuned (prefill 1x16+0: 6), 6 passed through (no bucket of this shape: 6)")

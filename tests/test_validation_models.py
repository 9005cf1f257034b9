from __future__ import annotations

import pytest

from overlap.devices.gaudi.validation.models import find_model, mentioned, plain_name, table
from overlap.devices.gaudi.validation.rows import Inexpressible

MODELS = table().models


@pytest.mark.parametrize("name", MODELS)
def test_a_shape_has_the_parameters_that_its_model_has(name: str) -> None:
    assert find_model(name).parameters / 1e9 == pytest.approx(MODELS[name].billions, rel=0.001)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("Llama-2-7b-hf", "llama-2-7b"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-7b"),
        ("LLAMA_2_7B", "llama-2-7b"),
        ("Llama-70B", "meta-llama-3-70b"),
        ("Meta-Llama-3-70B-Instruct", "meta-llama-3-70b"),
        ("Llama-3.3-70B", "meta-llama-3-70b"),
        ("Llama-3.1-8B", "meta-llama-3-8b"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "meta-llama-3-8b"),
        ("Qwen/Qwen2-72B", "qwen2.5-72b"),
        ("Mistral-7B", "mistral-7b-v0.1"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral-7b-v0.3"),
        ("microsoft/Phi-3-mini-4k-instruct", "phi-3-mini-4k"),
        ("granite-3.1-8b-instruct", "granite-3.1-8b"),
    ],
)
def test_names_are_read_as_people_write_them(name: str, shape: str) -> None:
    assert find_model(name).shape.name == shape


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("google/gemma-3-27b-it", "Gemma models: its layer"),
        ("mistralai/Mixtral-8x7B-v0.1", "mixture of experts"),
        ("EleutherAI/gpt-neox-20b", "LayerNorm"),
        ("EleutherAI/gpt-j-6b", "LayerNorm"),
        ("tiiuae/falcon-40b", "LayerNorm"),
        ("Llama-3.2-11B-Vision", "vision encoder"),
        ("microsoft/phi-2", "LayerNorm"),
        ("Qwen3-30B-A3B", "mixture of experts"),
        ("SuperModel-9B", "no shape is known for the model 'SuperModel-9B'"),
        ("", "no shape is known"),
    ],
)
def test_other_models_say_why_they_have_none(name: str, why: str) -> None:
    with pytest.raises(Inexpressible, match=why):
        find_model(name)


def test_no_name_stands_for_two_shapes() -> None:
    names = [plain_name(name) for one, entry in MODELS.items() for name in (one, *entry.aliases)]
    assert len(set(names)) == len(names)
    families = [plain_name(name) for name in table().families]
    assert not [name for name in names for family in families if name.startswith(family)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Llama-2-70B (8 HPU), FusedSDPA standard softmax", "Llama-2-70b"),
        ("DeepSeek-R1-Distill-Llama-70B TP2 b8", "DeepSeek-R1-Distill-Llama-70B"),
        ("Llama3 and others", None),
        ("Qwen2.5-7B-like", "Qwen2.5-7B"),
        ("some text", None),
    ],
)
def test_a_model_in_a_description(text: str, name: str | None) -> None:
    assert mentioned(text) == name

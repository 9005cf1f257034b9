from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from overlap.app.config import SweepRoot, from_config
from overlap.app.launch import register
from overlap.app.usage import group_options
from overlap.errors import WorkloadError
from overlap.presets import FAMILIES, build_workload, shape_from_hf
from overlap.workload import Workload

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
}

# (hidden, heads, kv_heads, head_dim, ffn, layers) of the public config.json files.
FIGURES = {
    "qwen2_5_0_5b": (896, 14, 2, 64, 4864, 24),
    "qwen2_5_7b": (3584, 28, 4, 128, 18944, 28),
    "qwen2_5_72b": (8192, 64, 8, 128, 29568, 80),
    "llama_3_2_1b": (2048, 32, 8, 64, 8192, 16),
    "llama_3_1_8b": (4096, 32, 8, 128, 14336, 32),
    "llama_3_1_70b": (8192, 64, 8, 128, 28672, 80),
    "llama_3_1_405b": (16384, 128, 8, 128, 53248, 126),
}
# Parameters of one decoder layer times layers, plus embeddings, in billions, as the models are named by.
BILLIONS = {"qwen2_5_7b": 6.5, "llama_3_1_8b": 7.0, "llama_3_1_70b": 68.5, "llama_3_1_405b": 401.6}


def composed(*overrides: str) -> Workload:
    register()
    with initialize_config_module("overlap.conf", version_base="1.3"):
        return build_workload(from_config(SweepRoot, compose("sweep", overrides=list(overrides))).workload)


def saved(folder: Path, **change: Any) -> Path:
    content = {key: value for key, value in (LLAMA | change).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "config.json"


@pytest.mark.parametrize("option", group_options("workload"))
def test_every_preset_composes_and_builds(option: str) -> None:
    workload = composed(f"workload={option}")
    model, _, phase = option.rpartition("_")
    shape = workload.model
    assert (shape.hidden, shape.heads, shape.kv_heads, shape.head_dim, shape.ffn, shape.layers) == FIGURES[model]
    assert shape.name.replace("-", "_").replace(".", "_") == model
    assert workload.bucket.phase == phase
    assert shape.qkv_bias == model.startswith("qwen")
    assert shape.rope_theta == (1e6 if model.startswith("qwen") else 5e5)


def test_every_model_has_both_phases() -> None:
    assert set(group_options("workload")) == {
        f"{model}_{phase}" for model in FIGURES for phase in ("prefill", "decode")
    }
    assert set(group_options("model")) == set(FIGURES)


@pytest.mark.parametrize("model", BILLIONS)
def test_figures_add_up_to_the_size_of_the_model(model: str) -> None:
    hidden, heads, kv_heads, head_dim, ffn, layers = FIGURES[model]
    layer = hidden * head_dim * (2 * heads + 2 * kv_heads) + 3 * hidden * ffn
    assert layer * layers / 1e9 == pytest.approx(BILLIONS[model], rel=0.01)


def test_values_and_groups_can_be_overridden() -> None:
    workload = composed("workload.bucket.query=4096", "workload.window_layers=4", "workload.tensor_parallel=2")
    assert (workload.bucket.query, workload.window_layers, workload.tensor_parallel) == (4096, 4, 2)
    assert composed("model@workload.model=llama_3_1_8b").model.name == "llama-3.1-8b"
    assert composed("bucket@workload.bucket=decode").bucket.phase == "decode"


def test_a_model_file_replaces_the_shape_only(tmp_path: Path) -> None:
    workload = composed("workload=llama_3_1_8b_decode", f"workload.config_json={saved(tmp_path)}")
    assert (workload.model.hidden, workload.bucket.phase) == (2048, "decode")


def test_file_and_folder_read_the_same(tmp_path: Path) -> None:
    shape = shape_from_hf(saved(tmp_path))
    assert shape == shape_from_hf(tmp_path)
    assert (shape.hidden, shape.heads, shape.kv_heads, shape.head_dim, shape.ffn, shape.layers) == FIGURES[
        "llama_3_2_1b"
    ]
    assert (shape.norm_eps, shape.rope_theta, shape.dtype, shape.qkv_bias) == (1e-5, 5e5, "bfloat16", False)
    assert shape.name == tmp_path.name


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"num_key_value_heads": None}, {"kv_heads": 32}),
        ({"head_dim": None}, {"head_dim": 64}),
        ({"head_dim": 128}, {"head_dim": 128}),
        ({"attention_bias": True}, {"qkv_bias": True}),
        ({"model_type": "qwen2"}, {"qkv_bias": True, "qk_norm": False}),
        ({"model_type": "qwen3"}, {"qkv_bias": False, "qk_norm": True}),
        ({"model_type": "mistral", "sliding_window": 4096}, {"qkv_bias": False}),
        ({"rope_theta": None, "rope_parameters": {"rope_type": "llama3", "rope_theta": 7e4}}, {"rope_theta": 7e4}),
        ({"rope_theta": None}, {"rope_theta": 1e4}),
        ({"torch_dtype": None, "dtype": "float32"}, {"dtype": "float32"}),
        ({"torch_dtype": "torch.float16"}, {"dtype": "float16"}),
        ({"_name_or_path": "someone/Model-1B"}, {"name": "Model-1B"}),
        ({"num_experts": 0}, {"hidden": 2048}),
    ],
)
def test_variants_of_model_files(tmp_path: Path, change: dict[str, Any], expected: dict[str, Any]) -> None:
    shape = shape_from_hf(saved(tmp_path, **change))
    assert {name: getattr(shape, name) for name in expected} == expected


def test_multimodal_files_nest_the_language_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mllama", "torch_dtype": "float16", "text_config": LLAMA | {"torch_dtype": None}})
    )
    assert shape_from_hf(tmp_path).hidden == 2048
    assert shape_from_hf(tmp_path).dtype == "float16"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"hidden_size": None, "num_hidden_layers": None}, "lacks hidden_size, num_hidden_layers"),
        ({"model_type": "gpt2"}, "RMSNorm"),
        ({"model_type": None}, "None"),
        ({"model_type": "mixtral", "num_local_experts": 8}, "mixture-of-experts"),
        ({"num_experts": 64}, "mixture-of-experts"),
        ({"model_type": "deepseek_v3", "kv_lora_rank": 512}, "latent"),
        ({"hidden_act": "gelu"}, "silu"),
        ({"head_dim": None, "num_attention_heads": 30}, "multiple of num_attention_heads"),
        ({"num_key_value_heads": 5}, "multiple of kv_heads"),
        ({"hidden_size": "2048"}, "whole number"),
        ({"hidden_size": True}, "whole number"),
        ({"num_attention_heads": 0}, "whole number"),
        ({"rms_norm_eps": "tiny"}, "number"),
        ({"torch_dtype": "float8"}, "bfloat16"),
        ({"text_config": [1]}, "text_config"),
    ],
)
def test_refused_model_files(tmp_path: Path, change: dict[str, Any], rule: str) -> None:
    with pytest.raises(WorkloadError, match=rule) as caught:
        shape_from_hf(saved(tmp_path, **change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"model_type": NaN'])
def test_damaged_model_files(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WorkloadError, match="JSON"):
        shape_from_hf(tmp_path)


def test_absent_and_binary_model_files(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="cannot read"):
        shape_from_hf(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WorkloadError, match="not JSON"):
        shape_from_hf(tmp_path)


values = st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=4) | st.lists(st.integers())


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(LLAMA, values)), st.sampled_from(FAMILIES))
def test_any_model_file_is_read_or_refused(tmp_path_factory: Any, change: dict[str, Any], family: str) -> None:
    folder = tmp_path_factory.mktemp("model")
    try:
        shape = shape_from_hf(saved(folder, **change | {"model_type": family}))
    except WorkloadError:
        return
    assert shape.heads % shape.kv_heads == 0


def test_the_schema_refuses_other_types() -> None:
    register()
    with initialize_config_module("overlap.conf", version_base="1.3"):
        config = compose("sweep")
    assert OmegaConf.get_type(config, "workload") is not None
    with pytest.raises(Exception, match="could not be converted"):
        config.workload.bucket.query = "many"

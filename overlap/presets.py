"""Model shapes from Hugging Face `config.json` files, and workloads from composed configs.

Terms
    preset: a model shape or bucket whose values stand in `conf/`.
    family: the `model_type` of a `config.json`. Only families whose layer is the one of `overlap.kernels` are read
        (RMSNorm, RoPE, gated MLP, dense); any other would be profiled as something it is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from overlap.errors import WorkloadError
from overlap.workload import DTYPE_BYTES, Bucket, ModelShape, Workload

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
GATED_ACTIVATIONS = ("silu", "swish")
# Field of ModelShape -> key of config.json, for values that have no default.
REQUIRED = {
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "layers": "num_hidden_layers",
}
# Keys that are only there, and not null or 0, in models of another structure.
FOREIGN = {
    "kv_lora_rank": "multi-head latent attention is not covered",
    "num_experts": "mixture-of-experts models are not covered",
    "num_local_experts": "mixture-of-experts models are not covered",
    "n_routed_experts": "mixture-of-experts models are not covered",
}
ANY_CONFIG = "give the config.json of a Hugging Face model"


@dataclass(frozen=True)
class WorkloadConfig:
    """What `workload=…` composes: the fields of `Workload`, and a model file that replaces the preset's shape."""

    model: ModelShape
    bucket: Bucket = field(default_factory=Bucket)
    tensor_parallel: int = 1
    window_layers: int = 2
    # OmegaConf reads the annotation at run time and knows Optional only.
    config_json: Optional[str] = None  # noqa: UP045


def build_workload(config: WorkloadConfig) -> Workload:
    """The workload that a composed config describes."""
    model = shape_from_hf(Path(config.config_json)) if config.config_json else config.model
    return Workload(model, config.bucket, config.tensor_parallel, config.window_layers)


def shape_from_hf(path: Path) -> ModelShape:
    """Read the shape of a model from a Hugging Face `config.json`, or from the directory that holds one.

    Raises:
        WorkloadError: naming what is missing, damaged or not covered.
    """
    path = Path(path).expanduser()
    file = path / "config.json" if path.is_dir() else path
    return shape_of(_read(file), file)


def shape_of(values: Mapping[str, Any], file: Path) -> ModelShape:
    """The shape that the values of a `config.json` tell; `file` is named in errors.

    Raises:
        WorkloadError: naming what is missing or not covered.
    """
    text = _text_part(values, file)
    _check_family(text, file)
    _check_required(text, file)
    family = str(text["model_type"])
    sizes = {name: _integer(text, key, file) for name, key in REQUIRED.items()}
    return ModelShape(
        name=_name(values, file),
        kv_heads=_integer(text, "num_key_value_heads", file, sizes["heads"]),
        head_dim=_head_dim(text, sizes, file),
        qkv_bias=family == "qwen2" or text.get("attention_bias") is True,
        qk_norm=family == "qwen3",
        norm_eps=_number(text, "rms_norm_eps", file, 1e-6),
        rope_theta=_rope_theta(text, file),
        dtype=_dtype(text, values, file),
        **sizes,
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "give a config.json or the directory that holds it"
        raise WorkloadError(f"cannot read {file}: {error.strerror}", hint) from error
    except (ValueError, RecursionError) as error:
        raise WorkloadError(f"{file} is not JSON: {error}", ANY_CONFIG) from error
    if not isinstance(values, dict):
        raise WorkloadError(f"{file} holds no JSON object", ANY_CONFIG)
    return values


def _text_part(values: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    """The language model's own part: multimodal configs nest it, and the family of that part counts."""
    nested = values.get("text_config")
    if nested is None:
        return values
    if not isinstance(nested, dict):
        raise WorkloadError(f"{file}: text_config is no JSON object", ANY_CONFIG)
    return nested


def _check_family(text: Mapping[str, Any], file: Path) -> None:
    for key, rule in FOREIGN.items():
        if text.get(key):
            raise WorkloadError(f"{file}: {key} is {text[key]}", rule)
    family = text.get("model_type")
    if family not in FAMILIES:
        raise WorkloadError(
            f"{file}: model_type {family!r} is not covered",
            f"one of {', '.join(FAMILIES)}: RMSNorm, RoPE and a gated MLP in every layer",
        )
    activation = text.get("hidden_act", GATED_ACTIVATIONS[0])
    if activation not in GATED_ACTIVATIONS:
        raise WorkloadError(f"{file}: hidden_act {activation!r}", "the gated MLP that is covered uses silu")


def _check_required(text: Mapping[str, Any], file: Path) -> None:
    missing = [key for key in REQUIRED.values() if text.get(key) is None]
    if missing:
        raise WorkloadError(f"{file} lacks {', '.join(missing)}", "these keys have no default")


def _integer(text: Mapping[str, Any], key: str, file: Path, default: int | None = None) -> int:
    value = text.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise WorkloadError(f"{file}: {key} is {value!r}", "it must be a whole number of at least 1")
    return value


def _number(text: Mapping[str, Any], key: str, file: Path, default: float) -> float:
    value = text.get(key)
    if value is None:
        return default
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise WorkloadError(f"{file}: {key} is {value!r}", "it must be a number")
    return float(value)


def _head_dim(text: Mapping[str, Any], sizes: Mapping[str, int], file: Path) -> int:
    hidden, heads = sizes["hidden"], sizes["heads"]
    if text.get("head_dim") is not None:
        return _integer(text, "head_dim", file)
    if hidden % heads:
        raise WorkloadError(
            f"{file}: hidden_size {hidden} over {heads} heads",
            "without head_dim, hidden_size must be a multiple of num_attention_heads",
        )
    return hidden // heads


def _rope_theta(text: Mapping[str, Any], file: Path) -> float:
    """Older files hold `rope_theta` at the top, newer ones in `rope_parameters`. Its scaling changes no work."""
    newer = text.get("rope_parameters")
    source = newer if isinstance(newer, dict) and "rope_theta" in newer else text
    return _number(source, "rope_theta", file, 10000.0)


def _dtype(text: Mapping[str, Any], values: Mapping[str, Any], file: Path) -> str:
    told = next((part[key] for part in (text, values) for key in ("dtype", "torch_dtype") if part.get(key)), "bfloat16")
    dtype = str(told).removeprefix("torch.")
    if dtype not in DTYPE_BYTES:
        raise WorkloadError(f"{file}: dtype {dtype!r} is not covered", f"one of {', '.join(DTYPE_BYTES)}")
    return dtype


def _name(values: Mapping[str, Any], file: Path) -> str:
    """The model's own name where the file tells it, else that of the directory; never a whole path."""
    told = str(values.get("_name_or_path") or "")
    return Path(told).name or file.resolve().parent.name or "model"

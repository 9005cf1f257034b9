"""Model shapes from Hugging Face `config.json` files.

Only families that the kernels really compute are read: RMSNorm, RoPE, grouped-query attention, gated SiLU MLP. Anything
else is refused with the rule it breaks, because a shape that merely looks alike would be tuned for the wrong work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from overlap.errors import WorkloadError
from overlap.workload import ModelShape

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# Families whose attention has a bias on Q, K and V without saying so in the config.
QKV_BIAS = ("qwen2",)
QK_NORM = ("qwen3",)
NEEDED = {
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "layers": "num_hidden_layers",
}


def shape_from_hf(path: Path) -> ModelShape:
    """The model shape that a `config.json` (or the folder that holds one) describes.

    Raises:
        WorkloadError: the file is missing, damaged, lacks a key, or is of a family that is not computed here.
    """
    file = path / "config.json" if path.is_dir() else path
    config = _read(file)
    _refuse(file, config)
    missing = [key for key in NEEDED.values() if not isinstance(config.get(key), int)]
    if missing:
        raise WorkloadError(f"{file} lacks {', '.join(missing)}", "give the config.json of a decoder-only model")
    sizes = {name: config[key] for name, key in NEEDED.items()}
    family = config["model_type"]
    return ModelShape(
        name=str(config.get("_name_or_path") or file.resolve().parent.name or family),
        kv_heads=config.get("num_key_value_heads") or sizes["heads"],
        head_dim=_head_dim(file, config),
        qkv_bias=bool(config.get("attention_bias", family in QKV_BIAS)),
        qk_norm=family in QK_NORM,
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        rope_theta=_rope_theta(config),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "bfloat16"),
        **sizes,
    )


def _read(file: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkloadError(f"cannot read {file}: {error.strerror}", "workload.config_json names a file or folder") from error
    except ValueError as error:
        raise WorkloadError(f"{file} is not JSON: {error}", "give the model's config.json") from error
    if isinstance(config, dict) and isinstance(config.get("text_config"), dict):
        config = config["text_config"]
    if not isinstance(config, dict):
        raise WorkloadError(f"{file} does not hold an object", "give the model's config.json")
    return config


def _refuse(file: Path, config: Mapping[str, Any]) -> None:
    """Raise for what the kernels do not compute."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise WorkloadError(f"{file}: model_type {family!r} is not computed here", f"one of {', '.join(FAMILIES)}")
    for key in ("num_experts", "num_local_experts", "n_routed_experts", "kv_lora_rank"):
        if config.get(key):
            raise WorkloadError(f"{file} sets {key}", "mixtures of experts and latent attention are not computed here")
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise WorkloadError(f"{file}: hidden_act {activation!r}", "the MLP computed here is gated SiLU")


def _head_dim(file: Path, config: Mapping[str, Any]) -> int:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    given = config.get("head_dim")
    if given is None and (heads < 1 or hidden % heads):
        raise WorkloadError(
            f"{file}: hidden_size {hidden} over {heads} heads", "without head_dim, heads must divide hidden_size"
        )
    return int(given or hidden // heads)


def _rope_theta(config: Mapping[str, Any]) -> float:
    """Newer configs keep it in `rope_parameters`. Scaling of long contexts changes tables, not work."""
    nested = config.get("rope_parameters")
    source = nested if isinstance(nested, dict) and "rope_theta" in nested else config
    return float(source.get("rope_theta", 10000.0))

"""Where `overlap verify` gets its model: a checkpoint, a config alone, or the shape that the config was tuned for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from overlap.errors import ServeError
from overlap.serve.hf.seams import require_transformers
from overlap.workload import ModelShape

# A vocabulary for models that are made up; attention does not depend on it.
VOCABULARY = 32_000
WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json")
SEED = 0


def load_model(name: str, shape: ModelShape, layers: int | None, device: torch.device) -> tuple[Any, str]:
    """The model in the dtype of `shape`, and what it is in words.

    Args:
        name: a checkpoint's name or folder, a folder that holds a `config.json` alone, or empty for random weights.
        shape: what the config was tuned for.
        layers: fewer layers than the model has; None for all.
        device: where it is to be.

    Raises:
        ServeError: there is no such model, or it cannot be loaded.
    """
    require_transformers()
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    dtype = getattr(torch, shape.dtype)
    cut = {} if layers is None else {"num_hidden_layers": layers}
    try:
        if name and not _is_bare(name):
            model = _complete(
                name,
                *transformers.AutoModelForCausalLM.from_pretrained(name, dtype=dtype, output_loading_info=True, **cut),
            )
            words = name
        else:
            config = transformers.AutoConfig.from_pretrained(name, **cut) if name else _made_up(shape, layers)
            torch.manual_seed(SEED)
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
            words = f"{name or shape.name}, random weights"
    except ServeError:
        raise
    except Exception as error:  # Whatever a damaged file makes of foreign code.
        raise _cannot_load(name, error) from error
    return model.eval().to(device), words if layers is None else f"{words}, {layers} layers of it"


def check_model(name: str) -> None:
    """Look for the config of a model, which costs nothing, before anything is timed.

    Raises:
        ServeError: there is no such model, or its config cannot be read.
    """
    require_transformers()
    import transformers

    try:
        transformers.AutoConfig.from_pretrained(name)
    except Exception as error:  # As above.
        raise _cannot_load(name, error) from error


def _cannot_load(name: str, error: Exception) -> ServeError:
    first = (str(error).strip() or "no reason given").splitlines()[0]
    said = first if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {first}"
    return ServeError(f"cannot load the model {name}: {said}", "a checkpoint's folder, or none for random")


def _complete(name: str, model: Any, loading: Any) -> Any:
    """The model, if every weight of it was in the checkpoint; what is missing would be random."""
    if missing := sorted(loading["missing_keys"]):
        raise ServeError(
            f"the checkpoint {name} lacks {len(missing)} tensors, such as {missing[0]}",
            "a whole checkpoint, or a folder with its config.json alone for random weights",
        )
    return model


def _is_bare(name: str) -> bool:
    """Whether a folder holds a config and no weights."""
    folder = Path(name)
    return (folder / "config.json").is_file() and not any(one for kind in WEIGHTS for one in folder.glob(kind))


def _made_up(shape: ModelShape, layers: int | None) -> Any:
    """A config of the family that has what the shape has."""
    import transformers

    family = (
        transformers.Qwen3Config
        if shape.qk_norm
        else (transformers.Qwen2Config if shape.qkv_bias else transformers.LlamaConfig)
    )
    return family(
        vocab_size=VOCABULARY,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=layers or shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rms_norm_eps=shape.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        max_position_embeddings=1 << 20,
    )

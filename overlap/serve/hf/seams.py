"""Where a Hugging Face model lets a tuned split in, and whether it is the model that the config was tuned for.

Terms
    seam: the places that are used: the attention function by name, the decoder layers as a list of modules, and in
        every layer the modules that the four stages of a layer are made of.
    original: the attention that the model had before.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from overlap.errors import OverlapError, ServeError
from overlap.presets import FAMILIES, shape_of
from overlap.serve.lookup import Host
from overlap.workload import ModelShape

OLDEST = (5, 0)
# Of the names of our attention functions.
PREFIX = "overlap_tuned_"
INSTALL = "pip install 'overlap[transformers]'"
# Attentions whose masks are of shape [B, 1, T, S].
ORIGINALS = ("sdpa", "eager")
LAYER = ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "layer_idx", "scaling", "config")
# Device kinds of tuned configs by the type of a PyTorch device; a modelled chip stands for a real one.
KINDS = {"cpu": ("host",), "hpu": ("hpu", "gaudi2", "gaudi3"), "cuda": ("cuda",)}


@dataclass(frozen=True)
class Seam:
    """A model's places; `original` and `rotate` are the functions of its own module. The model itself is not held."""

    layers: list[Any]
    original_name: str
    original: Callable[..., tuple[torch.Tensor, torch.Tensor | None]]
    rotate: Callable[..., tuple[torch.Tensor, torch.Tensor]]


def find_seam(model: Any) -> Seam:
    """The seam of `model`, which is left as it is.

    Raises:
        ServeError: transformers is too old or not there, or the model has no seam; says what is missing.
    """
    require_transformers()
    from transformers import PreTrainedModel
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise ServeError(f"{name} is no model of transformers", "give what from_pretrained returns")
    family = model.config.model_type
    if family not in FAMILIES:
        raise ServeError(f"{name} has no seam: family {family!r}", f"one of {', '.join(FAMILIES)}")
    layers = _layers(model, name)
    own = sys.modules[type(layers[0].self_attn).__module__]
    if not (hasattr(own, "apply_rotary_pos_emb") and hasattr(own, "eager_attention_forward")):
        raise ServeError(f"{name} has no seam: {own.__name__} is not as in transformers 5", INSTALL)
    original = model.config._attn_implementation
    if original.startswith(PREFIX):
        hint = "give it one of its own: model.config = copy.deepcopy(model.config)"
        raise ServeError(f"{name} shares its config with a model that runs tuned, or is a copy of one", hint)
    if original not in ORIGINALS:
        hint = f"model.set_attn_implementation('{ORIGINALS[0]}') first"
        raise ServeError(f"{name} runs {original!r}, whose masks a tuned split cannot read", hint)
    function = ALL_ATTENTION_FUNCTIONS.get_interface(original, own.eager_attention_forward)
    return Seam(layers, original, function, own.apply_rotary_pos_emb)


def require_transformers() -> None:
    """Raise `ServeError` unless a transformers is there that has the seam."""
    try:
        told = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError as error:
        raise ServeError("transformers is not installed", INSTALL) from error
    if tuple(int(part) for part in told.split(".")[:2] if part.isdigit()) < OLDEST:
        raise ServeError(f"transformers {told} is too old, {OLDEST[0]}.{OLDEST[1]} is the oldest", INSTALL)


def _layers(model: Any, name: str) -> list[Any]:
    """The decoder layers that a forward pass goes through."""
    decoder = model.base_model
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        raise ServeError(f"{name} has no seam: no list of decoder layers", f"a decoder of {', '.join(FAMILIES)}")
    found = list(layers[: model.config.num_hidden_layers])
    for layer in found:
        lacking = [one for one in LAYER if not hasattr(layer, one)]
        lacking += [f"self_attn.{one}" for one in ATTENTION if not lacking and not hasattr(layer.self_attn, one)]
        if lacking:
            raise ServeError(f"{name} has no seam: {type(layer).__name__} lacks {lacking[0]}", "an unchanged model")
    return found


def host_of(model: Any) -> Host:
    """What the model is and runs on.

    Raises:
        ServeError: its layers are not those that can be tuned, or lie on several devices.
    """
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) > 1:
        raise ServeError("the model lies on several devices", "tune and apply on one device")
    kind = next(iter(devices)).type
    software = {"torch": str(torch.__version__)}
    if kind == "hpu":
        software["habana-torch-plugin"] = _version("habana-torch-plugin")
    cards = getattr(model, "tp_size", None) or 1
    return Host(shape_of_model(model), int(cards), KINDS.get(kind, (kind,)), software)


def shape_of_model(model: Any) -> ModelShape:
    """The shape that the model's config tells, in the dtype that its weights have.

    Raises:
        ServeError: the config is of a model that cannot be tuned.
    """
    dtype = str(model.dtype).removeprefix("torch.")
    try:
        name = Path(str(model.name_or_path)).name or type(model).__name__
        return replace(shape_of(model.config.to_dict(), Path(name)), name=name, dtype=dtype)
    except OverlapError as error:
        raise ServeError(error.message, error.hint) from error


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""

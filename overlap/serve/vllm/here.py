"""Whether a tuned config is for this process of vLLM: its model, dtype, device and software.

Terms
    here: what serves. vLLM tells its model while layers are made; the card tells its name; packages tell versions.

Contract: what differs for certain raises, what nobody knows is a warning. Nothing is imported that was not imported
already, vLLM's own configuration aside.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from overlap.errors import TunedError, WorkloadError
from overlap.presets import shape_of
from overlap.serve.lookup import Host, check_key
from overlap.serve.tuned import Tuned
from overlap.workload import ModelShape

CHIPS = ("gaudi3", "gaudi2")
PACKAGE = "habana-torch-plugin"


def check_here(tuned: Tuned) -> list[str]:
    """Warnings about what nobody knows.

    Raises:
        TunedError: the config is for another model, dtype, degree of tensor parallelism, device or software.
    """
    model, degree, warnings = _model(tuned)
    chip = _chip(_card())
    theirs = _chip(tuned.device.name)
    if chip and theirs and chip != theirs:
        raise TunedError(f"tuned on {tuned.device.name}, and this is a {chip}", "tune on the device that serves")
    kinds = ("hpu", chip) if chip else ("hpu", *CHIPS)
    if not chip:
        warnings.append(f"tuned on {tuned.device.name}; which Gaudi this is, nobody knows")
    here = Host(model, degree, kinds, {PACKAGE: _version(PACKAGE)})
    return warnings + check_key(tuned, here)


def _model(tuned: Tuned) -> tuple[ModelShape, int, list[str]]:
    """Shape and degree of the model that is being made; those of the config, with a warning, where nothing tells."""
    unknown = "calls are compared by their shapes alone"
    try:
        config = importlib.import_module("vllm.config").get_current_vllm_config()
        values = config.model_config.hf_config.to_dict()
        dtype = str(config.model_config.dtype).removeprefix("torch.")
        degree = int(config.parallel_config.tensor_parallel_size)
    except (ImportError, AttributeError, AssertionError, RuntimeError):
        return tuned.model, tuned.tensor_parallel, [f"vLLM does not tell its model; {unknown}"]
    # Tokens of an image see each other; their masks come with the flag of causal attention all the same.
    if values.get("is_causal") is False or values.get("vision_config") or values.get("use_bidirectional_attention"):
        raise TunedError("tuned for causal attention, and this model looks both ways", "serve it untuned")
    try:
        shape = shape_of(values, Path(str(config.model_config.model)))
        return replace(shape, dtype=dtype), degree, []
    except WorkloadError as error:
        return tuned.model, tuned.tensor_parallel, [f"the model cannot be compared: {error.message}; {unknown}"]


def _card() -> str:
    """The card's name; the bridge adds `torch.hpu` when it is imported, which is not done here."""
    bridge: Any = getattr(torch, "hpu", None)
    try:
        return str(bridge.get_device_name())
    except (AttributeError, RuntimeError):
        return ""


def _chip(name: str) -> str:
    words = name.lower().replace(" ", "").replace("-", "").replace("_", "")
    return next((chip for chip in CHIPS if chip in words), "")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""

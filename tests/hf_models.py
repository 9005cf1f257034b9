"""Small random models of transformers, and tuned configs for them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import torch

from overlap.serve.hf.seams import shape_of_model
from overlap.serve.tuned import Entry, Tuned
from tests.tuned_configs import tuned

VOCABULARY = 128
PAD = 0
FAMILIES = ("Llama", "Qwen2", "Qwen3", "Mistral")


def make(family: str = "Llama", layers: int = 3, seed: int = 0, **changes: Any) -> Any:
    """A random model in fp32 with four heads over two KV heads."""
    transformers = importlib.import_module("transformers")
    values = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "pad_token_id": PAD,
        "bos_token_id": 1,
        "eos_token_id": None,
        "max_position_embeddings": 512,
    } | changes
    if family == "Mistral":
        values = {"sliding_window": None} | values
    torch.manual_seed(seed)
    return getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**values)).eval()


def config(model: Any, entries: Iterable[Entry], kind: str = "host", **changes: Any) -> Tuned:
    """A config tuned for `model` on this machine."""
    software = {"torch": str(torch.__version__)}
    return tuned(entries, shape_of_model(model), kind, **({"software": software, "name": kind} | changes))


def prompts(batch: int, tokens: int, side: str = "left", padding: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask [batch, tokens]; row i has `padding` · i tokens of padding on `side`."""
    generator = torch.Generator().manual_seed(batch * 1000 + tokens)
    ids = torch.randint(2, VOCABULARY, (batch, tokens), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(batch):
        if side == "left":
            mask[row, : padding * row] = 0
        else:
            mask[row, tokens - padding * row :] = 0
    return ids * mask, mask


def greedy(model: Any, ids: torch.Tensor, mask: torch.Tensor, tokens: int = 64, **options: Any) -> torch.Tensor:
    """Greedy output behind the prompts, all of `tokens` long."""
    made = model.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, **options)
    result = made[:, ids.shape[1] :]
    assert result.shape[1] == tokens
    return result

"""Shapes of models by the names that sources give them.

A name has a shape here, or a reason why its layer is not the modelled one, or is unknown; nothing is guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import msgspec

from overlap.devices.gaudi.validation.rows import Inexpressible
from overlap.workload import ModelShape

# What sources append to a name without meaning another shape.
_ENDINGS = re.compile(r"(-(hf|instruct|chat|it|base|bf16|fp16|preview))+$")


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model of `models.yaml`."""

    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    layers: int
    vocab: int
    billions: float
    head_dim: int = 0
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    aliases: tuple[str, ...] = ()


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`models.yaml`."""

    models: dict[str, Entry]
    families: dict[str, str]


@dataclass(frozen=True)
class Model:
    """A whole model: its layers and what stands before and behind them. `tied`: one matrix embeds and unembeds."""

    shape: ModelShape
    vocab: int
    tied: bool = False

    @property
    def parameters(self) -> int:
        """Weights of the whole model."""
        one = self.shape
        query, keys = one.heads * one.head_dim, one.kv_heads * one.head_dim
        layer = 2 * one.hidden * (query + keys) + 3 * one.hidden * one.ffn + 2 * one.hidden
        layer += (query + 2 * keys) * one.qkv_bias + 2 * one.head_dim * one.qk_norm
        embeddings = self.vocab * one.hidden * (1 if self.tied else 2)
        return one.layers * layer + embeddings + one.hidden


def find_model(name: str) -> Model:
    """The model that a source calls `name`.

    Raises:
        Inexpressible: it has another layer than the modelled one, or no shape is known for it.
    """
    wanted = plain_name(name)
    known = _by_name()
    if wanted in known:
        return known[wanted]
    for family, reason in table().families.items():
        if wanted.startswith(plain_name(family)):
            raise Inexpressible(f"{family} models: {reason}")
    raise Inexpressible(f"no shape is known for the model {name!r}")


def mentioned(text: str) -> str | None:
    """The longest name of a known model that a text contains."""
    words = _spaced(text)
    names = [name for one, entry in table().models.items() for name in (one, *entry.aliases)]
    found = [name for name in names if f" {_spaced(name)} " in f" {words} "]
    return max(found, key=len, default=None)


def plain_name(name: str) -> str:
    """A name as it is compared: `meta-llama/Llama-2-7b-hf` is `llama-2-7b`."""
    text = re.sub(r"[\s_]+", "-", name.strip().rpartition("/")[2].lower())
    return _ENDINGS.sub("", text)


def _spaced(text: str) -> str:
    """Words of a text apart by single spaces, dots within numbers kept."""
    return " ".join(re.findall(r"[a-z0-9]+(?:\.[0-9]+[a-z]*)*", text.lower()))


@cache
def table() -> Table:
    """The content of `models.yaml`."""
    text = files("overlap.devices.gaudi.validation").joinpath("models.yaml").read_bytes()
    return msgspec.yaml.decode(text, type=Table)


@cache
def _by_name() -> dict[str, Model]:
    return {
        plain_name(name): _model(canonical, entry)
        for canonical, entry in table().models.items()
        for name in (canonical, *entry.aliases)
    }


def _model(name: str, entry: Entry) -> Model:
    shape = ModelShape(
        name=name.lower(),
        hidden=entry.hidden,
        heads=entry.heads,
        kv_heads=entry.kv_heads,
        head_dim=entry.head_dim or entry.hidden // entry.heads,
        ffn=entry.ffn,
        layers=entry.layers,
        qkv_bias=entry.qkv_bias,
        qk_norm=entry.qk_norm,
    )
    return Model(shape, entry.vocab, entry.tied)

"""What ops are part of, by their names: layer of the model and phase of attention, by the rules of `names.yaml`.

Terms
    text: `path/name kind` of an op, what rules are matched against.
    phase of attention: one of `PHASES`; `other` is what no rule knows.

Contract: what an event table already says is kept; rules only fill layers of -1 and phases of "". They are applied once
to every distinct text, so a table of a million rows costs about as much as its few thousand names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import msgspec
import polars as pl

from overlap.errors import ConfigError
from overlap.traces.codes import Ints, coded

OTHER = "other"
# Attention first, in the order of its steps.
PHASES = (
    *("qk", "softmax", "pv", "attention", "projection", "rope"),
    *("norm", "mlp", "embedding", "collective", "copy", OTHER),
)
TEXTS = ("path", "name", "kind")
# So few texts are matched one by one, and remembered; polars compiles every regex anew for every column.
_FEW = 2000


class PhaseRule(msgspec.Struct, forbid_unknown_fields=True):
    """One line of the rules for phases."""

    phase: str
    pattern: str


class NameFile(msgspec.Struct, forbid_unknown_fields=True):
    """Layout of a rule file."""

    layers: list[str]
    phases: list[PhaseRule]


@dataclass(frozen=True)
class NameRules:
    """Rules in order, as regexes that polars takes: `layers` with one group each, `phases` as (phase, regex).

    `text` is what they were read from; it belongs into the key of any cache.
    """

    layers: tuple[str, ...]
    phases: tuple[tuple[str, str], ...]
    text: str


@cache
def name_rules() -> NameRules:
    """The rules of the project."""
    return parsed_rules(files("overlap.traces").joinpath("names.yaml").read_text(encoding="utf-8"), "names.yaml")


def parsed_rules(text: str, where: str) -> NameRules:
    """Rules in the layout of `names.yaml`; `where` names their source in messages.

    Raises:
        ConfigError: the layout, a phase or a regex is wrong.
    """
    try:
        found = msgspec.yaml.decode(text.encode(), type=NameFile)
    except msgspec.DecodeError as error:
        hint = "the layout is that of traces/names.yaml: `layers:` with regexes, `phases:` with {phase, pattern}"
        raise ConfigError(f"{where} is not a file of rules: {' '.join(str(error).split())}", hint) from error
    for rule in found.phases:
        if rule.phase not in PHASES:
            raise ConfigError(f"{where} names the phase {rule.phase!r}", f"one of {', '.join(PHASES)}")
    for pattern in found.layers:
        if _groups(pattern, where) != 1:
            raise ConfigError(f"{where}: the pattern {pattern!r} for layers needs one group", "such as 'layer(\\d+)'")
    for rule in found.phases:
        _groups(rule.pattern, where)
    return NameRules(
        tuple(f"(?i){pattern}" for pattern in found.layers),
        tuple((rule.phase, f"(?i){rule.pattern}") for rule in found.phases),
        text,
    )


def _groups(pattern: str, where: str) -> int:
    """Number of groups of a regex; that polars takes it as well, a test makes sure."""
    try:
        return re.compile(pattern).groups
    except re.error as error:
        raise ConfigError(f"{where} has a broken regex: {pattern}", str(error)) from error


def with_names(events: pl.DataFrame, rules: NameRules) -> pl.DataFrame:
    """`events` with layers and phases filled where they are unknown and a rule knows better.

    Args:
        events: an event table (`overlap.traces.schema`).
        rules: see `name_rules`.
    """
    unknown = (pl.col("layer") < 0) | (pl.col("phase") == "")
    if not events.select(unknown.any()).item():
        return events
    codes, texts = distinct_texts(events)
    layer, phase = layers_of(texts, rules), phases_of(texts, rules)
    phase = phase.replace(OTHER, "")
    return events.with_columns(
        pl.when(pl.col("layer") < 0).then(layer.gather(codes)).otherwise("layer").alias("layer"),
        pl.when(pl.col("phase") == "").then(phase.gather(codes)).otherwise("phase").alias("phase"),
    )


def distinct_texts(frame: pl.DataFrame) -> tuple[Ints, pl.Series]:
    """(index of every row's text, the distinct texts); columns that the frame lacks count as empty."""
    codes, parts = coded(frame, [name for name in TEXTS if name in frame.columns])
    path, name, kind = (pl.col(part) if part in parts.columns else pl.lit("") for part in TEXTS)
    lead = pl.when(path != "").then(path + "/").otherwise(pl.lit(""))
    return codes, parts.select((lead + name + " " + kind).alias("text"))["text"]


def layers_of(texts: pl.Series, rules: NameRules) -> pl.Series:
    """Layer of each text, -1 where no rule knows."""
    found = pl.coalesce(
        *(pl.col("text").str.extract(pattern, 1).cast(pl.Int32, strict=False) for pattern in rules.layers),
        pl.lit(-1, dtype=pl.Int32),
    )
    return texts.alias("text").to_frame().select(found.alias("layer"))["layer"]


def phases_of(texts: pl.Series, rules: NameRules) -> pl.Series:
    """Phase of each text, `other` where no rule knows."""
    squeezed = texts.str.replace_all(r"\d+", "0").alias("text").to_frame()
    sorts = squeezed.unique(maintain_order=True)
    phases = sorts.with_columns(pl.Series("phase", _first_match(sorts["text"], rules.phases), dtype=pl.String))
    return squeezed.join(phases, on="text", how="left", maintain_order="left")["phase"]


@lru_cache(maxsize=1 << 14)
def _phase_of(text: str, rules: tuple[tuple[str, str], ...]) -> str:
    """The same for one text."""
    return next((phase for phase, pattern in rules if re.search(pattern, text)), OTHER)


def _first_match(texts: pl.Series, rules: Sequence[tuple[str, str]]) -> list[str]:
    """Phase of the first rule whose regex is found; each rule sees only what those before it left over."""
    if len(texts) < _FEW:
        return [_phase_of(text, tuple(rules)) for text in texts]
    found = [OTHER] * len(texts)
    left = pl.DataFrame({"text": texts, "row": range(len(texts))})
    for phase, pattern in rules:
        hit = left["text"].str.contains(pattern)
        for row in left["row"].filter(hit):
            found[row] = phase
        left = left.filter(~hit)
    return found

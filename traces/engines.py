"""Kernel name → engine, by the ordered rules of `engines.yaml` and of the user."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import msgspec

from overlap.errors import ConfigError
from overlap.traces.sweep import ENGINES

UNKNOWN = "OTHER"


class Rule(msgspec.Struct, forbid_unknown_fields=True):
    """One line of a rule file."""

    engine: str
    pattern: str


class RuleFile(msgspec.Struct, forbid_unknown_fields=True):
    """Layout of a rule file."""

    rules: list[Rule]


@dataclass(frozen=True)
class EngineRules:
    """Rules in order: (engine, regex). `text` is what they were read from; it belongs into the key of any cache."""

    rules: tuple[tuple[str, re.Pattern[str]], ...]
    text: str

    def engine(self, kernel: str) -> str:
        """Engine of the first rule whose regex is found in `kernel`; OTHER if there is none."""
        for engine, pattern in self.rules:
            if pattern.search(kernel):
                return engine
        return UNKNOWN

    def engines(self, kernels: Iterable[str]) -> list[str]:
        """Engine of each of `kernels`."""
        return [self.engine(kernel) for kernel in kernels]


def engine_rules(own: Path | None = None) -> EngineRules:
    """The rules of the project, after those of the file `own` where there is one.

    Raises:
        ConfigError: `own` is not a file of rules.
    """
    text = files("overlap.traces").joinpath("engines.yaml").read_text(encoding="utf-8")
    rules = _parsed(text, "engines.yaml")
    if own is None:
        return EngineRules(rules, text)
    try:
        first = own.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot read rules from {own}: {error}", "rules= takes a YAML file") from error
    return EngineRules((*_parsed(first, str(own)), *rules), first + text)


def _parsed(text: str, where: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    try:
        found = msgspec.yaml.decode(text.encode(), type=RuleFile)
    except msgspec.DecodeError as error:
        hint = "the layout is that of traces/engines.yaml: `rules:` and a list of {engine: MME, pattern: '…'}"
        raise ConfigError(f"{where} is not a file of rules: {' '.join(str(error).split())}", hint) from error
    return tuple(_compiled(rule, f"rule {number} of {where}") for number, rule in enumerate(found.rules, 1))


def _compiled(rule: Rule, where: str) -> tuple[str, re.Pattern[str]]:
    if rule.engine not in ENGINES:
        raise ConfigError(f"{where} names the engine {rule.engine!r}", f"one of {', '.join(ENGINES)}")
    try:
        return rule.engine, re.compile(rule.pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(f"{where} has a broken regex: {error}", f"pattern: {rule.pattern}") from error

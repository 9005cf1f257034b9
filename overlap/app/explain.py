"""From Hydra's complaint about an override to one line that says what is wrong and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from overlap.commands import Command
from overlap.errors import ConfigError
from overlap.similar import did_you_mean, meant


@dataclass(frozen=True)
class Known:
    """What can be overridden: dotted keys, and option groups with their options."""

    keys: frozenset[str]
    groups: Mapping[str, Sequence[str]]


def explain(command: Command, overrides: Sequence[str], error: Exception) -> ConfigError:
    """The mistake in `overrides` that made Hydra raise `error`."""
    parsed = []
    for text in overrides:
        one = _parse(text)
        if isinstance(one, ConfigError):
            return one
        parsed.append(one)
    # A launcher brings keys of its own.
    known = _known(command.name, [one.input_line or "" for one in parsed if one.key_or_group == "hydra/launcher"])
    for one in parsed:
        mistake = _wrong_name(command, one, known)
        if mistake:
            return mistake
    return _in_hydras_words(parsed, error)


def _parse(text: str) -> Override | ConfigError:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        what = "cannot be read" if "=" in text else "is not an override"
        return ConfigError(f"{text!r} {what}", "write key=value; quote values that hold special characters")


def _known(config_name: str, chosen: list[str]) -> Known:
    with initialize_config_module("overlap.conf", version_base="1.3"):
        try:
            config = compose(config_name, chosen, return_hydra_config=True)
        except HydraException:
            config = compose(config_name, return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        names = [group for group in loader.list_groups("") if group != "hydra"]
        groups = {group: loader.get_group_options(group) for group in names}
        hydra_names = [f"hydra/{group}" for group in loader.list_groups("hydra")]
        groups |= {group: loader.get_group_options(group) for group in hydra_names}
    return Known(frozenset(_dotted(config)), groups)


def _dotted(config: DictConfig, prefix: str = "") -> Iterable[str]:
    for name in map(str, config):
        key = f"{prefix}{name}"
        yield key
        child = None if OmegaConf.is_missing(config, name) else config._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            yield from _dotted(child, f"{key}.")


def _wrong_name(command: Command, override: Override, known: Known) -> ConfigError | None:
    key = str(override.key_or_group)
    if override.is_add() or override.is_force_add():
        return None
    if key in known.groups and not key.startswith("hydra.") and not override.is_delete():
        return _wrong_option(command, override, known.groups[key])
    if key in known.keys:
        return None
    own = sorted(one for one in known.keys if not one.startswith("hydra"))
    candidates = sorted(known.keys) if key.startswith("hydra") else [*command.groups, *own]
    # `race_rouns` is as likely a forgotten section as a typo, so last parts are compared where whole keys fail.
    last_parts = {one.rpartition(".")[2]: one for one in candidates}
    close = meant(key, candidates) or [last_parts[one] for one in meant(key.rpartition(".")[2], last_parts)]
    hint = f"did you mean {' or '.join(close)}?" if close else f"overlap {command.name} --help lists what there is"
    return ConfigError(f"{override.input_line}: there is no {key!r}", hint)


def _wrong_option(command: Command, override: Override, options: Sequence[str]) -> ConfigError | None:
    for value in _values(override):
        # Anything but a name, such as `null`, is Hydra's to refuse.
        if isinstance(value, str) and value not in options:
            group = override.key_or_group
            hint = did_you_mean(value, options, f"overlap {command.name} --help lists them")
            return ConfigError(f"{group}={value}: there is no {group} {value!r}", hint)
    return None


def _values(override: Override) -> list[Any]:
    if override.is_sweep_override():
        return list(override.sweep_iterator()) if override.is_discrete_sweep() else []
    value = override.value()
    return list(value) if isinstance(value, list) else [value]


def _in_hydras_words(parsed: Sequence[Override], error: Exception) -> ConfigError:
    """No name is wrong, so a value is: Hydra's first line and that of its cause say which."""
    lines = [_first_line(error)]
    guess = next((line.strip() for line in str(error).splitlines() if line.startswith("Did you mean")), "")
    if guess:
        return ConfigError(lines[0], guess)
    if error.__cause__ is not None:
        lines.append(_first_line(error.__cause__))
    at_fault = [one.input_line for one in parsed if one.input_line and one.input_line in lines[0]]
    if at_fault and len(lines) > 1:
        return ConfigError(f"{at_fault[0]}: {lines[1]}")
    return ConfigError(": ".join(lines))


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

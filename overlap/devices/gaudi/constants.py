"""The constants of a chip, each with where it comes from.

`chips/<chip>/<section>.yaml` maps name → value, unit, source, where and, where nobody knows the exact value, the
interval [low, high] that it may lie in. Code never holds a number of a chip: it declares a frozen dataclass whose
fields are the names of a section, and `Constants.section` fills it.

Sources
    source-code: read in the vendor's open sources. vendor-doc: said in the vendor's documents or slides.
    measured: published by somebody with hardware. fitted: chosen by `fit` on calibration rows.
    guess: nobody has published it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeVar

import msgspec

from overlap.errors import ConfigError
from overlap.similar import did_you_mean

CHIPS = ("gaudi2", "gaudi3")
Source = Literal["source-code", "vendor-doc", "measured", "fitted", "guess"]
Value = bool | int | float | str | list[int]
_T = TypeVar("_T")


class Constant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number of a chip; `low` and `high` are set where it is uncertain."""

    value: Value
    source: Source
    where: str
    unit: str = ""
    low: float | None = None
    high: float | None = None

    @property
    def uncertain(self) -> bool:
        """Whether an interval is known."""
        return self.low is not None


@dataclass(frozen=True)
class Constants:
    """All constants of a chip, by `section.name`."""

    chip: str
    entries: Mapping[str, Constant]

    def section(self, name: str, schema: type[_T]) -> _T:
        """The constants of a section as an instance of a frozen dataclass whose fields are their names."""
        prefix = f"{name}."
        found = {key[len(prefix) :]: entry.value for key, entry in self.entries.items() if key.startswith(prefix)}
        wanted = {field.name for field in fields(schema)}  # type: ignore[arg-type]
        if found.keys() != wanted:
            raise ValueError(f"section {name} of {self.chip} and {schema.__name__}: {sorted(found.keys() ^ wanted)}")
        return schema(**{key: tuple(value) if isinstance(value, list) else value for key, value in found.items()})

    def replaced(self, values: Mapping[str, Any]) -> Constants:
        """These constants with other values, which keep their kind.

        Raises:
            ConfigError: a name does not exist, or a value is of another kind.
        """
        entries = dict(self.entries)
        for key, value in _flat(values):
            old = entries.get(key)
            if old is None:
                hint = did_you_mean(key, list(entries), f"`overlap devices device={self.chip}` lists them")
                raise ConfigError(f"{self.chip} has no constant {key!r}", hint)
            entries[key] = msgspec.structs.replace(old, value=_same_kind(key, old.value, value))
        return replace(self, entries=entries)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{mme: {clock_mhz: 1}}` as `mme.clock_mhz`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# Ends of names of what may be nothing. Sizes, rates and other counts may not.
MAY_BE_ZERO = ("_ns", "_us", "compile_s", "_kib", "_ratio", "_fraction", "_buffers", "_engines")


def _same_kind(key: str, old: Value, value: Any) -> Value:
    """`value` if it can stand for `old`: of its kind, finite, whole where it was, and not 0 where that is no size."""
    hint = f"it must be like {old!r}"
    if isinstance(old, bool) or not isinstance(old, (int, float)):
        if type(old) is type(value):
            return value
        raise ConfigError(f"{key} is {value!r}", hint)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{key} is {value!r}", hint)
    if isinstance(old, int) and value != int(value):
        raise ConfigError(f"{key} is {value!r}", f"{hint}, a whole number")
    if value < 0 or (value == 0 and not key.endswith(MAY_BE_ZERO)):
        raise ConfigError(f"{key} is {value!r}", f"{hint}, above 0")
    return int(value) if isinstance(old, int) else value


@cache
def load_constants(chip: str) -> Constants:
    """The constants of `chip` as they stand in its YAML files.

    Raises:
        ConfigError: there is no such chip.
    """
    if chip not in CHIPS:
        raise ConfigError(f"chip {chip!r}", f"one of {', '.join(CHIPS)}")
    folder = files("overlap.devices.gaudi").joinpath("chips").joinpath(chip)
    entries: dict[str, Constant] = {}
    for file in sorted(folder.iterdir(), key=lambda one: one.name):
        section = msgspec.yaml.decode(file.read_bytes(), type=dict[str, Constant])
        stem = file.name.removesuffix(".yaml")
        entries.update({f"{stem}.{name}": constant for name, constant in section.items()})
    return Constants(chip, entries)

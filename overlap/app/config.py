"""Schemas of the commands' configs, and the way from a composed config to the frozen objects that the library takes.

The fields and their rules stand once, in frozen dataclasses beside the code they configure. OmegaConf makes frozen
dataclasses read-only, so that no override could reach them; `schema` therefore derives a mutable twin for composing,
and `build` makes the frozen original, which validates itself, from the result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

from omegaconf import MISSING, OmegaConf

from overlap.devices.config import DeviceConfig
from overlap.errors import ConfigError
from overlap.presets import WorkloadConfig
from overlap.search.config import ORDERS, SearchConfig, SpaceConfig
from overlap.split import Split

T = TypeVar("T")


@dataclass(frozen=True)
class SweepRoot:
    """Config of `overlap sweep`."""

    workload: WorkloadConfig
    device: DeviceConfig = field(default_factory=DeviceConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    search: SearchConfig = field(default_factory=SearchConfig)


@dataclass(frozen=True)
class ProfileRoot:
    """Config of `overlap profile`: one split in one order, run `repeats` times."""

    workload: WorkloadConfig
    device: DeviceConfig = field(default_factory=DeviceConfig)
    split: Split = field(default_factory=Split)
    order: str = "program"
    repeats: int = 9
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.order not in ORDERS:
            raise ConfigError(f"order is {self.order!r}", f"one of {', '.join(ORDERS)}")
        if self.repeats < 1:
            raise ConfigError(f"repeats is {self.repeats}", "it must be at least 1")


ROOTS: dict[str, type[Any]] = {"sweep": SweepRoot, "profile": ProfileRoot}


def schema(cls: type[Any]) -> type[Any]:
    """A mutable dataclass with the fields and defaults of `cls`, without its rules; nested dataclasses likewise."""
    hints = get_type_hints(cls)
    made: list[tuple[str, Any, Any]] = []
    for one in dataclasses.fields(cls):
        kind = hints[one.name]
        default = MISSING if one.default is dataclasses.MISSING else one.default
        if dataclasses.is_dataclass(kind):
            kind = schema(kind)  # type: ignore[arg-type]
            made.append((one.name, kind, field(default_factory=kind)))
        elif one.default_factory is not dataclasses.MISSING:
            made.append((one.name, kind, field(default_factory=one.default_factory)))
        else:
            made.append((one.name, kind, field(default=default)))
    return dataclasses.make_dataclass(cls.__name__, made)


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """The frozen `cls` with `values`; its own rules, and those of what it nests, are checked on the way."""
    hints = get_type_hints(cls)
    unknown = [name for name in values if name not in hints]
    if unknown:
        raise ConfigError(f"there is no {unknown[0]!r} in the config", f"there are: {', '.join(hints)}")
    return cls(
        **{
            name: build(hints[name], one) if dataclasses.is_dataclass(hints[name]) else one
            for name, one in values.items()
        }
    )


def from_config(cls: type[T], config: Any) -> T:
    """The frozen `cls` out of a composed config.

    Raises:
        OverlapError: a value breaks a rule; the message names both.
    """
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict), "the root of a command's config is a mapping"
    return build(cls, {str(name): value for name, value in values.items()})

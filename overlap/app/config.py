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

from overlap.buckets import BucketsConfig
from overlap.devices.config import DeviceConfig
from overlap.devices.gaudi.constants import CHIPS
from overlap.errors import ConfigError
from overlap.presets import WorkloadConfig
from overlap.search.config import ORDERS, SearchConfig, SpaceConfig
from overlap.split import Split

T = TypeVar("T")


@dataclass(frozen=True)
class SweepRoot:
    """Config of `overlap sweep`; `records` is a folder that many workers share, empty for none.

    With any other `buckets` than the single one, these take the place of the workload's own.
    """

    workload: WorkloadConfig
    device: DeviceConfig = field(default_factory=DeviceConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    buckets: BucketsConfig = field(default_factory=BucketsConfig)
    records: str = ""


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


@dataclass(frozen=True)
class AnalyzeRoot:
    """Config of `overlap analyze`.

    Args:
        trace: a trace file, or a folder of them (ranks, or a run of `overlap`).
        diff: the trace before, to compare with; empty for none.
        rules: a file of rules that go before those of `traces/engines.yaml`; empty for none.
        window: `steps` looks at whole iterations where the trace has them, `all` at everything.
        macro_gap_us: idle from this length on is macro.
        cache: keep what was read as Parquet in the user's cache folder, and read that the next time.
        perfetto: write a trace with counters for ui.perfetto.dev.
    """

    trace: str
    diff: str = ""
    rules: str = ""
    window: str = "steps"
    macro_gap_us: float = 10.0
    cache: bool = True
    perfetto: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.window not in ("steps", "all"):
            raise ConfigError(f"window is {self.window!r}", "steps or all")
        if not 0 <= self.macro_gap_us < 1e12:
            raise ConfigError(f"macro_gap_us is {self.macro_gap_us}", "a length in microseconds, such as 10")


@dataclass(frozen=True)
class ValidateRoot:
    """Config of `overlap validate`.

    Args:
        device: a modelled one.
        rows: a CSV file of published rows; empty for those that are shipped.
        worst: rows with the largest errors that are shown singly.
    """

    device: DeviceConfig = field(default_factory=DeviceConfig)
    rows: str = ""
    worst: int = 12

    def __post_init__(self) -> None:
        """Refuse what has no model."""
        if self.device.kind not in CHIPS:
            hint = f"only modelled devices are validated: device={' or device='.join(CHIPS)}"
            raise ConfigError(f"device {self.device.kind!r} has nothing to validate", hint)
        if self.worst < 0:
            raise ConfigError(f"worst is {self.worst}", "a number of rows, 0 for none")


ROOTS: dict[str, type[Any]] = {
    "sweep": SweepRoot,
    "profile": ProfileRoot,
    "analyze": AnalyzeRoot,
    "validate": ValidateRoot,
}


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
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(f"{missing[0]} is missing", f"{missing[0]}=<value>; --help says what it means")
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict), "the root of a command's config is a mapping"
    return build(cls, {str(name): value for name, value in values.items()})

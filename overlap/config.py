"""Configs of the commands: schemas that Hydra checks overrides against, and the way from a composed config to our types.

The schemas are made from the dataclasses themselves, so a field exists once. Hydra needs them mutable while it composes;
the frozen, validating objects are built at the end, and that is where a rule that a value breaks is named.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, TypeVar, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from overlap.devices.config import DeviceConfig
from overlap.errors import ConfigError
from overlap.presets import shape_from_hf
from overlap.search.config import SearchConfig, SpaceConfig
from overlap.split import Split
from overlap.workload import Bucket, ModelShape, Workload

_T = TypeVar("_T")


def schema_of(cls: type) -> Any:
    """A mutable dataclass with the fields of the frozen dataclass `cls`; fields without a default must be given."""
    hints = get_type_hints(cls)
    made = []
    for one in dataclasses.fields(cls):
        if one.default_factory is not dataclasses.MISSING:
            default: Any = field(default_factory=one.default_factory)
        else:
            default = field(default=MISSING if one.default is dataclasses.MISSING else one.default)
        made.append((one.name, hints[one.name], default))
    return dataclasses.make_dataclass(f"{cls.__name__}Schema", made)


ModelSchema, BucketSchema, SplitSchema = schema_of(ModelShape), schema_of(Bucket), schema_of(Split)
SpaceSchema, SearchSchema, DeviceSchema = schema_of(SpaceConfig), schema_of(SearchConfig), schema_of(DeviceConfig)


@dataclass
class WorkloadSchema:
    """A workload; `config_json` names a Hugging Face config that replaces `model`."""

    model: ModelSchema = field(default_factory=ModelSchema)
    bucket: BucketSchema = field(default_factory=BucketSchema)
    tensor_parallel: int = 1
    window_layers: int = 2
    # Hydra reads Optional, not the | of newer Pythons.
    config_json: Optional[str] = None  # noqa: UP045


@dataclass
class SweepSchema:
    """Config of `overlap sweep`."""

    workload: WorkloadSchema = field(default_factory=WorkloadSchema)
    device: DeviceSchema = field(default_factory=DeviceSchema)
    space: SpaceSchema = field(default_factory=SpaceSchema)
    search: SearchSchema = field(default_factory=SearchSchema)


@dataclass
class ProfileSchema:
    """Config of `overlap profile`; `order` is `program` or `list`."""

    workload: WorkloadSchema = field(default_factory=WorkloadSchema)
    device: DeviceSchema = field(default_factory=DeviceSchema)
    split: SplitSchema = field(default_factory=SplitSchema)
    order: str = "program"
    repeats: int = 7
    seed: int = 0


@dataclass
class DevicesSchema:
    """Config of `overlap devices`."""

    device: DeviceSchema = field(default_factory=DeviceSchema)


def register() -> None:
    """Tell Hydra about the schemas; the YAML under `conf/` inherits them by name."""
    store = ConfigStore.instance()
    for name, node in (("sweep", SweepSchema), ("profile", ProfileSchema), ("devices", DevicesSchema)):
        store.store(name=f"{name}_schema", node=node)


def build(cls: type[_T], node: DictConfig) -> _T:
    """The frozen object for a composed node; raises the error of the rule that a value breaks."""
    content = OmegaConf.to_container(node, resolve=True)
    assert isinstance(content, dict)
    return cls(**{str(name): value for name, value in content.items()})


def build_workload(node: DictConfig) -> Workload:
    """The workload that a composed config describes."""
    if node.config_json is not None:
        model = shape_from_hf(Path(node.config_json))
    else:
        missing = [name for name in node.model if OmegaConf.is_missing(node.model, name)]
        if missing:
            raise ConfigError(f"workload.model.{missing[0]} is not set", "choose a model preset, or give config_json")
        model = build(ModelShape, node.model)
    return Workload(
        model=model,
        bucket=build(Bucket, node.bucket),
        tensor_parallel=node.tensor_parallel,
        window_layers=node.window_layers,
    )

"""A chip with all its constants, one object that every part of the model is given."""

from __future__ import annotations

from dataclasses import dataclass

from overlap.devices.gaudi.constants import Constants
from overlap.devices.gaudi.memory import MemoryConstants
from overlap.devices.gaudi.mme import MmeConstants
from overlap.devices.gaudi.nic import NicConstants
from overlap.devices.gaudi.tpc import TpcConstants

# Name and version of the model; the version counts what changes its numbers.
MODEL = "overlap-gaudi"
VERSION = "1"


@dataclass(frozen=True)
class GemmConstants:
    """`chips/*/gemm.yaml`."""

    efficiency: float
    fp8_efficiency: float
    node_ns: float
    edge_fraction: float
    rollup_follows_rows: bool


@dataclass(frozen=True)
class CompilerConstants:
    """`chips/*/compiler.yaml`."""

    min_slices: int
    max_slices: int
    chains: int
    roi_depth: int
    max_producers: int
    max_consumers: int
    max_sharing: int
    consumers_first: bool
    attention_seeds: bool
    mme_signals_per_roi: bool
    min_utilisation_ratio: float
    kept_buffers: int
    fused_block_tokens: int
    fused_block_from_tokens: int
    sync_to_mme_ns: float
    sync_to_tpc_ns: float
    sync_same_ns: float


@dataclass(frozen=True)
class HostConstants:
    """`chips/*/host.yaml`."""

    eager_op_us: float
    lazy_recipe_us: float
    lazy_op_us: float
    compile_recipe_us: float
    graph_recipe_us: float
    step_us: float
    collective_us: float
    fence_ns: float
    fallback_us: float
    pcie_gb_per_s: float
    recompile_s: float


@dataclass(frozen=True)
class Machine:
    """Constants by part."""

    chip: str
    mme: MmeConstants
    gemm: GemmConstants
    tpc: TpcConstants
    memory: MemoryConstants
    compiler: CompilerConstants
    host: HostConstants
    nic: NicConstants

    @classmethod
    def of(cls, constants: Constants) -> Machine:
        """Fill every section."""
        return cls(
            constants.chip,
            constants.section("mme", MmeConstants),
            constants.section("gemm", GemmConstants),
            constants.section("tpc", TpcConstants),
            constants.section("memory", MemoryConstants),
            constants.section("compiler", CompilerConstants),
            constants.section("host", HostConstants),
            constants.section("nic", NicConstants),
        )

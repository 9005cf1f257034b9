"""The numbers of a chip's matrix engine; `chips/<chip>/mme.yaml` has their values, units and sources."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache, cached_property

from overlap.devices.gaudi.constants import load_constants


@dataclass(frozen=True)
class MmeConstants:
    """Constants of one chip. Equal ones are one cache entry; change some with `dataclasses.replace`."""

    design: str
    """Which rules of geometry apply: `gaudi2` or `gaudi3`."""
    clock_mhz: float
    mmes: int
    eus_per_mme: int
    eu_columns: int
    eu_rows: int
    macs_per_cycle: int
    dcores: int
    rollup_cycles: int
    """Least time of one output tile: what its accumulators need to drain."""
    accumulators: int
    transpose_rows: int
    input_buffers: int
    sb_lines: int
    """Lines of one suspension buffer, the memory from which an operand is replayed."""
    port_line_bytes: int
    memory_line_bytes: int
    max_reuse_steps: int
    max_loop_steps: int
    max_reuse_batches: int
    max_tile_elements: int
    pipeline_level: int
    port_gb_per_s: float
    k_granule_bf16: int
    k_granule_fp16: int
    k_granule_fp8: int
    k_granule_tf32: int
    k_granule_fp32: int

    @cached_property
    def granules(self) -> dict[str, int]:
        """K granule of the reduction tree by dtype."""
        prefix = "k_granule_"
        names = (one.name for one in fields(self) if one.name.startswith(prefix))
        return {name.removeprefix(prefix): getattr(self, name) for name in names}

    @cached_property
    def _key(self) -> int:
        return hash(tuple(getattr(self, one.name) for one in fields(self)))

    def __hash__(self) -> int:
        """Hash that is computed once: these are the key of every cached cost."""
        return self._key


@cache
def mme_constants(chip: str) -> MmeConstants:
    """The constants of `chip` as they stand in its YAML file.

    Raises:
        ConfigError: there is no such chip.
    """
    return load_constants(chip).section("mme", MmeConstants)

"""Config of the `hpu` device."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from overlap.errors import ConfigError

COMPILE, LAZY, LAZY_GRAPHS, EAGER = MODES = ("compile", "lazy", "lazy_graphs", "eager")
SOFTMAX_MODES = ("None", "fast", "fp32")
# Settings that outputs name by the variables that they set.
TOLD_ELSEWHERE = ("mode", "environment", "sdpa_block")
REPORT, REQUIRE = OBEY = ("report", "require")
# Sizes of the blocks that the fused attention is cut into; the vendor wants them equal.
BLOCK_ROWS, BLOCK_COLUMNS = "PT_HPU_SDPA_BR_FACTOR", "PT_HPU_SDPA_BC_FACTOR"


@dataclass(frozen=True)
class HpuConfig:
    """How programs run on a Gaudi card.

    `hints` passes an order as strict scheduling hints (mode compile), `control_edges` as edges between matrix ops
    (lazy modes). `obey` says what happens if the trace shows another order or fewer matrix nodes than asked for:
    `report` says so in the gates, `require` fails the variant. `compile_options` go to `torch.compile`, `environment`
    is set before the bridge is imported. `sdpa_block` is the size of the blocks of queries and keys inside the fused
    attention, none for the release's own. A timed sample is at least `sample_ms` long, over as many runs as that takes.
    """

    mode: str = COMPILE
    hints: bool = True
    control_edges: bool = True
    obey: str = REPORT
    compile_options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    sdpa_block: int | None = None
    softmax_mode: str = "None"
    recompute: bool = True
    fused_norm: bool = True
    fused_rope: bool = False
    sample_ms: float = 10.0
    hardware_profile: bool = False

    def switched(self) -> dict[str, str]:
        """Everything that is not as it is by default and is told nowhere else, for outputs."""
        default = HpuConfig()
        names = [one.name for one in fields(self) if one.name not in TOLD_ELSEWHERE]
        return {name: str(getattr(self, name)) for name in names if getattr(self, name) != getattr(default, name)}

    @property
    def lazy(self) -> bool:
        """Whether the bridge accumulates ops until a step is marked."""
        return self.mode in (LAZY, LAZY_GRAPHS)

    def __post_init__(self) -> None:
        """Refuse values that the bridge would take and misunderstand."""
        for name, known in (("mode", MODES), ("softmax_mode", SOFTMAX_MODES), ("obey", OBEY)):
            if getattr(self, name) not in known:
                raise ConfigError(f"device.hpu.{name} is {getattr(self, name)!r}", f"one of {', '.join(known)}")
        if not 0 < self.sample_ms < math.inf:
            raise ConfigError(f"device.hpu.sample_ms is {self.sample_ms}", "it must be positive and finite")
        if self.sdpa_block is not None and self.sdpa_block < 1:
            raise ConfigError(f"device.hpu.sdpa_block is {self.sdpa_block}", "a number of tokens, such as 1024")
        for name in (BLOCK_ROWS, BLOCK_COLUMNS):
            if name in self.environment:
                hint = f"device.hpu.sdpa_block={self.environment[name]}, which sets both, for they must be equal"
                raise ConfigError(f"device.hpu.environment sets {name}", hint)

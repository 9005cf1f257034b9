"""What can be switched in the model: the execution mode, every rule of the compiler, and single constants."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from overlap.errors import ConfigError

MODES = ("hpu_graph", "compile", "lazy", "eager")
ORDERS = ("given", "compiler")


@dataclass(frozen=True)
class GaudiConfig:
    """Switches of the Gaudi model.

    Args:
        mode: how PyTorch hands over work: replayed graphs, torch.compile, lazy recipes, or op by op.
        parallel: engines side by side; false is the vendor's DISABLE_PARALLELISM.
        fuser: vector calls of an op become one TPC node.
        bundles: MME nodes and the TPC nodes around them are cut into slices that run beside each other.
        attention_seeds: Gaudi3 looks for MME, one TPC node, MME before any other bundle.
        roi_pipelining: a consumer starts when the first part of its producer is done (where the chip signals it).
        reuse_buffers: a tensor that takes over freed memory waits for the last user of that memory.
        fence: all engines are idle between two recipes.
        order: `given` keeps the order that a search asked for (as creation order or hints do on a card); `compiler`
            emits ops as they were created.
        chains: slices of a bundle in flight; 0 takes the chip's own number.
        fast_fused_softmax: the fused attention's softmax in the approximate mode, in which serving stacks call it.
        cpu_ops: ATen calls, such as `nonzero`, that have no kernel on the device and run on the host's CPU.
        constants: values that replace those of the chip, by name, such as `mme.clock_mhz`.
        allow_unknown: go on where ops without a known cost take more than 1 % of the time.
    """

    mode: str = "hpu_graph"
    parallel: bool = True
    fuser: bool = True
    bundles: bool = True
    attention_seeds: bool = True
    roi_pipelining: bool = True
    reuse_buffers: bool = True
    fence: bool = True
    order: str = "given"
    chains: int = 0
    fast_fused_softmax: bool = True
    cpu_ops: list[str] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    allow_unknown: bool = False

    def switched(self) -> dict[str, str]:
        """Everything that is not as it is by default, for outputs."""
        default = GaudiConfig()
        names = (one.name for one in fields(self))
        return {name: str(getattr(self, name)) for name in names if getattr(self, name) != getattr(default, name)}

    def __post_init__(self) -> None:
        """Refuse switches that do not exist."""
        if self.mode not in MODES:
            raise ConfigError(f"device.gaudi.mode is {self.mode!r}", f"one of {', '.join(MODES)}")
        if self.order not in ORDERS:
            raise ConfigError(f"device.gaudi.order is {self.order!r}", f"one of {', '.join(ORDERS)}")
        if self.chains < 0:
            raise ConfigError(f"device.gaudi.chains is {self.chains}", "1 or more, or 0 for the chip's own number")

"""What must not happen while the clock runs: graphs compiled, ops on the CPU. Counted by the bridge's own metrics."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from overlap.devices.hpu.bridge import Bridge

COMPILATIONS, FALLBACKS, TOTAL, OPS = "graph_compilation", "cpu_fallback", "TotalNumber", "FallbackOps"


@dataclass(frozen=True)
class Counts:
    """Totals at some moment; None where the release does not count."""

    compilations: int | None = None
    fallbacks: int | None = None
    ops: Mapping[str, int] = field(default_factory=dict)
    traced: int = 0

    @classmethod
    def now(cls, bridge: Bridge) -> Counts:
        """The totals of now. Everything that was launched is waited for first."""
        bridge.synchronize()
        compiled, fell = bridge.metric(COMPILATIONS), bridge.metric(FALLBACKS)
        ops = fell.get(OPS) if fell else None
        return cls(
            _total(compiled),
            _total(fell),
            {str(name): int(count) for name, count in ops.items()} if isinstance(ops, Mapping) else {},
            _traced(),
        )

    def compiled_since(self, before: Counts) -> int:
        """Graphs compiled since `before`, or traced anew by PyTorch, whose recipe may be found in a cache then."""
        return max((self.compilations or 0) - (before.compilations or 0), self.traced - before.traced)

    def fell_since(self, before: Counts) -> list[str]:
        """Ops that ran on the CPU since `before`, with how often."""
        found = [
            f"{name} ({count - before.ops.get(name, 0)})"
            for name, count in self.ops.items()
            if count > before.ops.get(name, 0)
        ]
        more = (self.fallbacks or 0) - (before.fallbacks or 0)
        return found or ([f"{more} ops"] if more > 0 else [])


def _total(metric: Mapping[str, Any] | None) -> int | None:
    return None if metric is None or TOTAL not in metric else int(metric[TOTAL])


def _traced() -> int:
    """Graphs that Dynamo has made in this process."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])

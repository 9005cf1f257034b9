"""`habana_frameworks.torch.hpu.metrics`: statistics are lists of pairs, with more behind them."""

from __future__ import annotations

from typing import Any

from habana_frameworks.torch.card import CARD, trait


class _Metric:
    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        """Its name."""
        return self._name

    def stats(self) -> list[Any]:
        """Pairs; the list of recipes behind the totals is none, but two recipes look like one."""
        assert not CARD.busy, "what runs is not counted yet: synchronise before reading"
        if self._name == "graph_compilation":
            total = CARD.compilations
            found = [("TotalNumber", total), ("TotalTime", 7 * total), ("AvgTime", 7.0), [("graph_1", 7.0)] * total]
            return found[::-1] if trait("metrics_moved") else found
        return [("TotalNumber", sum(CARD.fallbacks.values())), ("FallbackOps", dict(CARD.fallbacks))]


def metric_global(name: str) -> Any:
    """None for what is not known."""
    known = name in ("graph_compilation", "cpu_fallback") and not trait("no_metrics")
    return _Metric(name) if known else None

"""Config of a search: the space it looks at and how much it measures. Values come from `conf/space` and `conf/search`."""

from __future__ import annotations

from dataclasses import dataclass, field

from overlap.errors import ConfigError


@dataclass(frozen=True)
class SpaceConfig:
    """Values to try per axis of `overlap.split.Split`; the grid of all of them is the space."""

    chunks: list[int] = field(default_factory=lambda: [1])
    chunk_axis: list[str] = field(default_factory=lambda: ["query"])
    lag: list[int] = field(default_factory=lambda: [0])
    head_groups: list[int] = field(default_factory=lambda: [1])
    query_tile: list[int] = field(default_factory=lambda: [0])
    kv_tile: list[int] = field(default_factory=lambda: [0])
    masked_blocks: list[str] = field(default_factory=lambda: ["skip"])
    normalise: list[str] = field(default_factory=lambda: ["before"])
    softmax: list[str] = field(default_factory=lambda: ["exact"])
    projections: list[str] = field(default_factory=lambda: ["fused"])
    fused_sdpa: list[bool] = field(default_factory=lambda: [False])
    layers_per_graph: list[int] = field(default_factory=lambda: [0])


@dataclass(frozen=True)
class SearchConfig:
    """How much is measured, and what it takes to be kept."""

    race_candidates: int = 6
    screen_repeats: int = 3
    race_rounds: int = 8
    finalists: int = 3
    final_rounds: int = 15
    attribution_rounds: int = 7
    confidence: float = 0.95
    margin: float = 0.01
    seed: int = 0
    orders: list[str] = field(default_factory=lambda: ["program", "list"])

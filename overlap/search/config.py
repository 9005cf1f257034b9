"""Config of a search: the space it looks at and how much it measures. Values: `conf/space`, `conf/search`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from overlap.errors import ConfigError
from overlap.stats import samples_needed

# Names that `overlap.search.order` knows; stands here so that a config can be checked without importing torch.
ORDERS = ("program", "list")


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

    def __post_init__(self) -> None:
        """Refuse axes without a value: their grid would be empty."""
        for axis in fields(self):
            if not getattr(self, axis.name):
                raise ConfigError(f"space.{axis.name} is empty", "give at least one value per axis")


@dataclass(frozen=True)
class SearchConfig:
    """How much is measured, and what it takes to be kept."""

    race_candidates: int = 6
    screen_repeats: int = 3
    race_rounds: int = 8
    finalists: int = 3
    final_rounds: int = 19
    attribution_rounds: int = 7
    confidence: float = 0.95
    margin: float = 0.01
    seed: int = 0
    orders: list[str] = field(default_factory=lambda: ["program", "list"])

    def __post_init__(self) -> None:
        """Refuse values that no search can work with."""
        for name in ("race_candidates", "screen_repeats", "race_rounds", "finalists", "attribution_rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search.{name} is {getattr(self, name)}", "it must be at least 1")
        if not 0.0 < self.confidence < 1.0:
            raise ConfigError(f"search.confidence is {self.confidence}", "it must be between 0 and 1, both excluded")
        if not self.margin >= 0.0:
            raise ConfigError(f"search.margin is {self.margin}", "it must be 0 or more, as a fraction of the baseline")
        # The finalists share the confidence (see `decide`).
        needed = samples_needed(1.0 - (1.0 - self.confidence) / self.finalists)
        if self.final_rounds < needed:
            raise ConfigError(
                f"search.final_rounds is {self.final_rounds}",
                f"at confidence {self.confidence} with {self.finalists} finalists, fewer than {needed} rounds can "
                "never decide anything",
            )
        unknown = [order for order in self.orders if order not in ORDERS]
        if unknown or not self.orders:
            raise ConfigError(f"search.orders is {self.orders}", f"one or more of {', '.join(ORDERS)}")

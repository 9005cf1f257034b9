"""Config of a search: the space it looks at and how much it measures. Values: `conf/space`, `conf/search`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from graphlib import CycleError, TopologicalSorter
from typing import Any

from overlap.errors import ConfigError
from overlap.similar import did_you_mean
from overlap.split import CHOICES, Split
from overlap.stats import samples_needed

# Names that `overlap.search.order` knows; stands here so that a config can be checked without importing torch.
PROGRAM, LIST, SEARCHED = ORDERS = ("program", "list", "searched")


@dataclass(frozen=True)
class SpaceConfig:
    """Values to try per axis of `overlap.split.Split`; the grid of all of them is the space.

    `when` makes an axis conditional: `when: {lag: {chunks: [2, 4]}}` varies `lag` only where `chunks` is 2 or 4, and
    leaves it neutral elsewhere; several conditions must all hold. `recipes` are named points that are tried in any case
    (`overlap.search.recipes`).
    """

    chunks: list[int] = field(default_factory=lambda: [1])
    chunk_axis: list[str] = field(default_factory=lambda: ["query"])
    lag: list[int] = field(default_factory=lambda: [0])
    turn: list[str] = field(default_factory=lambda: ["stage"])
    attend: list[str] = field(default_factory=lambda: ["chunk"])
    head_groups: list[int] = field(default_factory=lambda: [1])
    query_tile: list[int] = field(default_factory=lambda: [0])
    kv_tile: list[int] = field(default_factory=lambda: [0])
    masked_blocks: list[str] = field(default_factory=lambda: ["skip"])
    normalise: list[str] = field(default_factory=lambda: ["before"])
    softmax: list[str] = field(default_factory=lambda: ["exact"])
    projections: list[str] = field(default_factory=lambda: ["fused"])
    fused_sdpa: list[bool] = field(default_factory=lambda: [False])
    layers_per_graph: list[int] = field(default_factory=lambda: [0])
    when: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    recipes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse axes without a value, whose grid would be empty, and conditions on axes that are not there."""
        for axis in AXES:
            check_values(f"space.{axis}", axis, getattr(self, axis))
        for axis, conditions in self.when.items():
            for name in (axis, *conditions):
                if name not in AXES:
                    hint = did_you_mean(name, list(AXES), f"axes are {', '.join(AXES)}")
                    raise ConfigError(f"space.when names {name!r}, which is no axis", hint)
            for name, values in conditions.items():
                check_values(f"space.when.{axis}.{name}", name, values)
        self.conditions()

    def conditions(self) -> list[tuple[str, dict[str, list[Any]]]]:
        """`when`, an axis after all that its conditions name: those may be conditional themselves."""
        try:
            order = list(TopologicalSorter(self.when).static_order())
        except CycleError as error:
            circle = " -> ".join(error.args[1])
            raise ConfigError(f"space.when goes in a circle: {circle}", "leave one of the conditions out") from error
        return [(axis, self.when[axis]) for axis in order if axis in self.when]


# Values of the axes in the baseline, and the fields of a space that are axes.
NEUTRAL: dict[str, Any] = {one.name: one.default for one in fields(Split)}
AXES = tuple(NEUTRAL)


def check_values(where: str, axis: str, values: Iterable[Any]) -> None:
    """Refuse values that `axis` has on no workload at all; `where` is what a user has to mend.

    Raises:
        ConfigError: names the place and the value.
    """
    kind, choices = type(NEUTRAL[axis]), CHOICES.get(axis, ())
    if not values:
        raise ConfigError(f"{where} is empty", "give at least one value")
    for value in values:
        if type(value) is not kind:
            raise ConfigError(f"{where} has the value {value!r}", f"values of {axis} are of type {kind.__name__}")
        if choices and value not in choices:
            raise ConfigError(
                f"{where} has the value {value!r}", did_you_mean(value, choices, f"one of {', '.join(choices)}")
            )


# Fields of a search that count something and cannot be 0.
COUNTS = (
    "race_candidates",
    "screen_repeats",
    "race_rounds",
    "finalists",
    "attribution_rounds",
    "search_splits",
    "most_ops",
)


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
    orders: list[str] = field(default_factory=lambda: list(ORDERS))
    # Programs with more ops are left out: they take long to look at, and queues long to fill.
    most_ops: int = 2000
    # Splits whose order is searched, and the effort for each: trials on op times, and by the device's own prediction.
    search_splits: int = 4
    order_trials: int = 1500
    order_refinements: int = 100
    order_seconds: float = 60.0
    # More trials by the device's own prediction for the one that came out best, in as many seconds again.
    order_deepening: int = 0
    # Most memory that a kept variant may need beside the inputs; null for what the device has.
    memory_cap_gib: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that no search can work with."""
        for name in COUNTS:
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
        for name in ("order_trials", "order_refinements", "order_seconds", "order_deepening"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"search.{name} is {getattr(self, name)}", "it must be 0 or more")
        if self.memory_cap_gib is not None and not self.memory_cap_gib > 0:
            raise ConfigError(f"search.memory_cap_gib is {self.memory_cap_gib}", "it must be above 0, or null")
        unknown = [order for order in self.orders if order not in ORDERS]
        if unknown or not self.orders:
            raise ConfigError(f"search.orders is {self.orders}", f"one or more of {', '.join(ORDERS)}")
        if self.orders == [SEARCHED]:
            raise ConfigError("search.orders is [searched]", "splits are ranked in program or list order: add one")

    @property
    def memory_cap_bytes(self) -> int | None:
        """The cap in bytes."""
        return None if self.memory_cap_gib is None else round(self.memory_cap_gib * 2**30)

"""The cost of one GEMM on a chip's matrix engine.

Two kinds of time stand side by side. `cycles` is the vendor's own count, by which its compiler chooses; it ignores the
dtype. `hw_cycles` and `hw_ns` are what the hardware should take: the same steps at the rate of the dtype. Neither knows
about memory, launches or other engines: both are lower bounds of the time that the engine is busy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from overlap.devices.gaudi.mme import cycles
from overlap.devices.gaudi.mme.choose import Strategy, choose
from overlap.devices.gaudi.mme.constants import MmeConstants, mme_constants
from overlap.devices.gaudi.mme.problem import Gemm, checked, shape_of

CACHED = 2**17
NS_PER_US = 1000.0


@dataclass(frozen=True)
class GemmCost:
    """What the vendor's compiler makes of a GEMM, and what that costs."""

    geometry: str
    """How the engines stand together: 4xw, 2xw, 2xh or 4xh."""
    pattern: str
    """Order of the tiles: `fck` along the width first, `fkc` along the height first."""
    width: int
    height: int
    """Rows and columns of one matrix in a step."""
    concurrency: int
    """Matrices in a step."""
    cycles: int
    """The vendor's compute cycles, which count every dtype at the rate of bf16."""
    activations: int
    """Descriptors, each a point where another engine can wait for output or be waited for."""
    fetch_a: int
    fetch_b: int
    """How many times the whole of an input is read."""
    efficiency: float
    """Multiplications per vendor cycle, as a share of the chip's peak at bf16."""
    utilisation: float
    """The vendor's utilisation: the share of tiles that is output. Blind to the roll-up floor."""
    hw_cycles: int
    """Estimated cycles at the rate of the dtype."""
    hw_ns: float
    """`hw_cycles` at the chip's clock."""
    drained_ns: float
    """The same with a roll-up that takes as long as a tile has rows (`cycles.drained_floor`)."""


@lru_cache(maxsize=CACHED)
def cost(constants: MmeConstants, problem: Gemm) -> GemmCost:
    """What `problem` costs on an engine with `constants`.

    Raises:
        ConfigError: no such dtype or op.
        WorkloadError: sizes that no GEMM can have.
    """
    problem = checked(problem)
    strategy = choose(constants, shape_of(problem))
    shape, tile, recipe, count = strategy.shape, strategy.tile, strategy.recipe, strategy.steps
    fetch_a, fetch_b = _fetches(strategy)
    hw_cycles = cycles.hardware_cycles(constants, shape, recipe, count)
    floor = cycles.drained_floor(constants, shape, tile, count)
    drained = cycles.hardware_cycles(constants, shape, recipe, count, floor)
    return GemmCost(
        geometry=tile.geometry,
        pattern=strategy.pattern,
        width=tile.width,
        height=tile.height,
        concurrency=tile.concurrency,
        cycles=strategy.cycles,
        activations=recipe.activations,
        fetch_a=fetch_a,
        fetch_b=fetch_b,
        efficiency=problem.macs / (constants.macs_per_cycle * strategy.cycles),
        utilisation=cycles.utilisation(shape, tile, count),
        hw_cycles=hw_cycles,
        hw_ns=hw_cycles / constants.clock_mhz * NS_PER_US,
        drained_ns=drained / constants.clock_mhz * NS_PER_US,
    )


def _fetches(strategy: Strategy) -> tuple[int, int]:
    """Every step across an operand reads it again, unless it is reused; a partial one is read again by every split."""
    recipe, pattern = strategy.recipe, strategy.pattern
    fetch_a, fetch_b = strategy.steps.wide, strategy.steps.high
    if recipe.reused == "a":
        fetch_a = recipe.width_splits if recipe.partials > 1 and pattern == "fck" else 1
    elif recipe.reused == "b":
        fetch_b = recipe.height_splits if recipe.partials > 1 and pattern == "fkc" else 1
    return fetch_a, fetch_b


def gemm_cost(
    chip: str, dtype: str, op: str, m: int, n: int, k: int, batch: Sequence[int] = (1, 1, 1), group: int = 1
) -> GemmCost:
    """What a GEMM costs on `chip` as it is sold; `Gemm` explains the other arguments.

    Raises:
        ConfigError: no such chip, dtype or op.
        WorkloadError: sizes that no GEMM can have.
    """
    problem = Gemm(dtype, op, m, n, k, batch, group)  # type: ignore[arg-type]
    try:
        return cost(mme_constants(chip), problem)
    except TypeError:  # a list is no key of a cache
        return cost(mme_constants(chip), checked(problem))

"""How long a GEMM keeps the engines busy, given its tile and its recipe.

Terms
    steps: tiles along the width, along the height, and groups of concurrent matrices over the batch.
    step time: the depth K, one element per cycle, but never less than the roll-up of a tile's accumulators.
    constrained steps: the first steps of each walk in a constrained tile. They wait until the first port is done, which
        takes up to as long again: `stall` is what they cost relative to others, 1 to 2.

Two estimates
    vendor: what MmeBrain computes and compares geometries by. Every dtype takes one depth element per cycle, and its
        step counts are unsigned, so that more constrained steps than there are steps wrap to billions: such a geometry
        never wins. Both are kept, since the vendor's compiler decides by them. Counts too large for its 32 bits, which
        are minutes of work, are not wrapped.
    hardware: the same steps, with the depth scaled to what the reduction tree of the dtype takes in one cycle relative
        to bf16, and without the wrap.
"""

from __future__ import annotations

from math import ceil
from struct import Struct
from typing import NamedTuple

from overlap.devices.gaudi.mme.constants import MmeConstants
from overlap.devices.gaudi.mme.geometry import Tile, batch_steps, ceil_div
from overlap.devices.gaudi.mme.problem import Shape
from overlap.devices.gaudi.mme.reuse import Pattern, Recipe

WORD = 2**32
_FLOAT = Struct("f")


class Steps(NamedTuple):
    """Steps of one matrix and over the batch."""

    wide: int
    high: int
    batch: int
    constrained: int
    """Constrained steps of one matrix; the splits of the recipe repeat them."""
    stall: float
    """What a constrained step costs relative to another."""

    @property
    def tiles(self) -> int:
        """Steps of one matrix."""
        return self.wide * self.high


def steps(constants: MmeConstants, shape: Shape, tile: Tile, recipe: Recipe, pattern: Pattern) -> Steps:
    """Count the steps of `shape`."""
    wide, high = ceil_div(shape.n, tile.width), ceil_div(shape.rows, tile.height)
    constrained = 0
    if tile.constrained:
        # A walk of a single step is in truth a walk in the other direction.
        along_width = wide != 1 if pattern == "fck" else high == 1
        constrained = (high if along_width else wide) * recipe.width_splits * recipe.height_splits
    batch = batch_steps(shape, tile.concurrency)
    return Steps(wide, high, batch, constrained, _stall(constants, shape, tile))


def _stall(constants: MmeConstants, shape: Shape, tile: Tile) -> float:
    """The transpose engine of the fastest port ends the stall when it has its rows; without one, a step takes two."""
    rows = constants.transpose_rows
    waits = [rows]
    if shape.turned_a:
        waits.append(ceil_div(shape.rows, tile.interleaved[0]))
    if shape.turned_b:
        waits.append(min(shape.n, rows))
    return _single(1 + min(waits) / rows)


def vendor_cycles(constants: MmeConstants, shape: Shape, recipe: Recipe, count: Steps) -> int:
    """The vendor's compute cycles."""
    regular = (count.tiles - count.constrained) * count.batch
    if regular < 0:
        regular %= WORD
    free, waiting = _step_cycles(constants, recipe, shape.k, count.stall)
    return regular * free + count.constrained * count.batch * waiting


def hardware_cycles(
    constants: MmeConstants, shape: Shape, recipe: Recipe, count: Steps, floor: int | None = None
) -> int:
    """Cycles with the depth scaled by the dtype's granule; `floor` replaces the roll-up."""
    depth = ceil_div(shape.k * constants.granules["bf16"], constants.granules[shape.dtype])
    stalled = min(count.constrained, count.tiles)
    free, waiting = _step_cycles(constants, recipe, depth, count.stall, floor)
    return ((count.tiles - stalled) * free + stalled * waiting) * count.batch


def drained_floor(constants: MmeConstants, shape: Shape, tile: Tile, count: Steps) -> int:
    """Roll-up of a tile that takes as long as the rows that it really has, for `hardware_cycles`.

    Intel's own Gaudi1 references (synapse/tests/benchmarks_tests/gaudi/gemm_params.csv) show one floor for both dtypes
    when it is told in bytes: 198 B of result per cycle for bf16, 204 for fp32. So it is the time in which results
    leave, and a tile of few rows has little of it.
    """
    return ceil(constants.rollup_cycles * min(1.0, shape.rows / (count.high * tile.height)))


def _step_cycles(
    constants: MmeConstants, recipe: Recipe, depth: int, stall: float, floor: int | None = None
) -> tuple[int, int]:
    """Cycles of a free step and of a constrained one; `floor` replaces the vendor's roll-up."""
    floor = constants.rollup_cycles if floor is None else floor
    free = max(depth, floor)
    if recipe.partials > 1 and ceil_div(depth, recipe.partials) < floor:
        free = recipe.partials * floor
    return free, max(int(_single(_single(depth) * stall)), floor)


def utilisation(shape: Shape, tile: Tile, count: Steps) -> float:
    """Share of the tiles' area that is output, weighed by the stalls; blind to the roll-up floor.

    Computed in single precision like the vendor's, since candidates are compared by it for equality.
    """
    last_high = _single(((shape.rows - 1) % tile.height + 1) / tile.height)
    last_wide = _single(((shape.n - 1) % tile.width + 1) / tile.width)
    last_batch = _single(((shape.batch[tile.batch_dim] - 1) % tile.concurrency + 1) / tile.concurrency)
    full = _single(_single((count.wide - 1) * (count.high - 1)) + _single(last_high * (count.wide - 1)))
    area = _single(_single(full + _single(last_wide * (count.high - 1))) + _single(last_high * last_wide))
    time = _single(count.tiles + _single(count.constrained * _single(count.stall - 1)))
    matrix = _single(area / time)
    batch = _single(_single(matrix * (count.batch - 1)) + _single(matrix * last_batch))
    return _single(batch / count.batch)


def _single(value: float) -> float:
    """`value` in single precision."""
    rounded: float = _FLOAT.unpack(_FLOAT.pack(value))[0]
    return rounded

"""Which geometry and walk the vendor's compiler takes for a GEMM (MmeBrain's recommended strategy).

    for every candidate geometry of the chip:
        walk along the width if the tile is tall, along the height if it is wide
        stack some of a shared-B group into the rows, by whichever divisor fills the tiles best
        cost it
    take the first with the fewest cycles
    choose its walk again, with the tile of the last candidate

The last line looks like an oversight of the vendor's: the tile on which the walk depends is left over from the loop. It
is kept, since it decides fetches and activations. Stacking by a divisor only changes anything on Gaudi3, where it moves
the height of the units and where a whole group counts as a batch again; Gaudi2's recipe stacks all of it in any case.
"""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple, Protocol

from overlap.devices.gaudi.mme import cycles, gaudi2, gaudi3
from overlap.devices.gaudi.mme.constants import MmeConstants
from overlap.devices.gaudi.mme.geometry import Tile, batch_steps, ceil_div
from overlap.devices.gaudi.mme.problem import Shape
from overlap.devices.gaudi.mme.reuse import Pattern, Recipe, recipe
from overlap.errors import ConfigError
from overlap.similar import did_you_mean


class Design(Protocol):
    """What a chip's module knows."""

    def candidates(self, constants: MmeConstants, shape: Shape) -> tuple[str, ...]:
        """Geometries to compare, in the vendor's order."""

    def tile(self, constants: MmeConstants, shape: Shape, geometry: str) -> Tile:
        """How the chip computes `shape` in `geometry`."""


DESIGNS: dict[str, Design] = {"gaudi2": gaudi2, "gaudi3": gaudi3}


class Strategy(NamedTuple):
    """A way to compute a problem, and everything that its cost follows from."""

    shape: Shape
    tile: Tile
    pattern: Pattern
    recipe: Recipe
    steps: cycles.Steps
    cycles: int


def choose(constants: MmeConstants, shape: Shape) -> Strategy:
    """The strategy that the vendor's compiler recommends.

    Raises:
        ConfigError: constants of an unknown design.
    """
    design = DESIGNS.get(constants.design)
    if design is None:
        hint = did_you_mean(constants.design, list(DESIGNS))
        raise ConfigError(f"matrix engine of design {constants.design!r}", hint)
    tiles = [design.tile(constants, shape, geometry) for geometry in design.candidates(constants, shape)]
    tried = [_strategy(constants, shape, tile, _walk(shape, tile, tile.geometry)) for tile in tiles]
    best = min(tried, key=lambda one: one.cycles)
    geometry = best.tile.geometry
    pattern = _walk(shape, tried[-1].tile, geometry)
    if pattern == best.pattern:
        return best
    return _strategy(constants, shape, design.tile(constants, shape, geometry), pattern)


def _walk(shape: Shape, tile: Tile, geometry: str) -> Pattern:
    if geometry == "4xw":
        return "fkc" if shape.rows > tile.height else "fck"
    return "fck" if shape.n > tile.width else "fkc"


def _strategy(constants: MmeConstants, shape: Shape, tile: Tile, pattern: Pattern) -> Strategy:
    if shape.flat and constants.design == "gaudi3":
        shape = _stacked(constants, shape, tile.geometry)
        tile = gaudi3.tile(constants, shape, tile.geometry)
    plan = recipe(constants, shape, tile, pattern)
    count = cycles.steps(constants, shape, tile, plan, pattern)
    return Strategy(shape, tile, pattern, plan, count, cycles.vendor_cycles(constants, shape, plan, count))


def _stacked(constants: MmeConstants, shape: Shape, geometry: str) -> Shape:
    """The shape after the compiler has stacked part of its group into the matrices."""
    group = shape.rows // shape.matrix_rows
    best, filled = 1, 0.0
    for divisor in _divisors(group):
        if max(shape.k, shape.n) * shape.matrix_rows * divisor >= constants.max_tile_elements:
            break
        share = _share(constants, shape, geometry, divisor)
        if share > filled:
            best, filled = divisor, share
    return shape._replace(matrix_rows=shape.matrix_rows * best, flat=best < group)


def _share(constants: MmeConstants, shape: Shape, geometry: str, divisor: int) -> float:
    """Utilisation if `divisor` matrices of the group were stacked, and the rest stayed a batch."""
    rows = shape.matrix_rows * divisor
    left = shape.rows // rows
    apart = shape._replace(rows=rows, matrix_rows=rows, batch=(left, *shape.batch[1:]), flat=False, shared_b=left > 1)
    tile = gaudi3.tile(constants, apart, geometry)
    wide, high = ceil_div(apart.n, tile.width), ceil_div(rows, tile.height)
    count = cycles.Steps(wide, high, batch_steps(apart, tile.concurrency), 0, 1.0)
    return cycles.utilisation(apart, tile, count)


def _divisors(number: int) -> list[int]:
    """All divisors, ascending; the root of a square comes twice."""
    small = [divisor for divisor in range(1, isqrt(number) + 1) if number % divisor == 0]
    return small + [number // divisor for divisor in reversed(small)]

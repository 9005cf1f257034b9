"""Tiles: how the engines of a chip are put together for one GEMM.

Terms
    geometry: how the engines stand together, from widest to tallest 4xw, 2xw, 2xh, 4xh.
    tile: what all engines compute in one step, `width` columns by `height` rows for each of `concurrency` matrices.
    walk: the order of steps. `fck` goes along the width first, `fkc` along the height.
    interleaved ports: ports of an operand that take alternate lines of it, so that its lines come in multiples of them.
    constrained: more ports are in use than an engine has suspension buffers, so some steps wait for their inputs.

Engines that a small matrix leaves without work compute the next matrix instead. That happens between engines first, by
halving the grid of engines until the tile is no longer twice the matrix, and then inside an engine, under rules that
`gaudi2` and `gaudi3` have of their own.
"""

from __future__ import annotations

from typing import NamedTuple

from overlap.devices.gaudi.mme.problem import Shape

GEOMETRIES = ("4xw", "2xw", "2xh", "4xh")


class Tile(NamedTuple):
    """One way to compute a shape; pairs are (A, B)."""

    geometry: str
    width: int
    height: int
    concurrency: int
    batch_dim: int
    """Index of the batch dimension from which concurrent matrices are taken."""
    interleaved: tuple[int, int]
    """Interleaved ports on the whole chip."""
    facing: tuple[int, int]
    """Elements that one port hands to the multipliers at once."""
    lanes: tuple[int, int]
    """Ports of one core that share the depth of an operand."""
    double_accumulators: bool
    constrained: bool


def ceil_div(value: int, by: int) -> int:
    """`value / by`, rounded up."""
    return -(-value // by)


def align(value: int, to: int) -> int:
    """`value` rounded up to a multiple of `to`."""
    return -(-value // to) * to


def concurrent_dim(shape: Shape, concurrency: int) -> int:
    """The batch dimension that leaves the fewest steps when matrices are taken from it `concurrency` at a time."""
    first = first_dim(shape)
    if concurrency == 1:
        return first
    matrices = shape.matrices
    sizes = shape.batch
    return min(range(first, len(sizes)), key=lambda dim: ceil_div(sizes[dim], concurrency) * (matrices // sizes[dim]))


def first_dim(shape: Shape) -> int:
    """The innermost batch dimension that is not stacked into the rows."""
    return 1 if shape.flat else 0


def batch_steps(shape: Shape, concurrency: int) -> int:
    """Steps over the batch: the vendor always divides the innermost dimension, whichever the concurrent one is."""
    inner, middle, outer = shape.batch
    return ceil_div(inner, concurrency) * middle * outer

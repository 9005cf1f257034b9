"""Gaudi3's tiles: eight engines that each look like one core of two stacked execution units.

Rules, in order
    1. Engines that the matrix leaves idle take another one (see `geometry`).
    2. If every engine then has a matrix of its own, its two units take one each: where they share B and it fits a unit,
       else where it is at most half a unit wide.
    3. Matrices so short that half the accumulators would stay empty use units of half height with twice as many of
       them. The rule is asked again whenever the grid of engines changes; the roll-up floor stays as it was.

Ports always lie along the depth and feed a unit's whole width, so nothing is ever constrained.
"""

from __future__ import annotations

from overlap.devices.gaudi.mme.constants import MmeConstants
from overlap.devices.gaudi.mme.geometry import Tile, ceil_div, concurrent_dim, first_dim
from overlap.devices.gaudi.mme.problem import Shape

# Ports of one engine for each input, and for the output.
INPUT_PORTS = 4
OUTPUT_PORTS = 2


def candidates(constants: MmeConstants, shape: Shape) -> tuple[str, ...]:
    """Geometries to compare, in the vendor's order."""
    columns, rows = constants.eu_columns, constants.eu_rows * constants.eus_per_mme
    if shape.matrices >= constants.dcores:
        return ("4xh",) if shape.n <= columns and shape.rows <= rows else ("4xh", "4xw")
    wide = shape.n >= 2 * columns
    high = shape.rows >= 2 * rows
    fitting = (
        ("2xw", wide and high),
        ("4xw", shape.n >= 4 * columns),
        ("2xh", high and shape.n > columns),
        ("4xh", shape.rows >= 4 * rows),
    )
    return tuple(geometry for geometry, fits in fitting if fits) or ("2xh",)


def _unit_rows(constants: MmeConstants, shape: Shape, high: int, split: int) -> int:
    """Rows of one execution unit, half of them where its accumulators are used double.

    `high` engines stand on top of each other, and `split` matrices inside one share out its ports.
    """
    in_ports, out_ports = 1, 1
    if shape.turned_a:
        in_ports, out_ports = INPUT_PORTS // split * high, OUTPUT_PORTS // split * high
    half = constants.eu_rows // 2
    short = shape.matrix_rows >= in_ports and ceil_div(shape.rows, out_ports) <= half
    return half if short else constants.eu_rows


def tile(constants: MmeConstants, shape: Shape, geometry: str) -> Tile:
    """How Gaudi3 computes `shape` in `geometry`."""
    units = constants.eus_per_mme
    wide, high = _grid(constants.mmes, geometry)
    while wide > 1 and wide * constants.eu_columns // 2 >= shape.n:
        wide //= 2
    while high > 1 and high * units * _unit_rows(constants, shape, high, 1) // 2 >= shape.rows:
        high //= 2
    alone = wide == high == 1
    split, split_b = _inside(constants, shape) if alone else (1, 1)
    width = constants.eu_columns // split_b
    unit = _unit_rows(constants, shape, high, split)
    height = unit * units // split
    concurrency = constants.mmes // (wide * high) * split
    in_a, in_b = INPUT_PORTS // split, INPUT_PORTS // split_b
    turned_a, turned_b, te = shape.turned_a, shape.turned_b, constants.transpose_rows
    return Tile(
        geometry=geometry,
        width=wide * width,
        height=high * height,
        concurrency=concurrency,
        batch_dim=first_dim(shape) if alone else concurrent_dim(shape, concurrency),
        interleaved=(in_a * high if turned_a else in_a, 1 if turned_b else in_b),
        # A port of A spans full units even where only half of their rows are used.
        facing=(te if turned_a else constants.eu_rows * units // split, te if turned_b else width),
        lanes=(1 if turned_a else in_a, 1 if turned_b else in_b),
        double_accumulators=unit < constants.eu_rows,
        constrained=False,
    )


def _inside(constants: MmeConstants, shape: Shape) -> tuple[int, int]:
    """Matrices of A and of B that an engine has at once when it works alone."""
    units = constants.eus_per_mme
    if shape.rows <= _unit_rows(constants, shape, 1, 1):
        if shape.shared_b and shape.n <= constants.eu_columns:
            return units, 1
        if shape.n <= constants.eu_columns // 2:
            return units, units
    return 1, 1


def _grid(mmes: int, geometry: str) -> tuple[int, int]:
    """Engines along the width and along the height."""
    return {"4xw": (mmes, 1), "2xw": (mmes // 2, 2), "2xh": (2, mmes // 2), "4xh": (1, mmes)}[geometry]

"""Gaudi2's tiles: two engines of two cores, each core with five input ports on four suspension buffers.

Rules, in order
    1. Engines that the matrix leaves idle take another one (see `geometry`).
    2. If every engine then has a matrix of its own, an engine takes several: four of at most 64×64; else one for each
       core, within limits that depend on the geometry.
    3. The two narrow geometries use ten ports on eight buffers, so they are constrained, except where fp32 is too slow
       to notice or the last port of an upright A stays unused.

The candidates of a problem are always the same four, in the order of `CANDIDATES`.
"""

from __future__ import annotations

from typing import NamedTuple

from overlap.devices.gaudi.mme.constants import MmeConstants
from overlap.devices.gaudi.mme.geometry import Tile, concurrent_dim
from overlap.devices.gaudi.mme.problem import Shape

CANDIDATES = ("2xh", "2xw", "4xh", "4xw")
# The long side of a narrow geometry has four ports for each core, the short side one.
LONG_PORTS = 4


class _Inside(NamedTuple):
    """What an engine does with its cores: matrices at once, the size of each, and whether a core has two of them."""

    matrices: int
    width: int
    height: int
    quartered: bool = False


def candidates(constants: MmeConstants, shape: Shape) -> tuple[str, ...]:
    """Geometries to compare, in the vendor's order."""
    return CANDIDATES


def _whole(constants: MmeConstants, geometry: str) -> _Inside:
    """An engine whose cores work on one matrix: side by side, stacked, or stacked with each core upright."""
    columns, rows, cores = constants.eu_columns, constants.eu_rows, constants.eus_per_mme
    if geometry == "4xw":
        return _Inside(1, columns * cores, rows)
    if geometry == "4xh":
        return _Inside(1, rows, columns * cores)
    return _Inside(1, columns, rows * cores)


def _shared_out(constants: MmeConstants, shape: Shape, geometry: str, port: int) -> _Inside:
    """An engine that has matrices to itself: as many at once as fit."""
    columns, rows, cores = constants.eu_columns, constants.eu_rows, constants.eus_per_mme
    te = constants.transpose_rows
    fp8 = shape.dtype == "fp8"
    if shape.n <= port and shape.rows <= port and not fp8:
        return _Inside(2 * cores, te, te, quartered=True)
    if geometry == "4xw":
        if shape.n <= columns and shape.rows <= rows // 2 and shape.batch[2] == 1 and (not fp8 or shape.turned_a):
            return _Inside(cores, columns, rows)
    elif geometry == "4xh":
        if shape.n <= port and shape.rows <= columns and (not fp8 or shape.turned_b):
            return _Inside(cores, te, columns)
    elif shape.n <= columns // 2 and shape.rows <= rows:
        return _Inside(cores, columns // 2, rows)
    return _whole(constants, geometry)


def _line_ports(shape: Shape, geometry: str) -> tuple[int, int]:
    """Ports of one core for A and for B that take alternate lines; its other ports lie along the lines."""
    fp8 = shape.dtype == "fp8"

    def along(long: bool, turned: bool) -> int:
        if long:
            return LONG_PORTS if turned else 2 if fp8 else 1
        return 2 if turned or fp8 else 1

    ports_a = 1 if geometry == "4xw" else along(geometry == "4xh", shape.turned_a)
    ports_b = 1 if geometry == "4xh" else along(geometry == "4xw", shape.turned_b)
    return ports_a, ports_b


def tile(constants: MmeConstants, shape: Shape, geometry: str) -> Tile:
    """How Gaudi2 computes `shape` in `geometry`."""
    fp8, turned_a, turned_b = shape.dtype == "fp8", shape.turned_a, shape.turned_b
    # A line holds twice as many fp8 values; wider ones come 64 at a time, in one line or two.
    port = constants.port_line_bytes if fp8 else constants.port_line_bytes // 2
    wide, high, inside = _arranged(constants, shape, geometry, port)
    ports_a, ports_b = (1, 1) if inside.quartered else _line_ports(shape, geometry)
    cores = constants.eus_per_mme if inside.matrices == 1 else 1
    chip_a = ports_a * (cores if turned_a or (fp8 and geometry == "4xw") else 1) * (high if turned_a else 1)
    chip_b = ports_b * (cores if fp8 and geometry == "4xh" else 1)
    concurrency = constants.mmes // (wide * high) * inside.matrices
    te = constants.transpose_rows
    return Tile(
        geometry=geometry,
        width=wide * inside.width,
        height=high * inside.height,
        concurrency=concurrency,
        batch_dim=concurrent_dim(shape, concurrency),
        interleaved=(chip_a, 1 if turned_b else chip_b),
        facing=(te if turned_a else port, te if turned_b else port),
        lanes=(ports_a if fp8 and not turned_a else 1, ports_b if fp8 and not turned_b else 1),
        double_accumulators=inside.quartered,
        constrained=not inside.quartered and _constrained(constants, shape, geometry, port),
    )


def _arranged(constants: MmeConstants, shape: Shape, geometry: str, port: int) -> tuple[int, int, _Inside]:
    """Engines along the width and along the height of one matrix, and what each of them does."""
    inside = _whole(constants, geometry)
    wide = constants.mmes if geometry.endswith("w") else 1
    high = constants.mmes // wide
    while wide > 1 and wide * inside.width // 2 >= shape.n:
        wide //= 2
    while high > 1 and high * inside.height // 2 >= shape.rows:
        high //= 2
    if wide == high == 1:
        inside = _shared_out(constants, shape, geometry, port)
    return wide, high, inside


def _constrained(constants: MmeConstants, shape: Shape, geometry: str, port: int) -> bool:
    """Whether inputs arrive too slowly for the multipliers."""
    narrow = geometry in ("4xw", "4xh")
    ports = (LONG_PORTS + 1 if narrow else 2 + 2) * constants.eus_per_mme
    if shape.dtype == "fp32" or ports <= constants.input_buffers:
        return False
    upright = geometry == "4xh" and not shape.turned_a and shape.dtype != "fp8"
    return not (upright and shape.rows <= (LONG_PORTS - 1) * port)

"""What the engine keeps of its inputs, and into how many descriptors a GEMM falls because of it.

Terms
    suspension buffer: where a port keeps lines of its operand. An operand whose lines fit is read once and replayed for
        every step along the walk: it is reused.
    span: how much of the depth such a buffer holds.
    partial: reuse of an operand deeper than the span. The depth is cut into `partials` chunks, each with descriptors of
        its own, and only as many steps reuse a chunk as there are accumulators to hold their sums.
    activation: one descriptor, a point at which other engines can be signalled.
    split: descriptors along one direction. A descriptor's step counters are one byte wide, and reuse has limits of its
        own; the product of all splits is the number of activations.

Contract: an operand is only reused along the walk, or across it where the walk has a single step; and not at all where
more matrices than `max_reuse_batches` would each need descriptors. The vendor pads rows to the number of interleaved
ports first; since that divides the height of every tile, no count here depends on it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from overlap.devices.gaudi.mme.constants import MmeConstants
from overlap.devices.gaudi.mme.geometry import Tile, align, ceil_div
from overlap.devices.gaudi.mme.problem import BATCH_DIMS, Shape

Pattern = Literal["fck", "fkc"]
Operand = Literal["a", "b"]


class Recipe(NamedTuple):
    """How a shape is cut into descriptors."""

    reused: Operand | None
    partials: int
    """Chunks of the depth; 1 where all of it fits the buffer, or nothing is reused."""
    width_splits: int
    height_splits: int
    batch_splits: int

    @property
    def activations(self) -> int:
        """Descriptors of the whole problem."""
        return self.width_splits * self.height_splits * self.batch_splits


def recipe(constants: MmeConstants, shape: Shape, tile: Tile, pattern: Pattern) -> Recipe:
    """Cut `shape` into descriptors that walk its tiles by `pattern`."""
    wide_steps, high_steps = ceil_div(shape.n, tile.width), ceil_div(shape.rows, tile.height)
    reused = _reused(constants, shape, wide_steps, high_steps, pattern)
    partials = _partials(constants, shape, tile, reused) if reused else 1
    partial = partials > 1
    wide_most = high_most = constants.max_loop_steps
    if reused:
        sums = constants.accumulators * (2 if tile.double_accumulators else 1)
        most = min(sums, constants.max_reuse_steps) if partial else constants.max_reuse_steps
        # A batch that is walked along its width takes one row of tiles at a time.
        high_run = high_steps if shape.matrices == 1 or pattern == "fkc" else 1
        wide_most, high_most = min(wide_steps, wide_most), min(high_run, high_most)
        if reused == "a":
            wide_most, high_most = min(wide_most, most), 1 if partial else high_most
        else:
            wide_most, high_most = 1 if partial else wide_most, min(high_most, most)
    wide = ceil_div(wide_steps, wide_most)
    high = ceil_div(high_steps, high_most)
    if constants.pipeline_level > 1:
        wide, high = _pipelined(constants, (wide, high), (wide_steps, high_steps), reused, pattern)
    batch = partials * shape.matrices if partial else _batch_splits(constants, shape, tile)
    return Recipe(reused, partials, wide, high, batch)


def _reused(
    constants: MmeConstants, shape: Shape, wide_steps: int, high_steps: int, pattern: Pattern
) -> Operand | None:
    if shape.matrices > constants.max_reuse_batches:
        return None
    if pattern == "fck":
        if wide_steps > 1:
            return "a"
        return "b" if high_steps > 1 and shape.matrices == 1 else None
    if high_steps > 1:
        return "b"
    return "a" if wide_steps > 1 else None


def _partials(constants: MmeConstants, shape: Shape, tile: Tile, reused: Operand) -> int:
    """Chunks into which the depth is cut; 1 where the whole of it fits the buffer."""
    turned = shape.turned_a if reused == "a" else shape.turned_b
    which = 0 if reused == "a" else 1
    lines = constants.sb_lines
    # Every line of a misaligned operand takes two.
    if _line_elements(shape, reused) * shape.element_bytes % constants.memory_line_bytes:
        lines //= 2
    line = constants.port_line_bytes // shape.element_bytes
    granule = constants.granules[shape.dtype]
    port_a = 1 if shape.turned_a else tile.interleaved[0]
    base = granule * max(port_a, tile.interleaved[1])
    span = lines * line // tile.facing[which] * tile.lanes[which]
    span = max(base, span // base * base)
    depth = align(shape.k, line) if turned else shape.k
    depth = align(depth, max(port_a, tile.interleaved[1], granule))
    if depth <= span:
        return 1
    atom = max(line, base)
    padded = align(shape.k, atom)
    units = ceil_div(padded, ceil_div(padded, span) * atom)
    if units * atom > span and units > 1:
        units -= 1
    return ceil_div(shape.k, atom * units)


def _line_elements(shape: Shape, operand: Operand) -> int:
    """Innermost size of an operand, the stride of its lines."""
    if operand == "a":
        return shape.k if shape.turned_a else shape.matrix_rows
    return shape.k if shape.turned_b else shape.n


def _batch_splits(constants: MmeConstants, shape: Shape, tile: Tile) -> int:
    """Descriptors along the first batch dimension that a one-byte counter cannot cover, and all outer ones."""

    def most(dim: int) -> int:
        return constants.max_loop_steps * (tile.concurrency if dim == tile.batch_dim else 1)

    last = BATCH_DIMS - 1
    cut = next((dim for dim in range(last) if shape.batch[dim] > most(dim)), last)
    splits = ceil_div(shape.batch[cut], min(shape.batch[cut], most(cut)))
    for size in shape.batch[cut + 1 :]:
        splits *= size
    return splits


def _pipelined(
    constants: MmeConstants,
    splits: tuple[int, int],
    steps: tuple[int, int],
    reused: Operand | None,
    pattern: Pattern,
) -> tuple[int, int]:
    """More splits, so that a consumer can start before everything is done; across the walk first, then along it."""
    level = constants.pipeline_level
    raster = reused == "a" if reused else pattern == "fck"
    (along, across), (along_steps, across_steps) = (splits, steps) if raster else (splits[::-1], steps[::-1])
    across = max(across, min(across_steps, level))
    if along * across < level:
        # Reuse along the walk is only worth a split where every accumulator keeps a step.
        most = along_steps // constants.accumulators if reused else along_steps
        along = max(along, min(most, ceil_div(level, across)))
    return (along, across) if raster else (across, along)

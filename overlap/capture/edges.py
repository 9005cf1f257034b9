"""Edges of a program: which ops must end before another may start, from the memory that their refs cover.

A root that one op creates needs no boxes: every later op that touches it depends on its creator. Roots that several
ops write (KV caches, buffers filled piecewise) are compared box by box, so that the chunks of a cache stay independent.
A box is exact for every view that slices, transposes or splits a contiguous root; for any other view it is the whole
root, which only adds edges.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from overlap.program import Op, Ref, RootSpec

Box = tuple[tuple[int, int], ...]


def find_edges(ops: Sequence[Op], roots: Sequence[RootSpec]) -> tuple[tuple[int, ...], ...]:
    """Predecessors of every op, ascending and without duplicates (indices into `ops`)."""
    writers: dict[int, list[int]] = {}
    for index, op in enumerate(ops):
        for position in op.writes:
            writers.setdefault(op.refs[position].root, []).append(index)
    tracked = {root: _History(roots[root]) for root in writers}
    creator: dict[int, int] = {}
    found = []
    for index, op in enumerate(ops):
        before: set[int] = set()
        for position, ref in enumerate(op.refs):
            made = creator.get(ref.root)
            if made is not None:
                before.add(made)
            history = tracked.get(ref.root)
            if history is not None:
                before |= history.touch(index, ref, position in op.writes)
        for root in op.outputs:
            creator[root] = index
        before.discard(index)
        found.append(tuple(sorted(before)))
    return tuple(found)


class _History:
    """Reads and writes of one root so far, in program order."""

    def __init__(self, spec: RootSpec) -> None:
        self._spec = spec
        self._writes: list[tuple[int, Box]] = []
        self._reads: list[tuple[int, Box]] = []

    def touch(self, index: int, ref: Ref, write: bool) -> set[int]:
        """Note an access; returns the earlier ops that it must wait for."""
        box = box_of(ref, self._spec)
        before = {op for op, other in self._writes if overlap(box, other)}
        if write:
            before |= {op for op, other in self._reads if overlap(box, other)}
            self._writes.append((index, box))
        else:
            self._reads.append((index, box))
        return before


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes of the same root share an element."""
    for (begin, end), (other_begin, other_end) in zip(one, other, strict=True):
        if begin >= other_end or other_begin >= end:
            return False
    return True


def box_of(ref: Ref, spec: RootSpec) -> Box:
    """Half-open ranges per root dimension that `ref` can touch; the whole root where that cannot be told."""
    if ref.dtype != spec.dtype or spec.stride != _contiguous(spec.shape):
        return _whole(spec.shape)
    return _box(spec.shape, ref.size, ref.stride, ref.offset)


def _whole(shape: tuple[int, ...]) -> Box:
    return tuple((0, size) for size in shape)


@functools.lru_cache(maxsize=65536)
def _box(shape: tuple[int, ...], sizes: tuple[int, ...], ref_strides: tuple[int, ...], offset: int) -> Box:
    """`box_of` by geometry; the layers of a model repeat the same few geometries."""
    whole = _whole(shape)
    strides = _contiguous(shape)
    start, rest = [], offset
    for stride in strides:
        start.append(rest // stride)
        rest %= stride
    length = [1] * len(strides)
    for size, stride in zip(sizes, ref_strides, strict=True):
        if size == 1 or stride == 0:
            continue
        fits = [dim for dim, root_stride in enumerate(strides) if stride % root_stride == 0 and shape[dim] > 1]
        if not fits:
            return whole
        dim = fits[0]
        reach = (size - 1) * (stride // strides[dim]) + 1
        # A view dimension may span several root dimensions (a flattened one): it then runs over the end of its own.
        while dim > 0 and start[dim] + length[dim] - 1 + reach > shape[dim]:
            if start[dim] or length[dim] > 1 or reach % shape[dim]:
                return whole
            length[dim] = shape[dim]
            reach //= shape[dim]
            dim -= 1
        length[dim] += reach - 1
    box = tuple((begin, begin + count) for begin, count in zip(start, length, strict=True))
    return whole if any(stop > size for (_, stop), size in zip(box, shape, strict=True)) else box


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a contiguous tensor."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))

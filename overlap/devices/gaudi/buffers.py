"""Waits that come from memory being used again.

Freed tensors keep their memory for a while (`kept_buffers` more are freed first); then the next tensor that fits takes
it over and must wait for the last unit that used it (WAR). Units of another engine may be that user, which is how reuse
of memory can end an overlap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from overlap.devices.gaudi.units import Unit


def reuse_waits(units: Sequence[Unit], kept: Collection[int], sizes: Sequence[int], delay: int) -> list[list[int]]:
    """Extra units that each unit waits for; `kept` roots are never freed."""
    last_use: dict[int, int] = {}
    for number, unit in enumerate(units):
        for root, _ in (*unit.reads, *unit.writes):
            last_use[root] = number
    dying: dict[int, list[int]] = {}
    for root, number in last_use.items():
        if root >= 0 and root not in kept:
            dying.setdefault(number, []).append(root)
    waits: list[list[int]] = [[] for _ in units]
    freed = _Freed(delay)
    live: set[int] = set()
    for number, unit in enumerate(units):
        for root, _ in unit.writes:
            if root >= 0 and root not in kept and root not in live:
                live.add(root)
                user = freed.take(sizes[root])
                if user is not None:
                    waits[number].append(user)
        for root in dying.get(number, ()):
            freed.add(sizes[root], number)
    return waits


class _Freed:
    """Memory that waits to be used again, by size; sizes are few, since layers and chunks repeat."""

    def __init__(self, delay: int) -> None:
        self._delay = delay
        self._count = 0
        self._by_size: dict[int, deque[tuple[int, int]]] = {}

    def add(self, nbytes: int, user: int) -> None:
        """Free memory whose last user is `user`."""
        self._by_size.setdefault(nbytes, deque()).append((self._count, user))
        self._count += 1

    def take(self, nbytes: int) -> int | None:
        """Take over the memory that was freed first, of those that fit and have waited long enough; its last user."""
        newest = self._count - self._delay
        fitting = [(waiting[0][0], size) for size, waiting in self._by_size.items() if size >= nbytes and waiting]
        number, size = min(fitting, default=(newest, 0))
        return self._by_size[size].popleft()[1] if number < newest else None

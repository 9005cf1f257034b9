"""Time against memory: the points that no other point beats in both, and the choice under a cap.

Terms
    beaten: another point needs no more time and no more memory, and less of one of them.
    front: the points that are not beaten; of points that are equal in both, the first by key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A candidate by its key, its time, and its peak memory."""

    key: str
    time_ns: float
    peak_bytes: int

    @property
    def rank(self) -> tuple[float, int, str]:
        """Faster first, then smaller, then by key, so that a choice never depends on the order of a list."""
        return (self.time_ns, self.peak_bytes, self.key)


def front(points: Iterable[Point]) -> list[Point]:
    """The front, fastest first; memory falls along it."""
    found: list[Point] = []
    for point in sorted(points, key=lambda one: one.rank):
        if not found or point.peak_bytes < found[-1].peak_bytes:
            found.append(point)
    return found


def fastest_under(points: Iterable[Point], cap_bytes: int | None) -> Point | None:
    """The fastest point that needs at most `cap_bytes`, the smaller one of two that are as fast; None if none fits.

    Without a cap the fastest of all.
    """
    able = (one for one in points if cap_bytes is None or one.peak_bytes <= cap_bytes)
    return min(able, key=lambda one: one.rank, default=None)

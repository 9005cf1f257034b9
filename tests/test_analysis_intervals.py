"""Unions of intervals against sets of single ns."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.analysis import intervals
from overlap.analysis.intervals import busy_before, islands, joined, shared_ns, union

SPANS = st.lists(st.tuples(st.integers(0, 3), st.integers(-20, 20), st.integers(1, 8)), max_size=15)


def columns(spans: list[tuple[int, int, int]]) -> list[np.ndarray]:
    found = np.array(spans, dtype=np.int64).reshape(-1, 3)
    return [found[:, 1], found[:, 1] + found[:, 2], found[:, 0]]


def points(spans: list[tuple[int, int, int]]) -> set[tuple[int, int]]:
    return {(group, at) for group, start, length in spans for at in range(start, start + length)}


@given(SPANS)
def test_islands_hold_the_same_points_and_never_touch(spans: list[tuple[int, int, int]]) -> None:
    found = islands(*columns(spans))
    rows = list(zip(found.group.tolist(), found.start_ns.tolist(), found.end_ns.tolist(), strict=True))
    assert points([(group, start, end - start) for group, start, end in rows]) == points(spans)
    assert found.total_ns == len(points(spans))
    assert rows == sorted(rows)
    assert all(a[0] < b[0] or a[2] < b[1] for a, b in pairwise(rows))


@given(SPANS)
def test_touching_rows_stay_apart_where_asked(spans: list[tuple[int, int, int]]) -> None:
    found = islands(*columns(spans), touching=False)
    assert found.total_ns == len(points(spans))
    free = 0
    ordered = sorted(spans, key=lambda span: (span[0], span[1]))
    for i, (group, start, _) in enumerate(ordered):
        free += all(s + n <= start for g, s, n in ordered[:i] if g == group)
    assert len(found.group) == free


@given(SPANS)
def test_spans_that_would_overflow_give_the_same(spans: list[tuple[int, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        expected = islands(*columns(spans))
        patch.setattr(intervals, "SAFE", 1)
        found = islands(*columns(spans))
    for name in ("group", "start_ns", "end_ns"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()


def test_more_groups_than_sixteen_bits() -> None:
    groups = np.array([70_000, 3, 70_000, 65_539, 3])
    found = islands(np.array([5, 0, 0, 1, 2]), np.array([6, 2, 5, 4, 3]), groups)
    assert list(zip(found.group.tolist(), found.start_ns.tolist(), found.end_ns.tolist(), strict=True)) == [
        (3, 0, 3),
        (65_539, 1, 4),
        (70_000, 0, 6),
    ]


@given(SPANS, SPANS)
def test_what_two_unions_share(a: list[tuple[int, int, int]], b: list[tuple[int, int, int]]) -> None:
    one, other = ({at for _, at in points(spans)} for spans in (a, b))
    unions = [union(*columns(spans)[:2]) for spans in (a, b)]
    assert shared_ns(*unions) == len(one & other)
    assert joined(*unions).total_ns == len(one | other)
    times = np.arange(-25, 35)
    assert busy_before(unions[0], times).tolist() == [sum(at < time for at in one) for time in times]

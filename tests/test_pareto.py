"""The front of time and memory, against its definition; and the choice under a cap."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from overlap.search.pareto import Point, fastest_under, front

# Few values, so that many points are equal in one or both.
POINTS = st.lists(
    st.builds(Point, st.sampled_from("abcdefgh"), st.integers(1, 6).map(float), st.integers(0, 6)), max_size=12
)


def beaten(one: Point, by: Point) -> bool:
    no_worse = by.time_ns <= one.time_ns and by.peak_bytes <= one.peak_bytes
    return no_worse and (by.time_ns, by.peak_bytes) != (one.time_ns, one.peak_bytes)


@given(POINTS)
def test_the_front_is_what_nothing_beats(points: list[Point]) -> None:
    found = front(points)
    values = {(one.time_ns, one.peak_bytes) for one in points if not any(beaten(one, by) for by in points)}
    assert [(one.time_ns, one.peak_bytes) for one in found] == sorted(values)
    assert set(found) <= set(points)


@given(POINTS, st.randoms())
def test_the_front_does_not_depend_on_the_order_of_the_points(points: list[Point], rng) -> None:
    shuffled = list(points)
    rng.shuffle(shuffled)
    assert front(shuffled) == front(points)


@given(POINTS)
def test_memory_falls_along_the_front(points: list[Point]) -> None:
    found = front(points)
    assert all(a.time_ns < b.time_ns and a.peak_bytes > b.peak_bytes for a, b in pairwise(found))


@given(POINTS, st.integers(-1, 7) | st.none())
def test_the_choice_is_the_fastest_that_fits_and_lies_on_the_front(points: list[Point], cap: int | None) -> None:
    able = [one for one in points if cap is None or one.peak_bytes <= cap]
    chosen = fastest_under(points, cap)
    assert (chosen is None) == (not able)
    if chosen is not None:
        assert chosen in able
        assert all((chosen.time_ns, chosen.peak_bytes) <= (one.time_ns, one.peak_bytes) for one in able)
        assert chosen in front(points)


def test_nothing_has_no_front_and_no_choice() -> None:
    assert front([]) == []
    assert fastest_under([], None) is None


def test_of_two_equal_points_the_first_by_key_is_taken() -> None:
    twins = [Point("b", 1.0, 1), Point("a", 1.0, 1)]
    assert front(twins) == [Point("a", 1.0, 1)]
    assert fastest_under(twins, 1) == Point("a", 1.0, 1)

"""Orders: topological, better than program order where it matters, and never better than the bound."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.analysis.bound import bound
from overlap.errors import ConfigError
from overlap.program import Engine, Program, check_order
from overlap.search.order import find_order, makespan_ns
from overlap.search.orders.problem import Problem
from tests.fakes import program_of, random_order, random_program


def list_order(program: Program, times: Sequence[int]) -> list[int]:
    """The order called `list`."""
    return find_order(program, "list", Problem.of(program, times))


def times_for(count: int, rng: random.Random) -> list[int]:
    """Random op times in ns."""
    return [rng.randint(1, 50) for _ in range(count)]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6))
def test_list_orders_are_topological_and_repeatable(seed: int) -> None:
    """Same times, same order."""
    rng = random.Random(seed)
    program = random_program(rng, 12)
    times = times_for(len(program.ops), rng)
    order = list_order(program, times)
    check_order(program, order)
    assert order == list_order(program, times)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_list_order_is_within_graham_of_the_best_order(seed: int) -> None:
    """Exhaustive search on small programs: never below the bound, list scheduling at most twice the best."""
    rng = random.Random(seed)
    program = random_program(rng, 6)
    times = times_for(len(program.ops), rng)
    best = None
    for order in itertools.permutations(range(len(program.ops))):
        try:
            check_order(program, order)
        except Exception:
            continue
        found = makespan_ns(program, order, times)
        best = found if best is None else min(best, found)
    assert best is not None
    assert bound(program, times).time_ns <= best
    graphs = len({op.graph for op in program.ops})
    assert best <= makespan_ns(program, list_order(program, times), times) <= 2 * best * graphs


def test_two_chains_are_interleaved() -> None:
    """Two chunks MME → TPC → MME: program order takes turns, list order keeps both engines fed."""
    m, t = Engine.MME, Engine.TPC
    program = program_of([[], [0], [1], [], [3], [4]], [m, t, m, m, t, m])
    times = [10] * 6
    assert makespan_ns(program, range(6), times) == 60
    assert makespan_ns(program, list_order(program, times), times) == 40
    assert makespan_ns(program, range(6), times, serial=True) == 60


def test_fences_keep_graphs_apart() -> None:
    """No op of the second graph starts before the first is done on every engine."""
    program = program_of([[], [], []], [Engine.MME, Engine.TPC, Engine.TPC], graphs=[0, 0, 1])
    assert makespan_ns(program, range(3), [100, 10, 10]) == 110
    assert makespan_ns(program_of([[], [], []], [Engine.MME, Engine.TPC, Engine.TPC]), range(3), [100, 10, 10]) == 100


@given(st.integers(0, 10**6))
def test_any_order_respects_the_bound(seed: int) -> None:
    """Whatever the order."""
    rng = random.Random(seed)
    program = random_program(rng, 10)
    times = times_for(len(program.ops), rng)
    assert makespan_ns(program, random_order(program, rng), times) >= bound(program, times).time_ns


def test_unknown_order_names_the_known_ones() -> None:
    """A typo in the config."""
    program = program_of([[]], [Engine.MME])
    problem = Problem.of(program, [1])
    with pytest.raises(ConfigError, match="one of program, list"):
        find_order(program, "lst", problem)

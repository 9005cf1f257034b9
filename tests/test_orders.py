"""The order search: right about times, exact on small programs, never worse than what it began with."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.errors import ProgramError
from overlap.program import Engine, Program, check_order
from overlap.queues import QueueRules
from overlap.search.order import makespan_ns
from overlap.search.orders import search as order_search
from overlap.search.orders.evaluate import decode, finish_ns
from overlap.search.orders.exact import best_order
from overlap.search.orders.problem import Problem
from overlap.search.orders.rules import starts, tails
from overlap.search.orders.search import Budget, quick_order, search_order
from overlap.search.orders.settle import settled
from tests.fakes import program_of, random_order, random_program

M, T, N = Engine.MME, Engine.TPC, Engine.NIC
SIGNALS = QueueRules(to_mme_ns=3, to_other_ns=5, same_ns=1)
FENCING = replace(SIGNALS, fence_ns=4, collectives_fence=True, recipe_launch_ns=7, collective_launch_ns=2)
RULES = (QueueRules(), SIGNALS, FENCING)


def problem_of(seed: int, most: int, rules: QueueRules = RULES[0]) -> tuple[Program, Problem]:
    """A random program with random op times."""
    rng = random.Random(seed)
    program = random_program(rng, most)
    return program, Problem.of(program, [rng.randint(1, 50) for _ in program.ops], rules)


def all_orders(program: Program) -> Iterator[tuple[int, ...]]:
    """Every order that a device would take."""
    for order in itertools.permutations(range(len(program.ops))):
        try:
            check_order(program, order)
        except ProgramError:
            continue
        yield order


@given(st.integers(0, 10**6))
def test_without_signals_the_time_is_the_makespan(seed: int) -> None:
    program, problem = problem_of(seed, 12)
    order = random_order(program, random.Random(seed))
    assert finish_ns(problem, order) == makespan_ns(program, order, problem.times_ns)


def test_signals_fences_and_launches_by_hand() -> None:
    """MME 10, collective 20, MME 10 that needs nothing: fenced off, and launched later."""
    program = program_of([[], [0], []], [M, N, M])
    problem = Problem.of(program, [10, 20, 10], FENCING)
    # Launched at 7, ends at 17; the collective starts 5 later and ends at 42. Behind it: max(17 + 4, 7 + 9) = 21.
    assert finish_ns(problem, [0, 1, 2]) == 42
    # Before it: 17 to 27, the collective as before.
    assert finish_ns(problem, [0, 2, 1]) == 42
    assert finish_ns(Problem.of(program, [10, 1, 10], FENCING), [0, 1, 2]) == 31
    assert finish_ns(Problem.of(program, [10, 1, 10], FENCING), [0, 2, 1]) == 27


def test_a_name_takes_no_time_and_signals_once() -> None:
    """MME → copy that renames → MME: one signal between two ops of one engine."""
    program = program_of([[], [0], [1]], [M, T, M])
    rules = RULES[1]
    assert finish_ns(Problem.of(program, [10, 10, 10], rules), [0, 1, 2]) == 10 + 5 + 10 + 3 + 10
    assert finish_ns(Problem.of(program, [10, 10, 10], rules, frozenset({1})), [0, 1, 2]) == 10 + 1 + 10


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(RULES))
def test_every_order_that_is_made_can_be_run(seed: int, rules: QueueRules) -> None:
    program, problem = problem_of(seed, 14, rules)
    for priorities in starts(problem, program):
        order = decode(problem, priorities)
        check_order(program, order)
        assert order == decode(problem, priorities)
        check_order(program, settled(problem, order))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(RULES))
def test_weaving_keeps_the_time_of_the_queues(seed: int, rules: QueueRules) -> None:
    """Only the sequence across queues changes."""
    program, problem = problem_of(seed, 14, rules)
    order = random_order(program, random.Random(seed))
    assert finish_ns(problem, settled(problem, order)) == finish_ns(problem, order)


def test_weaving_puts_a_vector_op_before_the_matrix_op_that_needs_it() -> None:
    program = program_of([[], [], [], [0]], [T, M, M, M])
    assert settled(Problem.of(program, [1] * 4), [0, 1, 2, 3]) == [1, 2, 0, 3]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(RULES))
def test_the_exact_search_is_exact(seed: int, rules: QueueRules) -> None:
    """Against every order there is."""
    program, problem = problem_of(seed, 6, rules)
    best = min(finish_ns(problem, order) for order in all_orders(program))
    assert finish_ns(problem, best_order(problem, range(problem.size))) == best


def test_small_programs_are_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 random programs of up to 10 ops are solved; without the exact part nearly all of them still are."""
    hits, worst = 0, 0.0
    for seed in range(200):
        program, problem = problem_of(seed, 10, RULES[seed % len(RULES)])
        best = finish_ns(problem, best_order(problem, range(problem.size)))
        assert search_order(problem, program, Budget(0, 0)).time_ns == best
        monkeypatch.setattr(order_search, "MOST_OPS", 0)
        found = search_order(problem, program, Budget(300, 0), seed).time_ns
        monkeypatch.undo()
        hits += found == best
        worst = max(worst, found / best - 1)
    assert hits >= 190
    assert worst <= 0.02


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(RULES))
def test_a_search_is_repeatable_and_never_worse_than_its_beginnings(seed: int, rules: QueueRules) -> None:
    program, problem = problem_of(seed, 30, rules)
    found = search_order(problem, program, Budget(60, 0), seed)
    check_order(program, found.order)
    assert found == search_order(problem, program, Budget(60, 0), seed)
    assert found.time_ns == finish_ns(problem, found.order)
    quick = quick_order(problem, program)
    assert found.time_ns <= quick.time_ns <= finish_ns(problem, range(problem.size))


def test_the_clock_of_a_device_decides() -> None:
    """A device that likes the ops of one queue backwards gets what it likes, whatever their times say."""
    program = program_of([[]] * 12, [M] * 12)
    problem = Problem.of(program, [1] * 12)
    found = search_order(
        problem, program, Budget(20, 400), 0, lambda order: sum(abs(op - 11 + at) for at, op in enumerate(order))
    )
    straight = sum(abs(op - 11 + at) for at, op in enumerate(range(12)))
    assert found.time_ns < straight / 2


def test_memory_is_a_limit() -> None:
    """Orders that do not fit are never returned."""
    program = program_of([[], [], [0], [1]], [M, M, T, T])
    problem = Problem.of(program, [10, 10, 30, 30])
    asked = []

    def fits(order: list[int]) -> bool:
        asked.append(order)
        return list(order)[:2] != [0, 1]

    found = search_order(problem, program, Budget(50, 0), 0, None, fits)  # type: ignore[arg-type]
    assert list(found.order)[:2] != [0, 1] or found.order == [0, 1, 2, 3]
    assert asked


def test_tails_are_longest_paths() -> None:
    program = program_of([[], [0], [0], [1, 2]], [M] * 4)
    assert tails(Problem.of(program, [1, 5, 2, 1])) == [7, 6, 3, 1]

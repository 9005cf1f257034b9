"""The event loop on nodes made by hand and at random: queues, waits, fences, and bandwidth that is shared."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.devices.gaudi.node import NUMBER, Node
from overlap.devices.gaudi.simulate import Rates, Run, simulate
from overlap.program import Engine

MME, TPC, DMA, NIC = (NUMBER[engine] for engine in (Engine.MME, Engine.TPC, Engine.DMA, Engine.NIC))
FREE = Rates(1000.0, 1000.0, 0.0, 0.0, 0.0, 0.0)
SYNC = Rates(1000.0, 1000.0, 30.0, 20.0, 10.0, 100.0)


def node(
    engine: int, alone_ns: float, waits: Sequence[Node] = (), recipe: int = 0, hbm: float = 0, die: float = 0
) -> Node:
    """A node of a unit of its own."""
    made = Node(0, engine, recipe, alone_ns, hbm, die)
    made.waits = list(waits)
    return made


def queued(*nodes: Node) -> list[Node]:
    """Nodes in the order in which they enter the queues."""
    for number, one in enumerate(nodes):
        one.index = number
        for before in one.waits:
            before.users.append(one)
    return list(nodes)


def spans(
    nodes: Sequence[Node], rates: Rates = FREE, launched: dict[int, float] | None = None, serial: bool = False
) -> list[tuple[int, int]]:
    """(start, end) of every node."""
    run = simulate(nodes, rates, launched or {}, serial)
    return list(zip(run.start_ns, run.end_ns, strict=True))


# -- queues and waits ------------------------------------------------------------------------------------------------


def test_nothing_takes_no_time() -> None:
    assert simulate([], FREE, {}).time_ns == 0


def test_independent_nodes_of_two_engines_run_side_by_side() -> None:
    assert spans(queued(node(MME, 100), node(TPC, 70))) == [(0, 100), (0, 70)]


def test_nodes_of_one_engine_take_turns() -> None:
    assert spans(queued(node(MME, 100), node(MME, 70))) == [(0, 100), (100, 170)]


def test_the_head_of_a_queue_blocks_what_is_behind_it() -> None:
    """The second vector node needs nothing, and waits all the same: there is no overtaking."""
    first = node(MME, 100)
    blocked = spans(queued(first, node(TPC, 10, [first]), node(TPC, 50)))
    assert blocked == [(0, 100), (100, 110), (110, 160)]
    again = node(MME, 100)
    free = node(TPC, 50)
    assert spans(queued(again, free, node(TPC, 10, [again]))) == [(0, 100), (0, 50), (100, 110)]


def test_a_blocked_head_blocks_across_engines() -> None:
    """TPC waits for MME, MME's next for TPC: what could have run at once comes last."""
    first = node(MME, 100)
    second = node(TPC, 40, [first])
    third = node(MME, 100, [second])
    assert spans(queued(first, second, third, node(MME, 60)))[-1] == (240, 300)


@pytest.mark.parametrize(("engine", "sync"), [(MME, 30), (TPC, 20), (DMA, 20), (NIC, 20)])
def test_a_signal_to_another_engine_takes_its_time(engine: int, sync: int) -> None:
    first = node(TPC if engine != TPC else MME, 50)
    assert spans(queued(first, node(engine, 10, [first])), SYNC)[1] == (50 + sync, 60 + sync)


def test_a_signal_on_one_engine_takes_less() -> None:
    first = node(MME, 50)
    assert spans(queued(first, node(MME, 10, [first])), SYNC)[1] == (60, 70)
    assert spans(queued(node(MME, 50), node(MME, 10)), SYNC)[1] == (50, 60), "nothing to wait for, nothing to pay"


def test_the_last_signal_decides() -> None:
    early, late = node(TPC, 10), node(DMA, 90)
    assert spans(queued(early, late, node(MME, 10, [early, late])), SYNC)[2] == (120, 130)


def test_serial_is_one_node_at_a_time_in_order() -> None:
    assert spans(queued(node(TPC, 70), node(MME, 100), node(DMA, 5)), serial=True) == [(0, 70), (70, 170), (170, 175)]


# -- recipes ---------------------------------------------------------------------------------------------------------


def test_a_fence_lets_no_node_of_the_next_recipe_start() -> None:
    """Until the longest node of the one before has ended on every engine, and the fence is paid."""
    nodes = queued(node(MME, 100), node(TPC, 10), node(TPC, 10, recipe=1))
    assert spans(nodes, SYNC) == [(0, 100), (0, 10), (200, 210)]
    same = queued(node(MME, 100), node(TPC, 10), node(TPC, 10))
    assert spans(same, SYNC)[2] == (10, 20)


def test_a_recipe_starts_when_the_host_has_launched_it() -> None:
    nodes = [node(MME, 10), node(MME, 10, recipe=1), node(MME, 10, recipe=2)]
    assert spans(queued(*nodes), SYNC, {0: 40.0, 1: 500.0, 2: 520.0}) == [(40, 50), (500, 510), (610, 620)]


def test_a_collective_runs_beside_the_next_recipe_but_its_reader_waits() -> None:
    product = node(MME, 100)
    summed = node(NIC, 1000, [product])
    beside = node(MME, 300, recipe=1)
    reader = node(TPC, 10, [summed], recipe=1)
    found = spans(queued(product, summed, beside, reader), SYNC)
    assert found == [(0, 100), (120, 1120), (200, 500), (1140, 1150)]


def test_collectives_wait_for_each_other_and_for_their_launch() -> None:
    nodes = queued(node(NIC, 100), node(NIC, 100, recipe=1))
    assert spans(nodes, SYNC, {0: 10.0, 1: 300.0}) == [(10, 110), (300, 400)]
    again = queued(node(NIC, 100), node(NIC, 100, recipe=1))
    assert spans(again, SYNC) == [(0, 100), (100, 200)]


# -- bandwidth -------------------------------------------------------------------------------------------------------


def test_two_nodes_that_want_four_fifths_each_take_1_6_times_as_long() -> None:
    assert spans(queued(node(MME, 100, hbm=800), node(TPC, 100, hbm=800))) == [(0, 160), (0, 160)]
    assert spans(queued(node(MME, 100, die=800), node(TPC, 100, die=800))) == [(0, 160), (0, 160)]


def test_sharing_ends_with_the_shorter_one() -> None:
    """Together 1.6 times slower for 80 ns: the shorter one's 50, and 50 of the longer one's 100; alone for the rest."""
    assert spans(queued(node(MME, 100, hbm=800), node(TPC, 50, hbm=800))) == [(0, 130), (0, 80)]


def test_three_nodes_share_in_proportion() -> None:
    nodes = queued(node(MME, 100, hbm=1000), node(TPC, 100, hbm=600), node(DMA, 100, hbm=400))
    assert spans(nodes) == [(0, 200)] * 3


def test_nodes_that_want_less_than_there_is_do_not_slow_each_other() -> None:
    assert spans(queued(node(MME, 100, hbm=500), node(TPC, 100, hbm=500))) == [(0, 100), (0, 100)]


def test_only_those_that_use_a_memory_are_slowed_by_it() -> None:
    nodes = queued(node(MME, 100, hbm=900), node(TPC, 100, hbm=900), node(DMA, 100, die=900))
    assert spans(nodes) == [(0, 180), (0, 180), (0, 100)]


def test_the_scarcer_memory_decides() -> None:
    nodes = queued(node(MME, 100, hbm=800, die=500), node(TPC, 100, hbm=400, die=1000))
    assert spans(nodes) == [(0, 150), (0, 150)]


def test_more_bandwidth_ends_the_quarrel() -> None:
    nodes = queued(node(MME, 100, hbm=800), node(TPC, 100, hbm=800))
    assert spans(nodes, FREE._replace(hbm=1600.0)) == [(0, 100), (0, 100)]


# -- anything --------------------------------------------------------------------------------------------------------


def random_nodes(seed: int, most: int = 30) -> list[Node]:
    """Nodes with waits backwards, recipes that never go back, and all kinds of appetite."""
    rng = random.Random(seed)
    made: list[Node] = []
    recipes = sorted(rng.randint(0, 2) for _ in range(rng.randint(1, most)))
    for recipe in recipes:
        waits = [one for one in made if rng.random() < 0.15]
        rates = [rng.choice([0.0, rng.uniform(0, 1000)]) for _ in range(2)]
        made.append(node(rng.choice([MME, MME, TPC, TPC, DMA, NIC]), rng.uniform(1, 500), waits, recipe, *rates))
    return queued(*made)


def checked(nodes: Sequence[Node], run: Run, rates: Rates, serial: bool) -> None:
    """Everything that must hold of any run; whole ns may be off by half of one at either end."""
    for one, start, end in zip(nodes, run.start_ns, run.end_ns, strict=True):
        assert end - start >= one.alone_ns - 1
        for before in one.waits:
            sync = (
                rates.sync_same
                if before.engine == one.engine
                else rates.sync_to_mme
                if one.engine == MME
                else rates.sync_to_other
            )
            assert start >= run.end_ns[before.index] + sync - 1
    for engine in {one.engine for one in nodes}:
        queue = [one.index for one in nodes if serial or one.engine == engine]
        for before, after in pairwise(queue):
            assert run.start_ns[after] >= run.end_ns[before], "in order, one at a time"
    for one in nodes:
        earlier = [
            other.index for other in nodes if other.recipe < one.recipe and NIC not in (one.engine, other.engine)
        ]
        if earlier:
            assert run.start_ns[one.index] >= max(run.end_ns[at] for at in earlier) + rates.fence - 1


def least_ns(nodes: Sequence[Node], rates: Rates) -> float:
    """No schedule beats the busiest engine, the longest chain, or the bytes over the bandwidth."""
    longest: list[float] = []
    for one in nodes:
        longest.append(one.alone_ns + max((longest[before.index] for before in one.waits), default=0.0))
    engines = {one.engine for one in nodes}
    busiest = max(sum(one.alone_ns for one in nodes if one.engine == engine) for engine in engines)
    moved = max(
        sum(one.alone_ns * one.hbm for one in nodes) / rates.hbm,
        sum(one.alone_ns * one.die for one in nodes) / rates.die,
    )
    return max(busiest, moved, *longest)


@settings(max_examples=300)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([FREE, SYNC]))
def test_any_run_keeps_every_rule(seed: int, serial: bool, rates: Rates) -> None:
    nodes = random_nodes(seed)
    run = simulate(nodes, rates, {0: 50.0, 1: 60.0}, serial)
    checked(nodes, run, rates, serial)
    assert run.time_ns >= least_ns(nodes, rates) - 1
    assert all(isinstance(value, int) for value in (*run.start_ns, *run.end_ns))


@settings(max_examples=100)
@given(st.integers(0, 10**6))
def test_the_same_nodes_run_the_same(seed: int) -> None:
    nodes = random_nodes(seed)
    assert simulate(nodes, SYNC, {}) == simulate(nodes, SYNC, {}) == simulate(random_nodes(seed), SYNC, {})


@settings(max_examples=100)
@given(st.integers(0, 10**6))
def test_serial_takes_the_sum_of_what_nodes_take_alone(seed: int) -> None:
    """Nothing runs beside a node, so nothing slows it."""
    nodes = random_nodes(seed)
    run = simulate(nodes, FREE, {}, serial=True)
    assert run.time_ns == pytest.approx(sum(one.alone_ns for one in nodes), abs=1)
    assert simulate(nodes, FREE, {}).time_ns <= run.time_ns + 1


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.floats(1.0, 4.0))
def test_nodes_without_appetite_do_not_mind_the_bandwidth(seed: int, factor: float) -> None:
    nodes = random_nodes(seed)
    for one in nodes:
        one.hbm = one.die = 0.0
    slower = FREE._replace(hbm=FREE.hbm / factor, die=FREE.die / factor)
    assert simulate(nodes, FREE, {}) == simulate(nodes, slower, {})

"""What a trace tells of an order, and of the times of ops. All rows are SYNTHETIC."""

from __future__ import annotations

import polars as pl
import pytest

from overlap.devices.hpu.order import obeyed
from overlap.devices.hpu.shares import shared_times
from overlap.kernels.capture import capture
from overlap.program import Engine, Program
from overlap.split import Split
from overlap.traces.schema import filled
from tests.fakes import program_of, small_workload


def rows(*nodes: tuple[str, int], engine: str = "MME") -> pl.DataFrame:
    """An event table with one launch per (name, start)."""
    columns = {
        "engine": [engine] * len(nodes),
        "name": [name for name, _ in nodes],
        "kind": ["gemm"] * len(nodes),
        "start_ns": [start for _, start in nodes],
        "end_ns": [start + 5 for _, start in nodes],
        "op_id": list(range(len(nodes))),
    }
    return filled(pl.DataFrame(columns))


@pytest.fixture(scope="module")
def twelve() -> Program:
    """Twelve matrix calls."""
    return capture(small_workload(), Split())


def test_a_recipe_that_is_launched_again_is_compared_again() -> None:
    """Names and numbers come again with every launch."""
    program = capture(small_workload(), Split(layers_per_graph=1))
    order = range(len(program.ops))
    twice = [(f"gemm/{number}", 100 * launch + 10 * number) for launch in range(2) for number in range(6)]
    found = obeyed(rows(*twice), program, order)
    assert (found.asked, found.found, found.kept) == (12, 12, True)
    swapped = [("gemm/1", 0), ("gemm/0", 10), *twice[2:]]
    found = obeyed(rows(*swapped), program, order)
    assert (found.kept, found.text) == (False, "changed: 1 of 12 nodes out of place")
    found = obeyed(rows(*twice, ("gemm/0", 900)), program, order)
    assert (found.kept, found.text) == (None, "cannot tell: 3 launches for 2 graphs")


def nodes(count: int) -> list[tuple[str, int]]:
    return [(f"0/gemm/{number}", 10 * number) for number in range(count)]


def test_numbers_that_grow_with_time_are_an_order_that_was_kept(twelve: Program) -> None:
    found = obeyed(rows(*nodes(12)), twelve, range(len(twelve.ops)))
    assert (found.asked, found.found, found.kept, found.merged) == (12, 12, True, False)


def test_a_node_that_ran_too_late_is_an_order_that_was_not_kept(twelve: Program) -> None:
    moved = [*nodes(12)[1:], ("0/gemm/0", 500)]
    found = obeyed(rows(*moved), twelve, range(len(twelve.ops)))
    assert (found.kept, found.text) == (False, "changed: 1 of 12 nodes out of place")


def test_slices_of_a_node_are_one_node(twelve: Program) -> None:
    sliced = [(f"bundle_3/attn/batch_gemm/{n}/op_0_{part}", 100 * n + part) for n in range(12) for part in range(3)]
    found = obeyed(rows(*sliced), twelve, range(len(twelve.ops)))
    assert (found.found, found.kept) == (12, True)


def test_merged_nodes_are_fewer_than_asked_for(twelve: Program) -> None:
    found = obeyed(rows(*nodes(8)), twelve, range(len(twelve.ops)))
    assert (found.merged, found.found) == (True, 8)


@pytest.mark.parametrize("table", [rows(engine="TPC"), rows(("gemm", 0), ("gemm", 10))])
def test_where_a_trace_does_not_tell_it_says_so(table: pl.DataFrame, twelve: Program) -> None:
    found = obeyed(table, twelve, range(len(twelve.ops)))
    assert found.kept is None
    assert found.text.startswith("cannot tell")


def test_busy_time_is_shared_out_as_the_model_expects() -> None:
    program = program_of([(), (0,), (1,)], [Engine.MME, Engine.TPC, Engine.MME])
    table = pl.concat([rows(("a", 0), ("b", 3)), rows(("c", 20), engine="TPC")])
    # MME is busy for 8 ns (rows overlap), shared 1:3; TPC for 5.
    assert shared_times(table, program, [10, 7, 30]) == {"k0": 2, "k1": 5, "k2": 6}
    assert shared_times(table, program, [0, 0, 0]) == {"k0": 0, "k1": 0, "k2": 0}

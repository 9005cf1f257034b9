"""The bound against the best of all orders of tiny programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.analysis.bound import bound, gap
from overlap.program import Engine, Kernel, Op, Program


def tiny(engines: Sequence[str], edges: Sequence[tuple[int, int]], graphs: Sequence[int] = ()) -> Program:
    """A program without tensors: one op per engine name, edges from smaller to larger positions."""
    ops = []
    for i, engine in enumerate(engines):
        kernel = Kernel(f"key{i}", Engine(engine), "k", (), 0, 0, (), (), 0, 0, 0, 0, 0)
        ops.append(Op(f"op{i}", kernel, (), (), (), (), 0, 0, "attn", graphs[i] if graphs else 0))
    before = tuple(tuple(a for a, b in edges if b == i) for i in range(len(engines)))
    return Program(tuple(ops), (), {}, before)


def orders(program: Program, done: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """All orders that keep edges and graphs."""
    left = [i for i in range(len(program.ops)) if i not in done]
    if not left:
        yield done
    graph = min((program.ops[i].graph for i in left), default=0)
    for i in left:
        if program.ops[i].graph == graph and set(program.predecessors[i]) <= set(done):
            yield from orders(program, (*done, i))


def makespan(program: Program, order: Sequence[int], times: Sequence[int]) -> int:
    """End of the last op if every engine runs its ops in `order`, and a graph waits for the whole graph before it."""
    end: dict[int, int] = {}
    free: dict[Engine, int] = {}
    fence = graph = 0
    for i in order:
        op = program.ops[i]
        if op.graph != graph:
            graph, fence = op.graph, max(end.values())
        start = max([fence, free.get(op.engine, 0), *(end[one] for one in program.predecessors[i])])
        end[i] = free[op.engine] = start + times[i]
    return max(end.values())


@st.composite
def cases(draw: st.DrawFn) -> tuple[Program, list[int]]:
    """Programs of up to six ops on two engines in one or two graphs, and their op times."""
    count = draw(st.integers(1, 6))
    engines = draw(st.lists(st.sampled_from(("MME", "TPC")), min_size=count, max_size=count))
    pairs = [(a, b) for b in range(count) for a in range(b)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=7)) if pairs else []
    cut = draw(st.integers(1, count))
    times = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    return tiny(engines, edges, [int(i >= cut) for i in range(count)]), times


@settings(max_examples=60, deadline=None)
@given(cases())
def test_no_order_is_faster(case: tuple[Program, list[int]]) -> None:
    program, times = case
    best = min(makespan(program, order, times) for order in orders(program))
    found = bound(program, times)
    assert found.critical_path_ns <= found.time_ns <= best
    assert max(found.work_ns.values()) <= found.time_ns
    assert found == bound(program, {f"key{i}": time for i, time in enumerate(times)})


def test_head_and_tail_of_an_engine_count() -> None:
    # Each chunk is GEMM → softmax → GEMM: the vector engine can neither start first nor end last.
    program = tiny(["MME", "TPC", "MME", "MME", "TPC", "MME"], [(0, 1), (1, 2), (3, 4), (4, 5)])
    found = bound(program, [2, 10, 3, 2, 10, 3])
    assert (found.time_ns, found.critical_path_ns, found.work_ns) == (2 + 20 + 3, 15, {"MME": 10, "TPC": 20})
    assert found.limit == "TPC"


def test_a_set_of_ops_can_bound_more_than_all_of_them() -> None:
    # The first vector op is free to start at once; the two long ones are not, and still follow each other.
    program = tiny(["TPC", "MME", "TPC", "TPC"], [(1, 2), (1, 3)])
    assert bound(program, [1, 10, 5, 5]).time_ns == 20


def test_graphs_add_up() -> None:
    edges = [(0, 1)]
    assert bound(tiny(["MME", "TPC"], edges, [0, 1]), [4, 6]).time_ns == 10
    assert bound(tiny(["MME", "TPC"], [], [0, 1]), [4, 6]).time_ns == 10
    assert bound(tiny(["MME", "TPC"], []), [4, 6]).time_ns == 6


def test_gap() -> None:
    assert gap(115, 100) == pytest.approx(0.15)
    assert gap(0, 0) == 0.0


def test_wants_one_time_per_op() -> None:
    with pytest.raises(ValueError, match="1 op times for 2 ops"):
        bound(tiny(["MME", "TPC"], []), [4])
    assert bound(tiny([], []), []).time_ns == 0

"""No simulated time is below the bound that a sweep prints beside it, whatever is cut, ordered or overlapped."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.capture import op, region
from overlap.kernels.capture import capture
from overlap.kernels.collective import all_reduce
from overlap.program import Program
from overlap.search.bounds import device_bound
from overlap.search.orders.problem import Problem
from overlap.search.orders.search import quick_order
from overlap.split import Split
from tests.fakes import random_order
from tests.gaudi import CHIPS, Input, device, engine_program, recorded, workload
from tests.strategies import splits_of, workloads


def straight(program: Program) -> range:
    """Program order."""
    return range(len(program.ops))


def assert_bounded(program: Program, chip: str, order: list[int]) -> None:
    """Nothing that the model simulates is faster than the bound of its own op times."""
    one = device(chip)
    times = one.op_times(program, 1)
    least = device_bound(one, program, times).time_ns
    assert least <= one.predict_ns(program, order) + 1
    problem = Problem.of(program, one.expected_times(program), one.queue_rules, one.names(program))
    assert least <= one.predict_ns(program, quick_order(problem, program).order) + 1


@settings(max_examples=40)
@given(st.data(), st.integers(0, 10**6), st.sampled_from(CHIPS))
def test_no_order_of_any_split_is_faster_than_the_bound(data: st.DataObject, seed: int, chip: str) -> None:
    chosen = data.draw(workloads())
    program = capture(chosen, data.draw(splits_of(chosen)))
    assert_bounded(program, chip, random_order(program, random.Random(seed)))


@settings(max_examples=30)
@given(
    st.sampled_from(CHIPS),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([0, 256]),
    st.sampled_from([0, 1]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 640, 2048, 6144]),
)
def test_no_split_of_a_real_size_is_faster_than_the_bound(
    chip: str, chunks: int, tile: int, graph: int, cards: int, context: int
) -> None:
    """Large enough to fill engines and memory."""
    split = Split(chunks=chunks, query_tile=tile, layers_per_graph=graph, lag=2 * (chunks > 1), masked_blocks="skip")
    program = capture(workload(cards=cards, query=1024, context=context), split)
    assert_bounded(program, chip, list(straight(program)))


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("cards", [1, 2])
@pytest.mark.parametrize(
    "split",
    [
        Split(chunks=2, turn="block", masked_blocks="skip"),
        Split(chunks=4, turn="block", lag=1, masked_blocks="skip"),
        Split(chunks=4, attend="whole", masked_blocks="skip"),
        Split(chunks=2, chunk_axis="batch", attend="whole", query_tile=512, fused_sdpa=True),
        Split(query_tile=512, kv_tile=512, fused_sdpa=True, masked_blocks="skip"),
        Split(chunks=2, kv_tile=1024, fused_sdpa=True, masked_blocks="skip"),
    ],
    ids=str,
)
def test_turns_whole_attentions_and_slices_are_bounded(chip: str, cards: int, split: Split) -> None:
    program = capture(workload(cards=cards, batch=2, query=1024, context=1024), split)
    assert_bounded(program, chip, list(straight(program)))


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("engines", [("dma", "tpc") * 4, ("dma",) * 8, ("mme", "tpc") * 4])
def test_engines_that_run_side_by_side_do_not_add_up(chip: str, engines: tuple[str, ...]) -> None:
    """Copies are DMA's on Gaudi2, whatever queue the program names."""
    program = engine_program(*engines, size=4096)
    assert_bounded(program, chip, list(straight(program)))


@pytest.mark.parametrize("chip", CHIPS)
def test_a_collective_beside_the_next_graph_does_not_add_up(chip: str) -> None:
    """Fences do not wait for the network."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        made = {}
        for number in range(4):
            x = given(f"x{number}", 4096, 4096)
            with region(graph=min(number, 1)):
                with op(f"partial{number}"):
                    made[f"y{number}"] = x @ x
                if not number:
                    with op("all_reduce"):
                        all_reduce(made["y0"], 2)
        return made

    program = recorded(code)
    assert_bounded(program, chip, list(straight(program)))

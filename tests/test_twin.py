"""The narrow twin of a workload: the same ops and edges, small enough to be computed anywhere."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.devices.interpret import POISON, interpret
from overlap.kernels import inputs as window_inputs
from overlap.kernels.capture import capture
from overlap.program import Program, check_order
from overlap.search.twin import TOKENS, twin
from overlap.split import Split, check
from overlap.workload import Bucket, ModelShape, Workload
from tests.fakes import random_order, run_program, small_workload
from tests.strategies import splits_of, workloads

LLAMA_70B = ModelShape("llama-70b", 8192, 64, 8, 128, 28672, 80)


def assert_same_work(workload: Workload, split: Split) -> Program:
    """Ops by name, engines, places and edges; the twin's program."""
    small, cut = twin(workload, split)
    check(cut, small)
    program, narrow = capture(workload, split), capture(small, cut)
    for field in ("name", "engine", "layer", "chunk", "phase", "graph"):
        assert [getattr(one, field) for one in narrow.ops] == [getattr(one, field) for one in program.ops]
    assert [one.kernel.kind for one in narrow.ops] == [one.kernel.kind for one in program.ops]
    assert narrow.predecessors == program.predecessors
    return narrow


@settings(max_examples=30)
@given(st.data(), st.integers(0, 10**6))
def test_a_twin_has_the_same_ops_and_edges(data: st.DataObject, seed: int) -> None:
    """So that any order of one is an order of the other."""
    workload = data.draw(workloads())
    split = data.draw(splits_of(workload))
    narrow = assert_same_work(workload, split)
    check_order(narrow, random_order(capture(workload, split), random.Random(seed)))


@pytest.mark.parametrize("cards", [1, 2, 8])
@pytest.mark.parametrize(
    "split",
    [
        Split(),
        Split(chunks=8, lag=2, masked_blocks="skip"),
        Split(chunks=2, query_tile=512, kv_tile=1024, masked_blocks="skip", normalise="after"),
        Split(projections="split", layers_per_graph=1),
        Split(fused_sdpa=True, masked_blocks="skip"),
        Split(chunks=4, chunk_axis="batch", lag=1),
        Split(chunks=4, chunk_axis="batch", lag=1, turn="block", masked_blocks="skip"),
        Split(chunks=2, chunk_axis="batch", attend="whole", query_tile=1024, masked_blocks="skip"),
        Split(chunks=4, attend="whole", query_tile=2048, masked_blocks="skip"),
        Split(chunks=4, lag=2, turn="block", layers_per_graph=1),
        Split(chunks=2, query_tile=512, kv_tile=1024, fused_sdpa=True, masked_blocks="skip"),
    ],
    ids=str,
)
def test_twins_of_large_models_are_small(cards: int, split: Split) -> None:
    """Tokens are cut with all sizes in tokens; shards keep their sums over the cards, whatever their number."""
    workload = Workload(LLAMA_70B, Bucket(batch=4, query=4096, context=4096), cards)
    narrow = assert_same_work(workload, split)
    small, cut = twin(workload, split)
    assert small.bucket.query == TOKENS
    assert small.bucket.context == TOKENS
    assert cut.query_tile == split.query_tile // 4
    assert cut.kv_tile == split.kv_tile // 4
    assert ("all_reduce" in {one.kernel.kind for one in narrow.ops}) == (cards > 1)
    assert narrow.input_bytes() < 64 * 2**20
    assert sum(one.kernel.flops for one in narrow.ops) < 1e11


def test_sizes_that_do_not_divide_stay() -> None:
    """A tile of 3 tokens is a tile of 3 tokens."""
    workload = Workload(LLAMA_70B, Bucket(query=4096, context=3))
    small, cut = twin(workload, Split(chunks=2, query_tile=512))
    assert (small.bucket.query, small.bucket.context, cut.query_tile) == (4096, 3, 512)


def test_a_twin_of_decode_keeps_one_token() -> None:
    workload = Workload(LLAMA_70B, Bucket("decode", 64, 1, 8191 + 1))
    narrow = assert_same_work(workload, Split(chunks=2, chunk_axis="batch"))
    small, _ = twin(workload, Split(chunks=2, chunk_axis="batch"))
    assert (small.bucket.query, small.bucket.batch, small.bucket.context) == (1, 4, 1024)
    assert narrow.input_bytes() < 64 * 2**20


def test_what_a_model_has_beside_its_sizes_is_kept() -> None:
    """Biases and norms of heads are ops, or parts of them, in the twin too."""
    for more in ({"qkv_bias": True}, {"qk_norm": True}):
        model = ModelShape("odd", 3584, 28, 4, 128, 18944, 28, **more)  # type: ignore[arg-type]
        workload = Workload(model, Bucket(query=2048))
        small, cut = twin(workload, Split(head_groups=4))
        assert (small.model.qkv_bias, small.model.qk_norm) == (model.qkv_bias, model.qk_norm)
        assert small.shard.kv_heads % cut.head_groups == 0
        assert_same_work(workload, Split(head_groups=4))


@settings(max_examples=25)
@given(st.data(), st.integers(0, 10**6))
def test_interpreting_is_running_op_by_op(data: st.DataObject, seed: int) -> None:
    """The same bits as the plainest interpreter gives, in any order."""
    workload = data.draw(workloads(most_query=8))
    program = capture(workload, data.draw(splits_of(workload)))
    tensors = window_inputs.make(workload, 0)
    expected = run_program(program, range(len(program.ops)), {name: one.clone() for name, one in tensors.items()})
    found = interpret(program, random_order(program, random.Random(seed)), tensors)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_interpreted_memory_is_poisoned_first() -> None:
    """Rows of the caches that the program should write start far off, and so would stay if it did not."""
    program = capture(small_workload(), Split())
    tensors = window_inputs.make(small_workload(), 0)
    left_out = next(index for index, one in enumerate(program.ops) if one.name.endswith("write_v"))
    rest = [index for index in range(len(program.ops)) if index != left_out]
    found = interpret(program, rest, tensors)["layer0.value_cache"]
    assert (found == POISON).all()
    assert not (interpret(program, range(len(program.ops)), tensors)["layer0.value_cache"] == POISON).any()

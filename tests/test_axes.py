"""Turns of blocks, attention over whole layers, and sliced fused attention: what they compute, and in what order."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from overlap.kernels import inputs as window_inputs
from overlap.kernels import stack
from overlap.kernels.capture import capture
from overlap.kernels.fused import fused_partial
from overlap.kernels.reference import reference, relative_errors
from overlap.kernels.softmax import Partial, merge
from overlap.program import Program
from overlap.split import Split, violations
from tests.fakes import random_order, run_program, small_workload

WORKLOADS = [
    small_workload(),
    small_workload(batch=4, query=8),
    small_workload(query=8, context=8),
    small_workload(batch=2, query=8, context=5),
    small_workload(phase="decode", batch=4, query=1, context=12),
    # Graphs of two layers leave a graph of one, which owes nothing either.
    replace(small_workload(batch=2, query=4), window_layers=3),
]
SKIP = Split(masked_blocks="skip")
SPLITS = [
    replace(SKIP, chunks=2, turn="block"),
    replace(SKIP, chunks=2, turn="block", lag=1),
    replace(SKIP, chunks=4, turn="block", lag=3),
    replace(SKIP, chunks=2, chunk_axis="batch", turn="block"),
    replace(SKIP, chunks=2, chunk_axis="batch", turn="block", lag=2, layers_per_graph=1),
    replace(SKIP, chunks=2, turn="block", layers_per_graph=2),
    replace(SKIP, chunks=2, chunk_axis="batch", turn="block", projections="split", fused_sdpa=True),
    replace(SKIP, chunks=4, attend="whole"),
    replace(SKIP, chunks=4, attend="whole", query_tile=4, kv_tile=3, normalise="after"),
    replace(SKIP, chunks=2, attend="whole", fused_sdpa=True, layers_per_graph=1),
    replace(SKIP, chunks=2, chunk_axis="batch", attend="whole", head_groups=2),
    replace(SKIP, chunks=2, chunk_axis="batch", attend="whole", fused_sdpa=True, kv_tile=3),
    replace(SKIP, fused_sdpa=True, kv_tile=3),
    replace(SKIP, fused_sdpa=True, query_tile=4, kv_tile=3),
    replace(SKIP, fused_sdpa=True, query_tile=4, kv_tile=4, head_groups=2),
    replace(SKIP, fused_sdpa=True, chunks=2, kv_tile=2, lag=1),
]


@pytest.mark.parametrize("cards", [1, 2])
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_the_captured_program_computes_the_reference_in_any_order(split: Split, cards: int) -> None:
    """Prefill and decode, batches, contexts and shards; in fp32, where a slip of the logic cannot hide."""
    ran = 0
    for number, base in enumerate(WORKLOADS):
        workload = replace(base, tensor_parallel=cards)
        one = replace(split, head_groups=1) if cards > 1 else split
        if violations(one, workload):
            continue
        program = capture(workload, one)
        tensors = window_inputs.make(workload, number)
        truth = reference(window_inputs.assemble(workload, lambda name, _, made=tensors: made[name]), workload)
        found = run_program(program, random_order(program, random.Random(number)), tensors)
        assert max(relative_errors(found, truth, workload.bucket.context).values()) < 1e-5, str(workload)
        ran += 1
    assert ran


def names(program: Program, *endings: str) -> list[str]:
    """Names of the ops that end so, in program order."""
    return [one.name for one in program.ops if one.name.endswith(endings)]


def test_with_turns_of_blocks_all_attentions_come_before_all_mlps() -> None:
    """And what an MLP owes is added at the beginning of its chunk's next turn; the last layer owes nothing."""
    program = capture(small_workload(batch=2), Split(chunks=2, chunk_axis="batch", turn="block"))
    assert names(program, "qkv.norm", "attn.qk", "out.out", "mlp.down", "mlp.residual") == [
        "layer0.chunk0.qkv.norm",
        "layer0.chunk0.attn.qk",
        "layer0.chunk0.out.out",
        "layer0.chunk1.qkv.norm",
        "layer0.chunk1.attn.qk",
        "layer0.chunk1.out.out",
        "layer0.chunk0.mlp.down",
        "layer0.chunk1.mlp.down",
        "layer0.chunk0.mlp.residual",
        "layer1.chunk0.qkv.norm",
        "layer1.chunk0.attn.qk",
        "layer1.chunk0.out.out",
        "layer0.chunk1.mlp.residual",
        "layer1.chunk1.qkv.norm",
        "layer1.chunk1.attn.qk",
        "layer1.chunk1.out.out",
        "layer1.chunk0.mlp.down",
        "layer1.chunk0.mlp.residual",
        "layer1.chunk1.mlp.down",
        "layer1.chunk1.mlp.residual",
    ]


def test_a_lag_of_one_block_puts_the_mlp_of_a_chunk_beside_the_attention_of_the_next() -> None:
    split = Split(chunks=2, turn="block", lag=1)
    turns = list(dict.fromkeys((layer, stage == 3, chunk) for _, layer, stage, chunk in schedule_of(split)))
    assert turns == [
        (0, False, 0),
        (0, True, 0),
        (0, False, 1),
        (1, False, 0),
        (0, True, 1),
        (1, True, 0),
        (1, False, 1),
        (1, True, 1),
    ]


def schedule_of(split: Split) -> list[tuple[int, int, int, int]]:
    """(graph, layer, stage, chunk) of the small workload."""
    return list(stack.schedule(small_workload(), split))


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_no_residual_is_owed_across_a_fence(lag: int) -> None:
    program = capture(small_workload(), Split(chunks=2, turn="block", lag=lag, layers_per_graph=1))
    assert [one.graph for one in program.ops] == sorted(one.graph for one in program.ops)
    assert all(one.graph == one.layer for one in program.ops)
    assert len(names(program, "mlp.residual")) == 4


@pytest.mark.parametrize("axis", ["query", "batch"])
def test_a_whole_attention_runs_once_a_layer_and_copies_nothing(axis: str) -> None:
    """Everything else runs per chunk; queries are written where the attention reads them, nothing is put together."""
    workload = small_workload(batch=4 if axis == "batch" else 1)
    program = capture(workload, Split(chunks=4, chunk_axis=axis, attend="whole"))
    assert names(program, "attn.qk") == ["layer0.chunk0.attn.qk", "layer1.chunk0.attn.qk"]
    assert len(names(program, "qkv.qkv", "out.out", "mlp.down")) == 2 * 4 * 3
    calls = {call.name for one in program.ops for call in one.kernel.work}
    plain = {call.name for one in capture(workload, Split()).ops for call in one.kernel.work}
    assert calls == plain
    attention = next(index for index, one in enumerate(program.ops) if one.name == "layer0.chunk0.attn.qk")
    before = {program.ops[index].name for index in program.predecessors[attention]}
    assert {f"layer0.chunk{chunk}.qkv.rope_{what}" for chunk in range(4) for what in "qk"} <= before


def test_slices_are_masked_on_the_diagonal_only_and_never_by_the_kernels_causal_mode() -> None:
    """Two tiles of 8 behind 8 tokens of context: (keys, masked) of every slice; what lies behind is left out."""
    split = replace(SKIP, fused_sdpa=True, query_tile=8, kv_tile=4)
    workload = replace(small_workload(context=8), window_layers=1)
    kernels = [one.kernel for one in capture(workload, split).ops if one.name.endswith("fused")]
    assert {kernel.work[0].name for kernel in kernels} == {"fused_partial"}
    found = [(kernel.work[0].given[1].size[2], kernel.calls[0].args[3] is not None) for kernel in kernels]
    assert found == [(4, False), (4, False), (8, True), *[(4, False)] * 4, (8, True)]


def test_a_partial_attention_tells_what_a_merge_needs() -> None:
    """Statistics in fp32, the result of each slice normalised, and together the softmax over all keys."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 2, 5, 3, 8, generator=generator) * 4
    key, value = (torch.randn(2, 2, 12, 8, generator=generator) for _ in range(2))
    bias = torch.zeros(5, 12).masked_fill_(torch.ones(5, 12).triu(8).bool(), torch.finfo(torch.float32).min)
    parts = [
        Partial(*fused_partial(query, key[:, :, first:last], value[:, :, first:last], given))
        for first, last, given in ((0, 7, None), (7, 12, bias[:, 7:]))
    ]
    scores = query.flatten(2, 3) @ key.transpose(-1, -2) * 8**-0.5 + bias.repeat_interleave(3, dim=0)
    torch.testing.assert_close(merge(parts, True), scores.softmax(-1) @ value)
    torch.testing.assert_close(parts[0].maximum, scores[..., :7].amax(-1, keepdim=True))
    torch.testing.assert_close(parts[1].total, (scores[..., 7:] - parts[1].maximum).exp().sum(-1, keepdim=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_capture_sees_the_shapes_that_a_run_makes(dtype: torch.dtype) -> None:
    query, key = torch.randn(2, 2, 5, 3, 8, dtype=dtype), torch.randn(2, 2, 12, 8, dtype=dtype)
    made = fused_partial(query, key, key, None)
    assert [one.dtype for one in made] == [dtype, torch.float32, torch.float32]
    for bias in (None, torch.zeros(5, 12, dtype=dtype)):
        torch.library.opcheck(fused_partial, (query, key, key, bias), test_utils=("test_schema", "test_faketensor"))

"""A fused attention as chains of blocks: how many there are, what each costs, and what masks and modes do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.devices.gaudi.chains import (
    MOST_CHAINS,
    Chain,
    FusedAttention,
    attention_of,
    count_blocks,
    count_scores,
    make_chains,
)
from overlap.devices.gaudi.mme import Gemm, cost
from overlap.kernels.capture import capture
from overlap.split import Split
from tests.gaudi import CHIPS, compiled, machine, workload


def attention(query: int = 4096, keys: int = 0, causal: bool = True, heads: int = 8, **more: object) -> FusedAttention:
    """A fused attention of head width 128 in bf16."""
    made = FusedAttention(heads, query, keys or query, 128, causal, False, True, "bf16", 2)
    return made._replace(**more)  # type: ignore[arg-type]


def total(chains: list[Chain], name: str) -> float:
    """Sum over all chains."""
    return float(sum(getattr(chain, name) for chain in chains))


@pytest.mark.parametrize(
    ("one", "blocks", "scores"),
    [
        # 4 by 4 blocks; below and on the diagonal there are 10, computed whole.
        (attention(4096, causal=False), 16, 4096 * 4096),
        (attention(4096), 10, 10 * 1024 * 1024),
        # 1024 queries behind 3072 tokens of context see 4 blocks; 2048 of them 3 and 4.
        (attention(1024, 4096), 4, 1024 * 4096),
        (attention(2048, 4096), 7, 7 * 1024 * 1024),
        # The last block is as small as what is left.
        (attention(1536), 3, 1024 * 1024 + 512 * 1536),
        (attention(1500, 1600, causal=False), 4, 1500 * 1600),
    ],
)
def test_blocks_that_have_a_score_to_compute(one: FusedAttention, blocks: int, scores: int) -> None:
    assert count_blocks(one, 1024, 1024) == blocks
    assert count_scores(one, 1024, 1024) == scores


@given(st.integers(1, 9000), st.integers(0, 9000), st.integers(1, 3000), st.booleans())
def test_scores_are_between_the_triangle_and_the_rectangle(query: int, context: int, block: int, causal: bool) -> None:
    one = attention(query, query + context, causal)
    rows, columns = min(block, query), min(block, one.keys)
    found = count_scores(one, rows, columns)
    seen = query * context + query * (query + 1) // 2 if causal else query * one.keys
    assert seen <= found <= query * one.keys
    assert found <= count_blocks(one, rows, columns) * rows * columns


@pytest.mark.parametrize("chip", CHIPS)
def test_a_block_by_hand(chip: str) -> None:
    """4096 tokens: ten blocks of 1024 for heads that fit; all that is summed is what their scores take."""
    of, one = machine(chip), attention(heads=8)
    chains = make_chains(of, one, 3)
    # Scores and probabilities of a head's block are 4 MiB; three chains share the die.
    heads = min(8, of.memory.die_bytes // (3 * 4 * 2**20))
    groups = -(-8 // heads)
    assert len(chains) == min(MOST_CHAINS, 10 * groups)
    assert total(chains, "merged") == 10 * groups
    scores = 8 * 10 * 1024 * 1024
    softmax = scores / 128 * of.tpc.fused_fast_softmax_cycles * 1e3 / of.tpc.clock_mhz / of.tpc.cores
    assert total(chains, "softmax_ns") == pytest.approx(softmax)
    assert total(chains, "die_bytes") == pytest.approx(4 * scores * 2)
    parts = 8 * 10 / heads
    for name, problem in (
        ("qk_ns", Gemm("bf16", "abt", 1024, 1024, 128, (heads,))),
        ("pv_ns", Gemm("bf16", "ab", 1024, 128, 1024, (heads,))),
    ):
        assert total(chains, name) == pytest.approx(parts * cost(of.mme, problem).hw_ns / of.gemm.efficiency)


@pytest.mark.parametrize(("query", "heads"), [(1536, 8), (4095, 7), (1025, 1)])
def test_work_is_that_of_the_scores_there_are(query: int, heads: int) -> None:
    """Last blocks and last groups of heads may be smaller than the others."""
    whole, odd = (make_chains(machine("gaudi3"), attention(q, heads=h), 3) for q, h in ((4096, 8), (query, heads)))
    scores = heads * count_scores(attention(query), 1024, 1024) / (8 * 10 * 1024 * 1024)
    assert total(odd, "softmax_ns") == pytest.approx(scores * total(whole, "softmax_ns"))
    assert total(odd, "die_bytes") == pytest.approx(scores * total(whole, "die_bytes"))


def test_more_chains_in_flight_leave_room_for_fewer_heads() -> None:
    by_flight = [make_chains(machine("gaudi2"), attention(heads=4), flight) for flight in (1, 2, 3, 100)]
    assert [total(chains, "merged") for chains in by_flight] == [10, 10, 20, 40]


def test_very_many_chains_are_put_together_without_losing_any() -> None:
    """65536 tokens have 2080 blocks for each of 4 groups; work and counts stay."""
    for chip in CHIPS:
        few = make_chains(machine(chip), attention(4096, heads=8), 3)
        many = make_chains(machine(chip), attention(65536, heads=8), 3)
        assert len(many) == MOST_CHAINS
        assert total(many, "merged") / total(few, "merged") == pytest.approx(2080 / 10)
        assert total(many, "softmax_ns") == pytest.approx(208 * total(few, "softmax_ns"))


def test_blocks_are_of_the_constants_size_and_short_prompts_are_one() -> None:
    def count(query: int, **values: int) -> int:
        of = machine("gaudi3", {f"compiler.{name}": value for name, value in values.items()})
        return len(make_chains(of, attention(query, heads=1), 3))

    assert count(4096) == 10
    assert count(4096, fused_block_tokens=2048) == 3
    assert count(1023) == 1
    assert count(4096, fused_block_from_tokens=8192) == 1
    assert len(make_chains(machine("gaudi3"), attention(1, 8192, heads=1), 3)) == 1, "a step of decode"


def test_masks_and_exact_softmaxes_cost_more() -> None:
    of = machine("gaudi2")
    base = total(make_chains(of, attention(), 3), "softmax_ns")
    exact = total(make_chains(of, attention(fast=False), 3), "softmax_ns")
    masked = total(make_chains(of, attention(masked=True), 3), "softmax_ns")
    assert exact / base == pytest.approx(of.tpc.fused_softmax_cycles / of.tpc.fused_fast_softmax_cycles)
    assert masked / base == pytest.approx(of.tpc.fused_mask_slowdown)
    assert of.tpc.fused_mask_slowdown > 1
    assert total(make_chains(of, attention(causal=False), 3), "softmax_ns") / base == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("split", "causal", "masked"),
    [(Split(fused_sdpa=True, masked_blocks="skip"), True, False), (Split(fused_sdpa=True), False, True)],
)
def test_sizes_are_read_off_the_op(split: Split, causal: bool, masked: bool) -> None:
    program = capture(workload(1, batch=2), split)
    kernel = next(one.kernel for one in program.ops if one.kernel.kind == "fused_attention")
    assert attention_of(kernel, True) == FusedAttention(16, 2048, 2048, 128, causal, masked, True, "bf16", 2)


def test_slices_before_the_diagonal_have_no_mask() -> None:
    """Half a prompt of 2048 tokens in slices of 512: two of the first half, and the masked diagonal."""
    program = capture(workload(1), Split(fused_sdpa=True, query_tile=1024, kv_tile=512, masked_blocks="skip"))
    kernels = [one.kernel for one in program.ops if one.kernel.kind == "fused_attention"]
    found = [attention_of(kernel, True)[1:6] for kernel in kernels]
    # (query, keys, head_dim, causal, masked); the first half sees nothing before its diagonal: one causal kernel.
    assert found == [
        (1024, 1024, 128, True, False),
        (1024, 512, 128, False, False),
        (1024, 512, 128, False, False),
        (1024, 1024, 128, False, True),
    ]


@pytest.mark.parametrize("chip", CHIPS)
def test_sliced_fused_attention_runs_on_the_model(chip: str) -> None:
    """It is bundled, costed and run like the whole one, and its masks and merges are not free."""
    whole, sliced = (
        compiled(capture(workload(1, query=4096), Split(fused_sdpa=True, masked_blocks="skip", **more)), chip).run()
        for more in ({}, {"query_tile": 2048, "kv_tile": 1024})
    )
    assert whole.time_ns < sliced.time_ns < 4 * whole.time_ns


@pytest.mark.parametrize("chip", CHIPS)
def test_a_causal_flag_beats_a_mask(chip: str) -> None:
    """It leaves out blocks, which an explicit mask does not."""
    times = [
        compiled(capture(workload(1, query=8192), Split(fused_sdpa=True, masked_blocks=blocks)), chip).run().time_ns
        for blocks in ("skip", "compute")
    ]
    assert times[0] < times[1]

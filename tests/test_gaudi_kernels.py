"""What one kernel costs, whole and in slices, and what kernels of real programs are taken for."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.capture import op
from overlap.devices.gaudi.kernels import CPU_PART, Costs, gemm_of, operands, sliced
from overlap.devices.gaudi.mme import Gemm, cost
from overlap.kernels.attention import batched_matmul
from overlap.kernels.capture import capture
from overlap.program import Engine, Kernel, Program
from overlap.split import Split
from tests.gaudi import CHIPS, FP32, Input, attention_program, engine_program, machine, mlp_program, recorded, workload
from tests.strategies import splits_of, workloads


def kernel_of(program: Program, name: str) -> Kernel:
    """The kernel of an op."""
    return next(one.kernel for one in program.ops if one.name.endswith(name))


def work_ns(costs: Costs, kernel: Kernel, slices: int) -> float:
    """Engine time of all slices."""
    return costs.of(kernel, kernel.work, kernel.engine, slices).work_ns * slices


def projections(bias: bool, turned: bool = False) -> Program:
    """One linear layer."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        x, weight = given("x", 640, 512), given("weight", 256, 512)
        with op("linear"):
            return {"y": torch.nn.functional.linear(x, weight, given("bias", 256) if bias else None)}

    def transposed(given: Input) -> dict[str, torch.Tensor]:
        x, weight = given("x", 512, 640), given("weight", 512, 256)
        with op("linear"):
            return {"y": x.t() @ weight}

    return recorded(transposed if turned else code)


def softmax_of(rows: int) -> Program:
    """A softmax over rows of 256."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        with op("softmax"):
            return {"y": given("x", rows, 256, dtype=FP32).softmax(-1)}

    return recorded(code)


def test_problems_are_read_off_the_shapes() -> None:
    plain, biased, turned = (
        kernel_of(one, "linear") for one in (projections(False), projections(True), projections(False, True))
    )
    assert gemm_of(plain.work[0]) == gemm_of(biased.work[0]) == Gemm("bf16", "abt", 640, 256, 512, (1,))
    assert gemm_of(turned.work[0]) == Gemm("bf16", "atb", 640, 256, 512, (1,))


def test_operands_of_a_product_into_given_memory() -> None:
    """Rows of a batch that one batched GEMM cannot take are written into a tensor, which is no operand."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        left, right = given("left", 2, 4, 96, 64)[:, :2], given("right", 2, 4, 64, 32)[:, :2]
        with op("product"):
            return {"y": batched_matmul(left, right)}

    work = kernel_of(recorded(code), "product").work
    assert len(work) == 2
    for call in work:
        assert gemm_of(call) == Gemm("bf16", "ab", 96, 32, 64, (2,))
        assert [one.size for one in operands(call)] == [(2, 96, 64), (2, 64, 32)]


def test_a_bias_is_not_what_is_sliced() -> None:
    """`addmm` is given it first; the rows that a bundle slices are those of the operand behind it."""
    program = projections(True)
    reads, _ = Costs(machine()).accesses(program.ops[0])
    roots = [program.roots[program.ops[0].refs[at].root].name for at, _ in reads]
    assert roots == ["x", "weight", "bias"]


@settings(max_examples=20)
@given(st.data())
def test_problems_have_the_flops_of_their_calls(data: st.DataObject) -> None:
    """For any split of any workload."""
    chosen = data.draw(workloads())
    for one in capture(chosen, data.draw(splits_of(chosen))).ops:
        if one.kernel.kind in ("gemm", "bgemm"):
            assert [2 * gemm_of(call).macs for call in one.kernel.work] == [call.flops for call in one.kernel.work]


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 128))
def test_slices_of_a_gemm_cover_it(m: int, batch: int, slices: int) -> None:
    """The largest slice, as often as there are slices, holds every row of every matrix, and little more."""
    whole = Gemm("bf16", "ab", m, 256, 128, (batch,))
    part = sliced(whole, slices)
    assert prod(part.batch) * part.m * slices >= m * batch
    assert prod(part.batch) <= batch
    assert part.m <= m
    assert sliced(whole, 1) == whole


def test_slices_take_matrices_first_and_then_rows() -> None:
    whole = Gemm("bf16", "ab", 2048, 256, 128, (8,))
    assert sliced(whole, 4) == whole._replace(batch=(2,))
    assert sliced(whole, 16) == whole._replace(batch=(1,), m=1024)
    assert sliced(whole._replace(batch=(6,)), 4) == whole._replace(batch=(2,))
    assert sliced(whole._replace(batch=(1,)), 4) == whole._replace(batch=(1,), m=512)


@pytest.mark.parametrize("chip", CHIPS)
def test_a_gemm_takes_its_cycles_at_what_is_reached_of_them(chip: str) -> None:
    of = machine(chip)
    kernel = kernel_of(mlp_program(), "first")
    alone = cost(of.mme, Gemm("bf16", "ab", 4096, 4096, 4096, (1,))).drained_ns
    found = Costs(of).of(kernel, kernel.work, Engine.MME, 1)
    assert found.work_ns == pytest.approx(alone / of.gemm.efficiency)
    assert found.fixed_ns == of.gemm.node_ns
    slower = Costs(machine(chip, {"gemm.efficiency": of.gemm.efficiency / 2}))
    assert slower.of(kernel, kernel.work, Engine.MME, 1).work_ns == pytest.approx(2 * found.work_ns)


@pytest.mark.parametrize("chip", CHIPS)
def test_a_roll_up_by_rows_is_no_dearer_than_the_whole_one(chip: str) -> None:
    kernel = kernel_of(attention_program(), "qk")
    drained = work_ns(Costs(machine(chip)), kernel, 1)
    assert drained <= work_ns(Costs(machine(chip, {"gemm.rollup_follows_rows": False})), kernel, 1)


def test_panels_show_as_reads_beyond_one() -> None:
    """4096³: one operand passes twice on Gaudi2, each once on Gaudi3."""
    kernel = kernel_of(mlp_program(), "first")
    reads = [Costs(machine(chip)).of(kernel, kernel.work, Engine.MME, 1).reads for chip in CHIPS]
    assert [sum(one) for one in reads] == [3.0, 2.0]


def test_slices_of_rows_share_the_other_operand() -> None:
    """It stays where it fits the die twice, else every slice reads it anew."""
    kernel = kernel_of(mlp_program(), "first")
    for die_mib, again in ((1000.0, 1.0), (48.0, 4.0)):
        costs = Costs(machine("gaudi3", {"memory.die_mib": die_mib, "memory.reuse_from": 0.9}))
        assert costs.of(kernel, kernel.work, Engine.MME, 4).reads[1] == again


def test_equal_slices_add_up_to_the_whole_where_they_divide() -> None:
    kernel = kernel_of(attention_program(), "qk")
    costs = Costs(machine())
    for slices in range(2, 20):
        if costs.divides(kernel, slices):
            cut = costs.of(kernel, kernel.work, Engine.MME, slices).work_ns * slices
            assert cut <= 1.15 * costs.of(kernel, kernel.work, Engine.MME, 1).work_ns


def test_dma_moves_bytes_at_its_own_rate() -> None:
    kernel = kernel_of(engine_program("dma"), "dma0")
    found = Costs(machine()).of(kernel, kernel.work, Engine.DMA, 1)
    assert found.work_ns == pytest.approx(2048 * 2048 * 2 / 970)
    assert found.fixed_ns == 300


def test_what_the_cpu_computes_crosses_pcie_both_ways() -> None:
    kernel = kernel_of(engine_program("tpc"), "tpc0")
    found = Costs(machine()).of(kernel, kernel.work, Engine.DMA, 1, CPU_PART)
    assert found.work_ns == pytest.approx(100_000 + 2 * 2048 * 2048 * 2 / 25)


def test_cuts_that_lose_no_tile_and_split_no_row() -> None:
    costs = Costs(machine())
    attention, chain = attention_program(heads=8, tokens=1024), mlp_program(rows=4096)
    tile = cost(machine().mme, gemm_of(kernel_of(chain, "first").work[0])).height
    assert costs.most_slices(kernel_of(chain, "first")) == 4096 // tile
    assert costs.most_slices(kernel_of(attention, "softmax")) == 8 * 1024
    assert costs.most_slices(kernel_of(attention, "qk")) >= 8
    assert costs.most_slices(kernel_of(mlp_program(rows=1), "first")) == 1
    fused = capture(workload(), Split(fused_sdpa=True))
    assert costs.most_slices(kernel_of(fused, "fused")) == 1


def test_costs_of_a_kernel_are_computed_once() -> None:
    costs, kernel = Costs(machine()), kernel_of(mlp_program(), "gelu")
    assert costs.of(kernel, kernel.work, Engine.TPC, 4) is costs.of(kernel, kernel.work, Engine.TPC, 4)


@pytest.mark.parametrize("chip", CHIPS)
def test_slices_of_vector_work_take_no_less_than_the_whole(chip: str) -> None:
    """The row that is left over by a cut that does not go up is somebody's: 97 rows in 4 are 25, not 24."""
    costs = Costs(machine(chip))
    for rows in range(1, 200):
        kernel = kernel_of(softmax_of(rows), "softmax")
        for slices in range(2, min(8, costs.most_slices(kernel)) + 1):
            assert work_ns(costs, kernel, slices) >= work_ns(costs, kernel, 1) * (1 - 1e-9), (rows, slices)


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 16), st.sampled_from(CHIPS))
def test_no_cut_of_a_gemm_takes_less_than_its_least(m: int, n: int, k: int, slices: int, chip: str) -> None:
    """A cut may find better tiles than the whole has; the bound is made of the least of all."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        with op("product"):
            return {"y": given("a", 128 * m, 128 * k) @ given("b", 128 * k, 128 * n)}

    costs, kernel = Costs(machine(chip)), kernel_of(recorded(code), "product")
    assert 0 < costs.least_ns(kernel) <= work_ns(costs, kernel, 1)
    if slices <= costs.most_slices(kernel) and costs.divides(kernel, slices):
        assert work_ns(costs, kernel, slices) >= costs.least_ns(kernel)

"""What a GEMM reads from memory (all of it once, a panel at a time, tile by tile), and caches near and far."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.devices.gaudi.memory import MemoryConstants, operand_reads, reuse
from overlap.devices.gaudi.mme import Gemm, cost
from tests.gaudi import CHIPS, machine

MIB = 2**20


WIDTHS = {"bf16": 2, "fp8": 1, "fp32": 4}


def read(chip: str, problem: Gemm, die_mib: float | None = None) -> float:
    """Bytes of both operands on a chip, perhaps with another die."""
    of = machine(chip)
    memory = of.memory if die_mib is None else replace(of.memory, die_mib=die_mib)
    a_reads, b_reads = operand_reads(memory, problem, cost(of.mme, problem))
    each = problem.m * problem.group * a_reads + problem.n * b_reads
    return each * problem.k * WIDTHS[problem.dtype] * problem.batch[0]


@pytest.mark.parametrize("chip", CHIPS)
def test_small_operands_are_read_once(chip: str) -> None:
    assert read(chip, Gemm("bf16", "ab", 1024, 1024, 1024)) == 2 * 2 * MIB
    assert read(chip, Gemm("fp8", "ab", 1024, 1024, 1024)) == 2 * MIB
    assert read(chip, Gemm("fp32", "ab", 1024, 2048, 512)) == (2 + 4) * MIB


def test_what_does_not_fit_half_a_die_is_read_in_panels() -> None:
    """4096³ in bf16: 32 MiB each. Half of Gaudi2's SRAM holds 23.8, so that the other operand passes twice."""
    cube = Gemm("bf16", "ab", 4096, 4096, 4096)
    assert read("gaudi2", cube) == (32 + 2 * 32) * MIB
    assert read("gaudi3", cube) == 2 * 32 * MIB, "half of Gaudi3's cache holds 48 MiB"


def test_the_cheaper_operand_stays() -> None:
    """A has 128 MiB, B 16: B stays and A passes once, whichever side it is on."""
    for m, n in ((16384, 2048), (2048, 16384)):
        assert read("gaudi2", Gemm("bf16", "ab", m, n, 4096)) == (128 + 16) * MIB


def test_a_very_large_common_dimension_streams_tile_by_tile() -> None:
    problem = Gemm("bf16", "ab", 2048, 2048, 65536)
    tile = cost(machine("gaudi2").mme, problem)
    assert 2 * (tile.height + tile.width) * 65536 * 2 > machine("gaudi2").memory.die_bytes
    operand = 2048 * 65536 * 2
    assert read("gaudi2", problem) == operand * ceil(2048 / tile.width) + operand * ceil(2048 / tile.height)


def test_a_batch_reads_every_matrix() -> None:
    assert read("gaudi2", Gemm("bf16", "ab", 1024, 1024, 1024, (6,))) == 6 * read(
        "gaudi2", Gemm("bf16", "ab", 1024, 1024, 1024)
    )


def test_a_group_shares_its_second_operand() -> None:
    """Four query heads' rows beside one KV head's keys."""
    assert read("gaudi2", Gemm("bf16", "ab", 256, 512, 128, (8,), 4)) == 8 * 2 * (4 * 256 * 128 + 512 * 128)


gemms = st.builds(
    lambda dtype, m, n, k, batch: Gemm(dtype, "ab", m, n, k, (batch,)),
    st.sampled_from(["bf16", "fp8", "fp32"]),
    st.integers(1, 30000),
    st.integers(1, 30000),
    st.integers(1, 100000),
    st.integers(1, 4),
)


@given(st.sampled_from(CHIPS), gemms)
def test_nothing_is_read_less_than_once(chip: str, problem: Gemm) -> None:
    once = (problem.m + problem.n) * problem.k * WIDTHS[problem.dtype] * problem.batch[0]
    assert read(chip, problem) >= once * 0.999999
    assert read(chip, problem, die_mib=10**7) == once


@given(st.sampled_from(CHIPS), gemms, st.integers(1, 200), st.integers(0, 200))
def test_a_larger_die_never_reads_more(chip: str, problem: Gemm, die_mib: int, more: int) -> None:
    assert read(chip, problem, die_mib + more) <= read(chip, problem, die_mib) * 1.000001


def test_operands_are_lost_little_by_little_as_tiles_outgrow_the_die() -> None:
    """No cliff: half a die of tiles keeps everything, a whole one nothing, and in between it is linear."""
    memory = memory_of("gaudi2")
    die = memory.die_bytes
    assert [reuse(memory, part * die // 8) for part in (1, 2, 3, 4, 8)] == pytest.approx([1, 1, 0.5, 0, 0], abs=1e-6)
    cache = memory_of("gaudi3")
    assert reuse(cache, cache.die_bytes // 2) == 1, "a cache holds operands once"
    assert reuse(cache, cache.die_bytes) == 0


def memory_of(chip: str) -> MemoryConstants:
    """The memory of a chip."""
    return machine(chip).memory


def test_what_programs_can_use() -> None:
    assert memory_of("gaudi2").die_bytes == 48 * MIB - 320 * 1024
    assert memory_of("gaudi3").die_bytes == 96 * MIB
    assert memory_of("gaudi2").hbm_bytes == 96 * 2**30
    assert memory_of("gaudi2").workspace_bytes == 1012 * MIB


def test_only_gaudi3_has_a_far_cache() -> None:
    """Beyond 24 MiB, L2 is about twice as fast as L3."""
    near, far = 24 * MIB, 25 * MIB
    assert memory_of("gaudi3").die_cost(near) == near
    assert memory_of("gaudi3").die_cost(far) == 2 * far
    assert memory_of("gaudi2").die_cost(far) == far
    assert replace(memory_of("gaudi3"), far_slowdown=1.0).die_cost(far) == far
    assert replace(memory_of("gaudi3"), near_mib=96.0).die_cost(far) == far


@given(st.sampled_from(CHIPS), st.integers(0, 10**9), st.integers(0, 10**9))
def test_more_bytes_never_cost_less(chip: str, few: int, more: int) -> None:
    assert memory_of(chip).die_cost(few + more) >= memory_of(chip).die_cost(few) >= few

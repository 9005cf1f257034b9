"""Where tensors are: spills, hits of a cache, memory that is used again, copies that vanish or move by DMA."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.capture import op
from overlap.devices.gaudi.plan import Plan
from overlap.kernels.capture import capture
from overlap.program import Engine, Program
from overlap.split import Split
from tests.gaudi import (
    CHIPS,
    Input,
    attention_program,
    compiled,
    engine_program,
    hbm_bytes,
    recorded,
    workload,
)
from tests.strategies import splits_of, workloads

MIB = 2**20


def die_bytes(plan: Plan, name: str) -> float:
    """Bytes that all nodes of an op move on the die."""
    ops = plan.program.ops
    return sum(node.die * node.alone_ns for node in plan.nodes if ops[plan.units[node.unit].op].name == name)


# -- spills ----------------------------------------------------------------------------------------------------------


def test_slices_that_fit_twice_stay_on_the_die() -> None:
    """Scores of 256 MiB never cross HBM on Gaudi3; on Gaudi2 the softmax's result does not, its input does."""
    scores = 32 * 2048 * 2048 * 2
    inside = compiled(attention_program(), "gaudi3")
    assert hbm_bytes(inside, "softmax") == 0
    assert die_bytes(inside, "softmax") == pytest.approx(2 * scores)
    half = compiled(attention_program(), "gaudi2")
    assert hbm_bytes(half, "softmax") == pytest.approx(scores)
    assert die_bytes(half, "softmax") == pytest.approx(scores)


@pytest.mark.parametrize("chip", CHIPS)
def test_a_slice_that_cannot_fit_spills(chip: str) -> None:
    """A die of 1 MiB holds no two of 128 slices of 2 MiB: everything between the GEMMs goes out and comes back."""
    scores, inputs = 32 * 2048 * 2048 * 2, 3 * 32 * 2048 * 128 * 2
    plan = compiled(attention_program(), chip, values={"memory.die_mib": 1, "memory.near_mib": 1})
    total = sum(hbm_bytes(plan, name) for name in ("qk", "softmax", "pv"))
    assert total >= 4 * scores + inputs
    assert sum(die_bytes(plan, name) for name in ("qk", "softmax", "pv")) == 0
    roomy = compiled(attention_program(), chip)
    assert total > 1.5 * sum(hbm_bytes(roomy, name) for name in ("qk", "softmax", "pv"))
    assert plan.run().time_ns > roomy.run().time_ns


@pytest.mark.parametrize(("tokens", "spills"), [(4096, False), (65536, True)])
def test_long_contexts_spill(tokens: int, spills: bool) -> None:
    """One head's scores of 65536 tokens are 8 GiB; no 128 slices of them fit 96 MiB twice."""
    plan = compiled(attention_program(heads=1, tokens=tokens), "gaudi3")
    assert (hbm_bytes(plan, "softmax") > 0) == spills


@pytest.mark.parametrize("chip", CHIPS)
def test_without_bundles_large_tensors_spill(chip: str) -> None:
    plan = compiled(attention_program(), chip, bundles=False)
    assert hbm_bytes(plan, "softmax") == pytest.approx(2 * 32 * 2048 * 2048 * 2)


# -- the cache of Gaudi3 ---------------------------------------------------------------------------------------------


def rereads(megabytes: int, between: int) -> Program:
    """A tensor that is made, then others, then it is read."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        x = given("x", megabytes, 512 * 1024)
        with op("make"):
            made = x.exp()
        others = {}
        for number in range(between):
            with op(f"other{number}"):
                others[f"o{number}"] = given(f"o{number}", 16, 512 * 1024).exp()
        with op("read"):
            return {"read": made.sum(-1), **others}

    return recorded(code)


@pytest.mark.parametrize(
    ("megabytes", "between", "hits"), [(16, 0, True), (16, 1, True), (16, 4, False), (60, 0, False)]
)
def test_a_cache_keeps_what_was_touched_last(megabytes: int, between: int, hits: bool) -> None:
    """96 MiB: a read hits unless more has passed since, or the tensor takes more than half of it."""
    plan = compiled(rereads(megabytes, between), "gaudi3")
    assert (hbm_bytes(plan, "read") < MIB * megabytes / 2) == hits
    assert (hbm_bytes(plan, "make") < MIB * megabytes * 1.5) == hits, "what is never read from HBM need not go there"
    larger = compiled(rereads(megabytes, between), "gaudi3", values={"memory.die_mib": 1000})
    assert hbm_bytes(larger, "read") < MIB * megabytes / 2


def test_sram_keeps_nothing_outside_of_a_bundle() -> None:
    plan = compiled(rereads(16, 0), "gaudi2")
    assert hbm_bytes(plan, "read") >= 16 * MIB
    assert hbm_bytes(plan, "make") == pytest.approx(2 * 16 * MIB)
    cache = compiled(rereads(16, 0), "gaudi2", values={"memory.die_is_cache": True})
    assert hbm_bytes(cache, "read") < MIB


def test_outputs_reach_memory_and_what_nobody_reads_is_not_written() -> None:
    def code(given: Input) -> dict[str, torch.Tensor]:
        x = given("x", 1024, 1024)
        with op("kept"):
            kept = x.exp()
        with op("last"):
            buffer = x.sqrt()
        with op("over"):
            # Reads what was there and leaves nothing that anybody wants.
            buffer.mul_(kept)
        return {"kept": kept}

    for chip in CHIPS:
        plan = compiled(recorded(code), chip)
        written = {plan.program.ops[unit.op].name: sum(nbytes for _, nbytes in unit.writes) for unit in plan.units}
        assert written == {"kept": 2 * MIB, "last": 2 * MIB, "over": 0}
        assert hbm_bytes(plan, "kept") == pytest.approx(4 * MIB), "one input, one output"


def test_the_far_cache_is_slower_than_the_near_one() -> None:
    """64 MiB between two vector ops is more than the 24 MiB beside a dcore: twice the time on the die."""
    program = rereads(40, 0)
    far = die_bytes(compiled(program, "gaudi3"), "read")
    near = die_bytes(compiled(program, "gaudi3", values={"memory.near_mib": 96}), "read")
    assert far == pytest.approx(2 * near)


def test_a_large_value_inside_an_op_spills_alone() -> None:
    """Without the fuser calls hand over through memory; what is too large for a cache drives no other value out."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        with op("small"):
            small = (given("x", 1024, 1024) * 2).exp()
        with op("large"):
            large = (given("y", 65536, 1024) * 2).exp()
        return {"small": small, "large": large}

    plan = compiled(recorded(code), "gaudi3", fuser=False)
    assert hbm_bytes(plan, "small") == pytest.approx(4 * MIB), "an input and an output"
    assert hbm_bytes(plan, "large") == pytest.approx(4 * 128 * MIB)
    assert hbm_bytes(compiled(recorded(code), "gaudi3"), "large") == pytest.approx(2 * 128 * MIB)


@settings(max_examples=25)
@given(st.data(), st.sampled_from(CHIPS), st.booleans())
def test_every_input_is_read_and_every_output_written(data: st.DataObject, chip: str, fuser: bool) -> None:
    """Bytes of HBM are never less than what must cross it, whatever is placed where."""
    chosen = data.draw(workloads())
    program = capture(chosen, data.draw(splits_of(chosen)))
    plan = compiled(program, chip, fuser=fuser)
    ends = {root for root, spec in enumerate(program.roots) if spec.name} | {
        ref.root for ref in program.outputs.values()
    }
    written = sum(nbytes for unit in plan.units for root, nbytes in unit.writes if root in ends)
    moved = sum(node.hbm * node.alone_ns for node in plan.nodes)
    assert moved >= written * (1 - 1e-9)
    for unit in plan.units:
        for root, nbytes in (*unit.reads, *unit.writes):
            assert root < 0 or 0 <= nbytes <= program.roots[root].bytes


def test_a_part_that_was_never_read_is_not_in_the_cache() -> None:
    def code(given: Input) -> dict[str, torch.Tensor]:
        x, weight, made = given("x", 16, 1024), given("weight", 4096, 1024), {}
        for number, part in enumerate(weight.split(1024)):
            with op(f"part{number}"):
                made[f"y{number}"] = x @ part.t()
        return made

    plan = compiled(recorded(code), "gaudi3")
    assert sum(hbm_bytes(plan, f"part{number}") for number in range(4)) >= 4096 * 1024 * 2


# -- copies ----------------------------------------------------------------------------------------------------------


def test_copies_move_by_dma_on_gaudi2_and_on_cores_on_gaudi3() -> None:
    for program, name in ((engine_program("dma"), "dma0"), (capture(workload(), Split()), "layer0.chunk0.qkv.write_v")):
        for chip, engine in (("gaudi2", Engine.DMA), ("gaudi3", Engine.TPC)):
            units = [unit for unit in compiled(program, chip).units if program.ops[unit.op].name == name]
            assert [unit.engine for unit in units] == [engine]


def merged(tokens: int) -> Program:
    """Heads of a product brought into token order."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        a, b = given("a", 8, tokens, 64), given("b", 8, 64, 64)
        target = a.new_empty(tokens, 8, 64)
        with op("product"):
            product = torch.bmm(a, b)
        with op("merge"):
            target.copy_(product.transpose(0, 1))
        with op("reader"):
            return {"y": target.exp()}

    return recorded(code)


@pytest.mark.parametrize("chip", CHIPS)
def test_copies_that_only_rename_are_nothing(chip: str) -> None:
    """[heads, 1, d] and [1, heads, d] are the same memory; with 2 tokens they are not."""
    names = lambda plan: [plan.program.ops[unit.op].name for unit in plan.units]  # noqa: E731
    one, two = compiled(merged(1), chip), compiled(merged(2), chip)
    assert names(one) == ["product", "reader"]
    assert names(two) == ["product", "merge", "reader"]
    assert one.units[1].needs == (0,), "the reader waits for what the copy waited for"
    assert one.run().time_ns < two.run().time_ns


@pytest.mark.parametrize("chip", CHIPS)
def test_what_a_renamed_tensor_is_read_from_is_where_it_was_written(chip: str) -> None:
    """A renaming moves no bytes: the reader finds on the die what the product left there."""
    plan = compiled(merged(1), chip)
    moved = hbm_bytes(plan, "reader")
    output = 8 * 64 * 2
    assert moved == pytest.approx(output)

"""When a reader may start: on the first part of what it reads on Gaudi2, behind all of it on Gaudi3."""

from __future__ import annotations

import pytest
import torch

from overlap.capture import op
from overlap.kernels.capture import capture
from overlap.program import Engine, Program
from overlap.split import Split
from tests.gaudi import Input, attention_program, bundled, compiled, mlp_program, recorded, spans, workload

WINDOW = capture(workload(), Split(chunks=2, masked_blocks="skip"))


def test_gaudi2_consumers_start_on_the_first_part() -> None:
    """An MME signals per part of its output, so a sliced reader begins before the last part is done."""
    program = attention_program()
    on, off = (spans(compiled(program, "gaudi2", roi_pipelining=switch)) for switch in (True, False))
    assert len(on["qk"]) == 3
    assert on["qk"][0][1] <= on["softmax"][0][0] < on["qk"][-1][1]
    assert off["softmax"][0][0] >= off["qk"][-1][1]
    assert len(off["qk"]) == 1
    assert max(end for _, end in on["pv"]) < max(end for _, end in off["pv"])


def test_the_signals_are_a_rule_of_the_chip() -> None:
    program = attention_program()
    once = spans(compiled(program, "gaudi2", values={"compiler.mme_signals_per_roi": False}))
    assert once["softmax"][0][0] >= once["qk"][-1][1]
    deeper = spans(compiled(program, "gaudi2", values={"compiler.roi_depth": 6}))
    assert len(deeper["qk"]) == 6
    assert deeper["softmax"][0][0] < spans(compiled(program, "gaudi2"))["softmax"][0][0]


@pytest.mark.parametrize("head_dim", [128, 4096])
def test_a_part_is_only_read_once_it_is_there(head_dim: int) -> None:
    """Slice i of a reader waits for the part that its rows lie in, not for an earlier one; also if it is fast."""
    found = spans(compiled(attention_program(heads=8, head_dim=head_dim), "gaudi2"))
    producers, readers = found["qk"], found["softmax"]
    for number, (start, _) in enumerate(readers):
        needed = -(-(number + 1) * len(producers) // len(readers)) - 1
        assert start >= producers[needed][1]


@pytest.mark.parametrize("program", [WINDOW, attention_program(), mlp_program(copies=2)])
@pytest.mark.parametrize("bundles", [True, False])
def test_gaudi3_consumers_never_start_early(program: Program, bundles: bool) -> None:
    """Whatever needs an MME's whole result, or its slice, starts after the end of just that."""
    plan = compiled(program, "gaudi3", bundles=bundles)
    run = plan.run()
    bundle_of = {number: at for at, one in enumerate(plan.bundles) for number in range(one.first, one.end)}
    nodes: dict[int, list[int]] = {}
    for node in plan.nodes:
        nodes.setdefault(node.unit, []).append(node.index)
    checked = 0
    for number, unit in enumerate(plan.units):
        for before in unit.needs:
            if plan.units[before].engine is not Engine.MME:
                continue
            same = bundle_of[before] == bundle_of[number]
            pairs = zip(nodes[number], nodes[before], strict=True) if same else [(nodes[number][0], nodes[before][-1])]
            for mine, theirs in pairs:
                assert run.start_ns[mine] > run.end_ns[theirs]
                checked += 1
    assert checked
    if not bundles:
        assert len(plan.nodes) == len(plan.units), "one node each, nothing is done in parts"


def two_bundles() -> Program:
    """A GEMM with its producer, and its reader with the GEMM that it produces for: slices on both sides of the edge."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        x, weight = given("x", 8192, 4096), given("weight", 4096, 4096)
        with op("before"):
            x = x.exp()
        with op("first"):
            x = x @ weight
        with op("reader"):
            y = x.sqrt()
        with op("second"):
            y = y @ weight
        with op("both"):
            return {"y": x + y}

    return recorded(code)


@pytest.mark.parametrize(
    ("chip", "switch", "early"), [("gaudi2", True, True), ("gaudi2", False, False), ("gaudi3", True, False)]
)
def test_slices_read_those_of_another_bundle_only_where_parts_signal(chip: str, switch: bool, early: bool) -> None:
    plan = compiled(two_bundles(), chip, roi_pipelining=switch)
    assert [members[:2] for members, _, _ in bundled(plan)] == [["before", "first"], ["reader", "second"]]
    found = spans(plan)
    assert (found["reader"][0][0] < found["first"][-1][1]) == early
    producers, readers = found["first"], found["reader"]
    for number, (start, _) in enumerate(readers):
        assert start >= producers[-(-(number + 1) * len(producers) // len(readers)) - 1][1]

"""Memory that is used again: who waits for whom, and how patience undoes it."""

from __future__ import annotations

import torch

from overlap.capture import op
from overlap.devices.gaudi.buffers import reuse_waits
from overlap.devices.gaudi.units import Unit
from overlap.program import Engine, Program
from tests.fakes import kernel
from tests.gaudi import Input, compiled, recorded, spans


def unit(reads: tuple[int, ...], writes: tuple[int, ...]) -> Unit:
    """A unit that touches roots of one byte."""
    pairs = (tuple((root, 1) for root in roots) for roots in (reads, writes))
    return Unit(0, Engine.TPC, kernel(Engine.TPC, "k"), (), "", (), *pairs, 0)


def test_the_next_tensor_waits_for_the_last_user_of_its_memory() -> None:
    """Root 1 dies in unit 1; with no delay the next tensor takes its memory over, with one the tensor after that."""
    units = [unit((0,), (1,)), unit((1,), (2,)), unit((2,), (3,)), unit((3,), (4,)), unit((4,), (5,))]
    sizes, kept = [1] * 6, {0, 5}
    assert reuse_waits(units, kept, sizes, 0) == [[], [], [1], [2], []]
    assert reuse_waits(units, kept, sizes, 1) == [[], [], [], [1], []]
    assert reuse_waits(units, kept, sizes, 5) == [[], [], [], [], []]


def test_memory_must_be_large_enough() -> None:
    units = [unit((0,), (1,)), unit((1,), (2,)), unit((2,), (3,))]
    assert reuse_waits(units, {0}, [1, 8, 1, 9], 0) == [[], [], []]
    assert reuse_waits(units, {0}, [1, 8, 1, 8], 0) == [[], [], [1]]


def branches(count: int) -> Program:
    """GEMMs whose results die in vector ops, beside each other: the next GEMM's result lies where an old one was."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        x, made = given("x", 2048, 2048), {}
        for number in range(count):
            with op(f"mme{number}"):
                y = x @ x
            with op(f"tpc{number}"):
                made[f"y{number}"] = y.exp().exp().exp().exp().sum(-1)
        return made

    return recorded(code)


def test_reuse_delays_and_more_kept_buffers_or_the_switch_undo_it() -> None:
    """TPC trails the MME, so that memory which is used again too soon stalls it: a memory bubble."""
    program = branches(12)
    times = {
        name: compiled(program, "gaudi2", bundles=False, **more).run().time_ns  # type: ignore[arg-type]
        for name, more in {
            "eager to reuse": {"values": {"compiler.kept_buffers": 1}},
            "default": {},
            "patient": {"values": {"compiler.kept_buffers": 100}},
            "off": {"reuse_buffers": False},
        }.items()
    }
    assert times["eager to reuse"] >= times["default"] >= times["patient"] == times["off"]
    starts = [spans(compiled(program, "gaudi2", bundles=False, values={"compiler.kept_buffers": n})) for n in (1, 100)]
    assert starts[0]["mme11"][0][0] > starts[1]["mme11"][0][0]

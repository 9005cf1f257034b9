"""Sums over the cards in captured programs, and the shapes that calls saw, which modelled devices need."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.capture import Recorder, op
from overlap.errors import ProgramError
from overlap.kernels import inputs as window_inputs
from overlap.kernels.capture import capture
from overlap.kernels.collective import all_reduce
from overlap.program import CallWork, Engine, Geometry
from overlap.split import Split
from overlap.workload import Workload
from tests.fakes import SMALL, run_program, small_workload
from tests.strategies import splits_of, workloads


def sharded(cards: int, **bucket: object) -> Workload:
    """A shard of the small model."""
    plain = small_workload(**bucket)
    return Workload(plain.model, plain.bucket, cards, plain.window_layers)


def sums(workload: Workload, split: Split) -> list[str]:
    """Names of the collectives of a program."""
    return [one.name for one in capture(workload, split).ops if one.engine is Engine.NIC]


@pytest.mark.parametrize("cards", [2, 4])
def test_every_row_parallel_layer_of_a_shard_is_summed_up(cards: int) -> None:
    """After the output projection and after the MLP, for every chunk of every layer."""
    split = Split(chunks=2, masked_blocks="skip")
    found = sums(sharded(cards), split)
    assert sorted(found) == sorted(
        f"layer{layer}.chunk{chunk}.{stage}.all_reduce"
        for layer in range(2)
        for chunk in range(2)
        for stage in ("out", "mlp")
    )
    assert sums(sharded(1), split) == []


def test_what_is_summed_is_between_the_product_and_its_reader() -> None:
    program = capture(sharded(2), Split())
    names = [one.name for one in program.ops]
    for stage, product in (("out", "out"), ("mlp", "down")):
        at, reader = (names.index(f"layer0.chunk0.{stage}.{name}") for name in ("all_reduce", "residual"))
        assert names.index(f"layer0.chunk0.{stage}.{product}") in program.predecessors[at]
        assert at in program.predecessors[reader]
    one = program.ops[names.index("layer0.chunk0.out.all_reduce")]
    assert one.kernel.kind == "all_reduce"
    assert one.kernel.calls[0].args[1] == 2
    assert [shape.size for shape in one.kernel.work[0].given] == [(1, 16, SMALL.hidden)]
    assert one.kernel.flops == 0


def test_a_sum_over_more_cards_is_another_kernel() -> None:
    """Equal shapes, unequal cost."""
    keys = set()
    for cards in (2, 4, 8):
        with Recorder() as recorder:
            x = recorder.input("x", (4, 4), torch.float32)
            with op("sum"):
                all_reduce(x, cards)
            keys.add(recorder.finish({"x": x}).ops[0].kernel.key)
    assert len(keys) == 3


def test_one_process_leaves_its_shard_as_it_is() -> None:
    x = torch.arange(4.0)
    assert all_reduce(x, 8) is None
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_shard_computes_the_same_with_and_without_its_sums() -> None:
    """Cards apart, a shard's program is the program of a model with a shard's shape."""
    workload = sharded(2)
    tensors = window_inputs.make(workload, 0)
    alone = Workload(workload.shard, workload.bucket, 1, workload.window_layers)
    found, expected = (
        run_program(program, range(len(program.ops)), {name: one.clone() for name, one in tensors.items()})
        for program in (capture(workload, Split()), capture(alone, Split()))
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_sum_is_no_part_of_another_op() -> None:
    """No engine could run both."""

    def record() -> None:
        with Recorder() as recorder:
            x = recorder.input("x", (4, 4), torch.float32)
            with op("both"):
                all_reduce(x, 2)
                y = x.exp()
            recorder.finish({"y": y})

    with pytest.raises(ProgramError, match=r"op both mixes matrix work \(all_reduce\) with vector work \(exp\)"):
        record()


# -- what calls saw --------------------------------------------------------------------------------------------------


def test_a_kernel_keeps_the_shapes_of_its_calls() -> None:
    """Size, stride and dtype of what each was given and made; allocations are no work."""
    with Recorder() as recorder:
        x = recorder.input("x", (4, 6), torch.bfloat16)
        w = recorder.input("w", (5, 6), torch.bfloat16)
        with op("mm"):
            y = x @ w.t()
        with op("soft"):
            target = torch.empty_like(y)
            target.copy_(y.float().softmax(-1))
        program = recorder.finish({"y": target})
    product, soft = (one.kernel.work for one in program.ops)
    dense = Geometry((4, 5), (5, 1), torch.bfloat16)
    assert product == (
        CallWork(
            "mm", (Geometry((4, 6), (6, 1), torch.bfloat16), Geometry((6, 5), (1, 6), torch.bfloat16)), (dense,), 240
        ),
    )
    assert [call.name for call in soft] == ["_to_copy", "_softmax", "copy_"]
    assert soft[0].given == (dense,)
    assert soft[0].made == soft[1].given == soft[1].made == (dense._replace(dtype=torch.float32),)
    assert soft[2].given == (dense, dense._replace(dtype=torch.float32))
    assert [call.elements for call in soft] == [20, 20, 20]


def test_strides_of_views_are_kept() -> None:
    """A slice of a cache is not dense, which a model must know."""
    with Recorder() as recorder:
        cache = recorder.input("cache", (2, 8, 4), torch.float32)
        with op("write"):
            cache[:, 2:4].copy_(recorder.input("new", (2, 2, 4), torch.float32))
        program = recorder.finish({"cache": cache})
    target, source = program.ops[0].kernel.work[0].given
    assert (target.size, target.stride) == ((2, 2, 4), (32, 4, 1))
    assert (source.size, source.stride) == ((2, 2, 4), (8, 4, 1))


@settings(max_examples=20)
@given(st.data())
def test_shapes_add_up_to_what_kernels_say_of_themselves(data: st.DataObject) -> None:
    """Flops and elements of a kernel are those of its calls; every tensor of a call is dense or a view of one."""
    workload = data.draw(workloads())
    for one in capture(workload, data.draw(splits_of(workload))).ops:
        work = one.kernel.work
        assert work
        assert one.kernel.flops == sum(call.flops for call in work)
        assert one.kernel.elements == sum(call.elements for call in work)
        assert (one.kernel.flops > 0) == (one.engine is Engine.MME)
        for shape in (shape for call in work for shape in (*call.given, *call.made)):
            assert len(shape.size) == len(shape.stride)

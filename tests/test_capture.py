"""Capture: what a recorder makes of kernel code, and that replaying it gives the same bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.capture import Recorder, op, piece, region
from overlap.capture.edges import box_of
from overlap.errors import ProgramError
from overlap.kernels import inputs as window_inputs
from overlap.kernels import stack
from overlap.kernels.capture import capture
from overlap.program import Engine, Op, Program, Ref, RootSpec
from overlap.split import Split, canonical
from tests.fakes import run_program, small_workload
from tests.strategies import splits_of, workloads


@piece
def double_then_project(x: torch.Tensor, w: torch.Tensor, name: str) -> torch.Tensor:
    """A vector op and a matrix op."""
    with op(name):
        y = x * 2 + 1
    with op("mm"):
        return y @ w


def record_two(second_name: str = "double") -> Program:
    """Two stamps of one piece on the halves of one input."""
    with Recorder() as recorder:
        x = recorder.input("x", (4, 8), torch.float32)
        w = recorder.input("w", (8, 8), torch.float32)
        with region("a", layer=3):
            first = double_then_project(x[:2], w, "double")
        with region("b", layer=4, chunk=1):
            second = double_then_project(x[2:], w, second_name)
        with op("add"):
            total = first + second
        return recorder.finish({"total": total})


def test_ops_have_names_places_engines_and_work() -> None:
    """Everything a reader of a program needs is there."""
    program = record_two()
    assert [one.name for one in program.ops] == ["a.double", "a.mm", "b.double", "b.mm", "add"]
    assert [one.engine for one in program.ops] == [Engine.TPC, Engine.MME, Engine.TPC, Engine.MME, Engine.TPC]
    assert program.ops[1].kernel.flops == 2 * 2 * 8 * 8
    assert program.ops[1].kernel.kind == "gemm"
    assert (program.ops[2].layer, program.ops[2].chunk) == (4, 1)
    assert program.predecessors == ((), (0,), (), (2,), (1, 3))
    assert program.ops[0].kernel.read_bytes == program.ops[0].kernel.write_bytes == 2 * 8 * 4


def test_equal_work_shares_a_kernel_whatever_its_place() -> None:
    """Halves of an input lie at different offsets and cost the same."""
    program = record_two()
    assert program.ops[0].kernel is program.ops[2].kernel
    assert program.ops[1].kernel is program.ops[3].kernel


def test_replay_gives_the_bits_of_the_eager_code() -> None:
    """The program is the code."""
    program = record_two()
    x, w = torch.randn(4, 8), torch.randn(8, 8)
    eager = double_then_project(x[:2], w, "double") + double_then_project(x[2:], w, "double")
    assert torch.equal(run_program(program, range(5), {"x": x, "w": w})["total"], eager)


def test_mixed_engines_are_refused() -> None:
    """No engine could run a GEMM and an exponential as one op."""
    with Recorder() as recorder:
        x = recorder.input("x", (4, 4), torch.float32)
        with op("both"):
            y = (x @ x).exp()
        with pytest.raises(ProgramError, match=r"op both mixes matrix work \(mm\).*vector work \(exp\)"):
            recorder.finish({"y": y})


def test_work_outside_any_op_is_refused() -> None:
    """Nothing may be computed without a name."""
    with Recorder() as recorder:
        x = recorder.input("x", (4, 4), torch.float32)
        with pytest.raises(ProgramError, match="outside any op"):
            _ = x + 1


def test_foreign_tensors_are_refused() -> None:
    """A captured program is complete: all it needs are its inputs."""
    stranger = torch.empty(4, 4, device="meta")
    with Recorder() as recorder:
        x = recorder.input("x", (4, 4), torch.float32)
        with pytest.raises(ProgramError, match="from outside of the capture"), op("add"):
            _ = x + stranger


def test_nothing_is_recorded_outside_a_recorder() -> None:
    """The same code runs on real tensors."""
    assert torch.equal(double_then_project(torch.ones(2, 2), torch.eye(2), "d"), torch.full((2, 2), 3.0))


def test_in_place_work_is_a_write_and_orders_readers() -> None:
    """RAW, WAR and WAW through one buffer."""
    with Recorder() as recorder:
        x = recorder.input("x", (4,), torch.float32)
        buffer = x.new_empty(4)
        with op("fill"):
            buffer.copy_(x)
        with op("read"):
            y = buffer + 1
        with op("again"):
            buffer.mul_(2)
        with op("last"):
            z = buffer + y
        program = recorder.finish({"z": z})
    assert program.predecessors == ((), (0,), (0, 1), (0, 1, 2))
    assert [len(one.writes) for one in program.ops] == [1, 0, 1, 0]
    assert [len(one.reads) for one in program.ops] == [1, 1, 1, 2]


def test_disjoint_rows_of_a_cache_are_independent() -> None:
    """Chunk 1 may write its rows while chunk 0 reads its own."""
    with Recorder() as recorder:
        x = recorder.input("x", (2, 3, 4), torch.float32)
        cache = recorder.input("cache", (2, 6, 4), torch.float32)
        with op("write0"):
            cache[:, :3].copy_(x)
        with op("read0"):
            a = cache[:, :3] + 0
        with op("write1"):
            cache[:, 3:].copy_(x)
        with op("read_all"):
            b = cache + 1
        program = recorder.finish({"a": a, "b": b})
    assert program.predecessors == ((), (0,), (), (0, 2))


def test_cached_pieces_change_nothing() -> None:
    """A program is the same whether its pieces were recorded just now or long ago."""
    workload, split = small_workload(), Split(chunks=4, query_tile=2, lag=1, masked_blocks="skip")
    assert capture(workload, split).fingerprint == capture(workload, split).fingerprint


@st.composite
def views(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """A contiguous root and a random view of it."""
    root = torch.arange(24 * draw(st.sampled_from([1, 2]))).view(-1, 2, 3, 4)
    view = root
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["slice", "transpose", "select", "flatten", "unflatten", "unsqueeze", "expand"]))
        dim = draw(st.integers(0, view.dim() - 1))
        if kind == "slice":
            begin = draw(st.integers(0, view.shape[dim] - 1))
            view = view.narrow(dim, begin, draw(st.integers(1, view.shape[dim] - begin)))
        elif kind == "transpose":
            view = view.transpose(dim, draw(st.integers(0, view.dim() - 1)))
        elif kind == "select" and view.dim() > 1:
            view = view.select(dim, draw(st.integers(0, view.shape[dim] - 1)))
        elif kind == "flatten" and view.is_contiguous() and dim + 1 < view.dim():
            view = view.flatten(dim, dim + 1)
        elif kind == "unflatten" and view.shape[dim] % 2 == 0:
            view = view.unflatten(dim, (2, -1))
        elif kind == "unsqueeze":
            view = view.unsqueeze(dim)
        elif kind == "expand" and view.shape[dim] == 1:
            view = view.expand([3 if i == dim else size for i, size in enumerate(view.shape)])
    return root, view


@given(views())
def test_boxes_hold_every_element_of_a_view(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """A box may be too large, never too small."""
    root, view = pair
    ref = Ref(0, (), tuple(view.shape), view.stride(), view.storage_offset(), view.dtype)
    box = box_of(ref, RootSpec(tuple(root.shape), root.stride(), root.dtype, 0))
    inside = root[tuple(slice(begin, end) for begin, end in box)]
    assert set(view.flatten().tolist()) <= set(inside.flatten().tolist())


@given(st.integers(0, 5), st.integers(1, 6), st.integers(0, 1))
def test_boxes_of_slices_are_exact(begin: int, length: int, head: int) -> None:
    """The refs that kernels use (slices, transposes, splits of heads) get exact boxes, so chunks stay independent."""
    root = torch.arange(2 * 2 * 6 * 4).view(2, 2, 6, 4)
    length = min(length, 6 - begin)
    view = root[:, head : head + 1, begin : begin + length].transpose(1, 2).unflatten(-1, (2, 2))
    ref = Ref(0, (), tuple(view.shape), view.stride(), view.storage_offset(), view.dtype)
    assert box_of(ref, RootSpec((2, 2, 6, 4), root.stride(), root.dtype, 0)) == (
        (0, 2),
        (head, head + 1),
        (begin, begin + length),
        (0, 4),
    )


def elements(program: Program, one: Op, positions: tuple[int, ...]) -> set[tuple[int, int]]:
    """(root, element) pairs that refs of an op cover, by brute force."""
    found = set()
    for position in positions:
        ref = one.refs[position]
        spec = program.roots[ref.root]
        count = torch.Size(spec.shape).numel()
        covered = torch.arange(count).as_strided(ref.size, ref.stride, ref.offset).flatten().tolist()
        found |= {(ref.root, element) for element in covered}
    return found


def all_before(program: Program) -> list[set[int]]:
    """Transitive predecessors."""
    before: list[set[int]] = []
    for direct in program.predecessors:
        before.append(set(direct).union(*(before[one] for one in direct)))
    return before


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_edges_order_every_conflict(data: st.DataObject) -> None:
    """Two ops that touch the same element, one of them writing, are never unordered."""
    workload = data.draw(workloads(most_query=8))
    program = capture(workload, canonical(data.draw(splits_of(workload)), workload))
    before = all_before(program)
    writes = [elements(program, one, one.writes) for one in program.ops]
    reads = [elements(program, one, one.reads) for one in program.ops]
    created = {root: index for index, one in enumerate(program.ops) for root in one.outputs}
    for late, one in enumerate(program.ops):
        for ref in one.refs:
            if ref.root in created and created[ref.root] != late:
                assert created[ref.root] in before[late]
        for early in range(late):
            if writes[early] & (reads[late] | writes[late]) or reads[early] & writes[late]:
                assert early in before[late], (program.ops[early].name, one.name)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_replay_equals_eager_for_any_split(data: st.DataObject) -> None:
    """Capture and replay of the real kernels is bitwise the same as running their code."""
    workload = data.draw(workloads(most_query=8))
    split = data.draw(splits_of(workload))
    tensors = window_inputs.make(workload, seed=1)
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    inputs = window_inputs.assemble(workload, lambda name, _: copies[name])
    eager = stack.run(inputs, workload, split)
    program = capture(workload, split)
    found = run_program(program, range(len(program.ops)), tensors)
    assert torch.equal(found["hidden"], eager)
    assert torch.equal(found["layer0.key_cache"], copies["layer0.key_cache"])

"""The device: what it answers to the protocol, what it says of itself, what it refuses."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest
import torch

from overlap.analysis.partition import partition
from overlap.capture import op
from overlap.devices.base import StackRun
from overlap.devices.config import DeviceConfig
from overlap.devices.gaudi.capacity import model_bytes
from overlap.devices.gaudi.machine import MODEL, VERSION
from overlap.devices.gaudi.report import unknown_times
from overlap.devices.registry import available, open_device
from overlap.errors import DeviceError, MemoryLimitError, ProgramError
from overlap.kernels import inputs as window_inputs
from overlap.kernels.capture import capture
from overlap.program import Program
from overlap.split import Split
from overlap.traces.chrome import TraceInfo, write_chrome
from overlap.traces.read import read_trace
from overlap.traces.schema import EVENTS
from overlap.workload import Bucket, ModelShape, Workload
from tests.fakes import random_order, run_program, small_workload
from tests.gaudi import CHIPS, Input, attention_program, device, recorded, spans, workload
from tests.gaudi import MODEL as MID

SPLITS = (
    Split(),
    Split(chunks=4, lag=1, masked_blocks="skip"),
    Split(chunks=2, query_tile=256, kv_tile=512, masked_blocks="skip", normalise="after"),
    Split(chunks=2, layers_per_graph=1, masked_blocks="skip", projections="split", head_groups=2),
    Split(fused_sdpa=True, masked_blocks="skip", layers_per_graph=1),
)
LLAMA_70B = ModelShape("llama-70b", 8192, 64, 8, 128, 28672, 80)


def straight(program: Program) -> range:
    """Program order."""
    return range(len(program.ops))


# -- what it says of itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chip", CHIPS)
def test_it_says_that_it_is_a_model(chip: str) -> None:
    info = open_device(DeviceConfig(kind=chip)).info
    assert (info.kind, info.evidence, info.computes) == (chip, "simulated", False)
    assert f"{MODEL} {VERSION}" in info.name
    assert info.software["model"] == f"{MODEL} {VERSION}"
    assert info.software["mode"] == "hpu_graph"
    assert info.memory_bytes == {"gaudi2": 96, "gaudi3": 128}[chip] * 2**30 - 1012 * 2**20
    assert chip in {one.kind for one in available() if "simulated" in one.detail}


def test_switches_are_part_of_what_it_is() -> None:
    """So that runs with different switches are never taken for the same device."""
    plain, switched = device().info, device(fuser=False, constants={"mme.clock_mhz": 1700}).info
    assert plain != switched
    assert switched.software["gaudi.fuser"] == "False"
    assert "1700" in switched.software["gaudi.constants"]
    assert device(mode="lazy").info.software["mode"] == "lazy"


# -- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_it_answers_the_protocol(chip: str, split: Split) -> None:
    one, program = device(chip), capture(workload(), split)
    runnable = one.prepare(program, straight(program), {})
    time_ns, *others = runnable.time(3)
    assert others == [time_ns] * 2
    assert one.predict_ns(program, straight(program)) == time_ns
    assert one.prepare(program, straight(program), {}, serial=True).time(1)[0] > time_ns
    assert runnable.peak_bytes == program.peak_bytes()
    assert runnable.gates()["memory"].passed
    times = one.op_times(program, 1)
    assert times.keys() == {node.kernel.key for node in program.ops}
    assert all(isinstance(ns, int) and ns > 0 for ns in times.values())
    assert one.op_times(program, 1, known=times) == {}
    one.close()


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_its_events_are_a_table_whose_parts_sum_up(chip: str, split: Split) -> None:
    program = capture(workload(), split)
    runnable = device(chip).prepare(program, straight(program), {})
    events = runnable.profile()
    assert events.schema == EVENTS
    found = partition(events)
    assert sum(found.parts_ns.values()) == found.window_ns == events["end_ns"].max() - events["start_ns"].min()
    assert events["end_ns"].max() == runnable.time(1)[0]
    assert set(events["engine"]) <= {"MME", "TPC", "DMA"}
    assert (events["end_ns"] >= events["start_ns"]).all()
    for lane in events.partition_by("lane"):
        ordered = lane.sort("start_ns")
        assert (ordered["start_ns"][1:] >= ordered["end_ns"][:-1]).all()
    for row in events.iter_rows(named=True):
        node = program.ops[row["op_id"]]
        assert row["name"].startswith(node.name)
        assert (row["layer"], row["chunk"], row["kind"]) == (node.layer, node.chunk, node.kernel.kind)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_flops_of_nodes_are_those_of_their_op(chip: str, split: Split) -> None:
    """Slices share them, and so do the two GEMMs of a fused attention: no peak is exceeded in a roofline."""
    program = capture(workload(), split)
    events = device(chip).prepare(program, straight(program), {}).profile()
    flops = dict(events.group_by("op_id").agg(pl.col("flops").sum()).iter_rows())
    for index, node in enumerate(program.ops):
        assert node.kernel.flops * 0.999 - 200 <= flops.get(index, 0) <= node.kernel.flops


def test_the_same_input_gives_the_same_file(tmp_path: Path) -> None:
    """Byte for byte, from devices and captures of their own; another split gives another file."""

    def trace(name: str, split: Split) -> bytes:
        program = capture(workload(), split)
        events = device("gaudi3").prepare(program, straight(program), {}).profile()
        path = write_chrome(events, tmp_path / f"{name}.pt.trace.json.gz", TraceInfo("gaudi3", "simulated"))
        assert read_trace(path).events["name"].to_list() == events.sort("start_ns", "name")["name"].to_list()
        return path.read_bytes()

    assert trace("a", SPLITS[1]) == trace("b", SPLITS[1]) != trace("c", SPLITS[2])


def test_orders_are_taken_and_refused_as_by_any_device() -> None:
    program = capture(workload(), SPLITS[1])
    one = device("gaudi3")
    rng = random.Random(0)
    times = {one.predict_ns(program, random_order(program, rng)) for _ in range(4)}
    assert len(times) > 1, "an order makes a difference"
    with pytest.raises(ProgramError, match="order puts"):
        one.predict_ns(program, list(reversed(straight(program))))


@pytest.mark.parametrize("chip", CHIPS)
def test_constants_of_the_config_are_used(chip: str) -> None:
    program = attention_program()
    base = device(chip).predict_ns(program, straight(program))
    for name, value, slower in (
        ("mme.clock_mhz", 800, True),
        ("tpc.clock_mhz", 900, True),
        ("tpc.exp_cycles", 60, True),
        ("memory.hbm_gb_per_s", 500, True),
        ("tpc.cores", 128, False),
        ("gemm.efficiency", 0.5, True),
        ("compiler.sync_to_tpc_ns", 60000, True),
    ):
        found = device(chip, constants={name: value}).predict_ns(program, straight(program))
        assert found != base, name
        assert (found > base) == slower, name


def test_the_stack_is_its_program_in_its_own_order() -> None:
    program = capture(workload(), Split(fused_sdpa=True, masked_blocks="skip", layers_per_graph=1))
    one = device("gaudi2")

    def never() -> object:
        raise AssertionError("a model computes nothing")

    assert one.time_stack(StackRun(never, lambda: program, dict), 3) == [one.predict_ns(program, straight(program))] * 3


# -- refusals --------------------------------------------------------------------------------------------------------


def test_a_model_that_does_not_fit_is_refused_with_what_would() -> None:
    chosen = Workload(LLAMA_70B, Bucket(query=2048))
    need, limit = model_bytes(chosen), device("gaudi2").info.memory_bytes
    assert need > 2 * 68e9
    with pytest.raises(MemoryLimitError) as raised:
        device("gaudi2").require(chosen)
    for word in (f"needs {need:,} bytes", f"gaudi2 has {limit:,}", "workload.tensor_parallel=2 would fit"):
        assert word in str(raised.value)
    device("gaudi2").require(Workload(LLAMA_70B, Bucket(query=2048), 2))
    with pytest.raises(MemoryLimitError, match="tensor_parallel=4 would fit"):
        device("gaudi2").require(Workload(LLAMA_70B, Bucket("decode", 256, 1, 2048), 1))
    with pytest.raises(MemoryLimitError, match="no tensor_parallel up to 8 would do"):
        device("gaudi3").require(Workload(MID, Bucket("decode", 2**20, 1, 2**16)))


def test_needs_by_hand() -> None:
    """Weights and norms of 4 layers, K and V of every token of every sequence, and activations of one step; bf16."""
    chosen = Workload(MID, Bucket("decode", 16, 1, 999))
    layer = 1024 * (2 * 8 * 128 + 2 * 2 * 128) + 3 * 1024 * 2816 + 2 * 1024
    assert model_bytes(chosen) == 2 * (4 * (layer + 16 * 1000 * 2 * 2 * 128) + 16 * (2 * 1024 + 2 * 2816))


def test_needs_fall_with_cards_and_rise_with_context() -> None:
    few, many = (model_bytes(Workload(LLAMA_70B, Bucket(query=2048), cards)) for cards in (2, 8))
    assert many < few < model_bytes(Workload(LLAMA_70B, Bucket(query=2048, context=32768), 2))


def test_a_window_that_does_not_fit_is_refused_before_it_is_compiled() -> None:
    huge = capture(Workload(MID, Bucket(query=32768, batch=64), 1, 1), Split())
    with pytest.raises(MemoryLimitError) as raised:
        device("gaudi3").prepare(huge, straight(huge), {})
    need = huge.input_bytes() + huge.peak_bytes()
    for word in (f"{need:,} bytes", f"gaudi3 has {device('gaudi3').info.memory_bytes:,}"):
        assert word in str(raised.value)


def odd(rows: int) -> Program:
    """A GEMM beside a call that nobody has a cost for."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        x = given("x", 8192, 8192)
        with op("product"):
            product = x @ x
        with op("odd"):
            return {"y": product, "odd": given("y", rows, 64).cumsum(-1).mul(2)}

    return recorded(code)


def test_a_call_without_a_cost_is_named_with_its_fallback_and_share() -> None:
    with pytest.raises(DeviceError) as raised:
        device().prepare(odd(10**6), range(2), {})
    text = str(raised.value)
    for word in ("no cost for cumsum", "8 cycles per vector", "% of the time", "allow_unknown=true"):
        assert word in text
    assert "mul" not in text


@pytest.mark.parametrize(("rows", "allowed"), [(10, False), (10**6, True)])
def test_a_call_without_a_cost_is_named_where_it_is_let_pass(
    rows: int, allowed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    device(allow_unknown=allowed).prepare(odd(rows), range(2), {})
    for word in ("no cost for cumsum", "8 cycles per vector", "% of the time"):
        assert word in caplog.text


def test_what_to_do_about_it() -> None:
    """Allow it, let the CPU do it, or have little of it."""
    ends = []
    for cycles in (8, 600):
        allowed = device(allow_unknown=True, constants={"tpc.unknown_cycles": cycles})
        ends.append(spans(allowed.prepare(odd(10**6), range(2), {}).plan)["odd"][0][1])
    assert ends[0] < ends[1]
    device(cpu_ops=["cumsum"]).prepare(odd(10**6), range(2), {})
    device().prepare(odd(10), range(2), {})


def test_only_nodes_that_hold_the_call_count_as_unknown() -> None:
    """Without the fuser the calls around it are nodes of their own, with costs."""
    program = odd(10**6)
    known = {program.ops[1].kernel.key: ("cumsum",)}
    apart, whole = (
        device(fuser=switch, allow_unknown=True).prepare(program, range(2), {}).plan for switch in (False, True)
    )
    assert 0 < unknown_times(apart, known)["cumsum"] < sum(node.alone_ns for node in apart.nodes[1:])
    assert unknown_times(whole, known)["cumsum"] == whole.nodes[-1].alone_ns
    cpu = device(cpu_ops=["cumsum"]).prepare(program, range(2), {}).plan
    assert unknown_times(cpu, known) == {}


# -- values ----------------------------------------------------------------------------------------------------------


def test_outputs_are_those_of_a_plain_run_in_any_order() -> None:
    chosen = small_workload(context=4)
    program = capture(chosen, Split(chunks=4, lag=1, masked_blocks="skip"))
    tensors = window_inputs.make(chosen, 0)
    expected = run_program(program, straight(program), {name: one.clone() for name, one in tensors.items()})
    found = device().prepare(program, random_order(program, random.Random(1)), tensors).outputs()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_memory_that_nobody_writes_shows_in_the_outputs() -> None:
    """Poisoned before the run: buffers and what the program should overwrite."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        x, cache = given("x", 2, 4), given("cache", 2, 4)
        buffer = x.new_empty(2, 4)
        with op("half"):
            buffer[:1].copy_(x[:1])
            cache[1:].copy_(x[1:])
        return {"buffer": buffer, "cache": cache}

    ones, zeros = torch.ones(2, 4, dtype=torch.bfloat16), torch.zeros(2, 4, dtype=torch.bfloat16)
    found = device().prepare(recorded(code), range(1), {"x": ones, "cache": zeros}).outputs()
    assert found["buffer"].tolist() == [[1.0] * 4, [100.0] * 4]
    assert found["cache"].tolist() == [[0.0] * 4, [1.0] * 4]


def test_values_without_inputs_are_refused() -> None:
    program = capture(small_workload(), Split())
    with pytest.raises(DeviceError, match=r"input .* is missing \(prepare it with tensors\)"):
        device().prepare(program, straight(program), {}).outputs()

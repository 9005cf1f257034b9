"""The host device: same bits whatever the interleaving, errors that name their op, memory that is given back."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.capture import Recorder, op
from overlap.devices.base import StackRun
from overlap.devices.config import DeviceConfig
from overlap.devices.host.device import HostDevice
from overlap.devices.host.plan import QUEUES, make_plan
from overlap.devices.host.run import POISON
from overlap.devices.host.workers import share_cores
from overlap.errors import DeviceError, MemoryLimitError, OpFailedError, ProgramError
from overlap.kernels import inputs as window_inputs
from overlap.kernels.capture import capture
from overlap.program import Program
from overlap.search.order import find_order
from overlap.search.orders.problem import Problem
from overlap.split import Split
from tests.fakes import program_of, random_order, random_program, run_program, small_workload


@torch.library.custom_op("overlap_test::boom", mutates_args=())
def boom(x: torch.Tensor) -> torch.Tensor:
    """Fails when it runs, not when it is captured."""
    raise ValueError("boom\nsecond line")


@boom.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


WOKEN, RISEN = threading.Event(), threading.Event()


@torch.library.custom_op("overlap_test::nap", mutates_args=())
def nap(x: torch.Tensor) -> torch.Tensor:
    """Sleeps until somebody wakes it, or long after every test has failed."""
    WOKEN.wait(20.0)
    RISEN.set()
    return x.clone()


@nap.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@pytest.fixture(scope="module")
def device() -> Iterator[HostDevice]:
    """One device for the whole file."""
    made = HostDevice(DeviceConfig())
    yield made
    made.close()


def ping_pong(middle: str = "exp") -> Program:
    """TPC → MME → TPC."""
    with Recorder() as recorder:
        x = recorder.input("x", (4, 4), torch.float32)
        with op("before"):
            y = x + 1
        with op("middle"):
            z = {"exp": torch.mm, "boom": lambda a, b: boom(a), "nap": lambda a, b: nap(a)}[middle](y, y)
        with op("after"):
            z = z * 2
        return recorder.finish({"z": z})


SPLITS = (
    Split(),
    Split(chunks=4, lag=1, masked_blocks="skip"),
    Split(chunks=2, query_tile=4, kv_tile=6, masked_blocks="skip", normalise="after"),
    Split(chunks=2, layers_per_graph=1, masked_blocks="skip", projections="split", head_groups=2),
)


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_any_interleaving_gives_the_same_bits(device: HostDevice, split: Split) -> None:
    """Random orders, serial or not, many times: always the bits of a run op by op."""
    workload = small_workload(context=4)
    program = capture(workload, split)
    tensors = window_inputs.make(workload, 3)
    expected = run_program(program, range(len(program.ops)), {k: v.clone() for k, v in tensors.items()})
    rng = random.Random(0)
    for serial in (False, True):
        for _ in range(6):
            runnable = device.prepare(program, random_order(program, rng), tensors, serial=serial)
            for _ in range(3):
                found = runnable.outputs()
                assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_bf16_bits_do_not_depend_on_the_order(device: HostDevice) -> None:
    """The dtype that serves; list order against program order."""
    from dataclasses import replace

    workload = small_workload()
    workload = replace(workload, model=replace(workload.model, dtype="bfloat16"))
    program = capture(workload, SPLITS[1])
    tensors = window_inputs.make(workload, 0)
    orders = [list(range(len(program.ops))), find_order(program, "list", Problem.of(program, [100] * len(program.ops)))]
    first, second = (device.prepare(program, order, tensors).outputs() for order in orders)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_memory_that_nobody_writes_shows_in_the_outputs(device: HostDevice) -> None:
    """A variant that forgets half of its output may not pass on what an earlier run left in the pool."""
    with Recorder() as recorder:
        x = recorder.input("x", (2, 4), torch.float32)
        cache = recorder.input("cache", (2, 4), torch.float32)
        buffer = x.new_empty(2, 4)
        with op("half"):
            buffer[:1].copy_(x[:1])
            cache[1:].copy_(x[1:])
        program = recorder.finish({"buffer": buffer, "cache": cache})
    found = device.prepare(program, range(1), {"x": torch.ones(2, 4), "cache": torch.zeros(2, 4)}).outputs()
    assert found["buffer"].tolist() == [[1.0] * 4, [POISON] * 4]
    assert found["cache"].tolist() == [[0.0] * 4, [1.0] * 4]


def test_a_failing_op_is_named_and_the_device_lives_on(device: HostDevice) -> None:
    """One bad candidate costs only itself."""
    runnable = device.prepare(ping_pong("boom"), range(3), {"x": torch.ones(4, 4)})
    for _ in range(3):
        with pytest.raises(OpFailedError, match=r"^op middle failed: boom \("):
            runnable.time(1)
    assert len(device.prepare(ping_pong(), range(3), {"x": torch.ones(4, 4)}).time(2)) == 2


def test_nothing_moving_is_reported_with_the_op_that_waits() -> None:
    """A queue that gets nowhere ends in a message, not in a hang."""
    slow = HostDevice(DeviceConfig(timeout_s=0.2))
    try:
        runnable = slow.prepare(ping_pong("nap"), range(3), {"x": torch.ones(4, 4)})
        with pytest.raises(OpFailedError, match=r"did not end within 0\.2 s\. MME queue: .*TPC queue: middle"):
            runnable.time(1)
        assert not RISEN.is_set(), "the error came while the op was still asleep"
    finally:
        WOKEN.set()
        slow.close()


def test_orders_that_are_not_topological_are_refused(device: HostDevice) -> None:
    """Deadlock is impossible by construction: such an order never reaches the queues."""
    with pytest.raises(ProgramError, match="order puts middle before before"):
        device.prepare(ping_pong(), [1, 0, 2], {"x": torch.ones(4, 4)})
    with pytest.raises(ProgramError, match="every op once"):
        device.prepare(ping_pong(), [0, 1], {"x": torch.ones(4, 4)})


def test_missing_inputs_and_too_little_memory_are_refused(device: HostDevice) -> None:
    """Before anything runs."""
    with pytest.raises(DeviceError, match="input x"):
        device.prepare(ping_pong(), range(3), {})
    tiny = HostDevice(DeviceConfig(memory_fraction=1e-9))
    try:
        with pytest.raises(MemoryLimitError, match="needs"):
            tiny.prepare(ping_pong(), range(3), {"x": torch.ones(4, 4)})
    finally:
        tiny.close()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_plans_never_deadlock_and_keep_every_edge(seed: int, serial: bool) -> None:
    """Play the queues step by step with only the planned waits: all ops finish, in an order that respects all edges."""
    rng = random.Random(seed)
    program = random_program(rng)
    plan = make_plan(program, random_order(program, rng), serial)
    heads, done = [0] * len(QUEUES), set()
    while len(done) < len(program.ops):
        able = [
            q
            for q, queue in enumerate(plan.queues)
            if heads[q] < len(queue) and done.issuperset(plan.waits[queue[heads[q]]])
        ]
        assert able, "deadlock"
        # The slowest interleaving for a forgotten wait: always advance the queue that is furthest ahead.
        chosen = max(able, key=lambda q: heads[q])
        op_index = plan.queues[chosen][heads[chosen]]
        assert done.issuperset(program.predecessors[op_index])
        if serial and done:
            position = plan.order.index(op_index)
            assert done == set(plan.order[:position])
        earlier = {i for i, node in enumerate(program.ops) if node.graph < program.ops[op_index].graph}
        assert done.issuperset(earlier)
        done.add(op_index)
        heads[chosen] += 1


def test_memory_is_freed_after_the_last_reader(device: HostDevice) -> None:
    """One queue at a time, live bytes are exactly what the static count says."""
    workload = small_workload()
    for split in SPLITS:
        program = capture(workload, split)
        tensors = window_inputs.make(workload, 0)
        runnable = device.prepare(program, range(len(program.ops)), tensors, serial=True)
        assert runnable.peak_bytes == program.peak_bytes()
    assert capture(workload, SPLITS[1]).peak_bytes() < capture(workload, SPLITS[0]).peak_bytes()


def test_profiles_have_one_event_per_op_on_the_right_lane(device: HostDevice) -> None:
    """Stamps in ns, in-order per lane, no op before what it needs."""
    workload = small_workload()
    program = capture(workload, SPLITS[1])
    events = device.prepare(program, range(len(program.ops)), window_inputs.make(workload, 0)).profile()
    assert events.height == len(program.ops)
    assert events["start_ns"].min() == 0
    assert (events["end_ns"] >= events["start_ns"]).all()
    rows = {row["op_id"]: row for row in events.iter_rows(named=True)}
    for index, before in enumerate(program.predecessors):
        assert rows[index]["engine"] == program.ops[index].engine.value
        assert all(rows[index]["start_ns"] >= rows[one]["end_ns"] for one in before)
    for lane in events.partition_by("lane"):
        ordered = lane.sort("start_ns")
        assert (ordered["start_ns"][1:] >= ordered["end_ns"][:-1]).all()


def test_op_times_cover_every_kernel_and_skip_known_ones(device: HostDevice) -> None:
    """One time per distinct kernel."""
    program = capture(small_workload(), SPLITS[1])
    times = device.op_times(program, 1)
    assert times.keys() == {one.kernel.key for one in program.ops}
    assert all(ns > 0 for ns in times.values())
    assert device.op_times(program, 1, known=times) == {}


def test_stack_uses_all_cores_and_restores_the_thread_count(device: HostDevice) -> None:
    """The comparison may not change the machine for what comes after it."""
    before, seen = torch.get_num_threads(), []
    stack = StackRun(lambda: seen.append(torch.get_num_threads()), lambda: program_of([], []), dict)
    assert len(device.time_stack(stack, 2)) == 2
    assert seen == [sum(share.threads for share in share_cores(None, None, True))] * 2
    assert torch.get_num_threads() == before


@given(st.one_of(st.none(), st.integers(1, 9)), st.one_of(st.none(), st.integers(1, 9)), st.booleans())
def test_core_shares_never_overlap(mme: int | None, tpc: int | None, pin: bool) -> None:
    """Pinned engines have cores of their own; explicit thread counts are taken as they are."""
    first, second = share_cores(mme, tpc, pin)
    assert not set(first.cpus) & set(second.cpus)
    assert first.threads >= 1
    assert second.threads >= 1
    assert mme in (None, first.threads)
    assert tpc in (None, second.threads)
    assert pin or not first.cpus


def test_closing_ends_the_threads() -> None:
    """No thread is left behind."""
    before = threading.active_count()
    HostDevice(DeviceConfig()).close()
    assert threading.active_count() == before


def test_ctrl_c_after_one_queue_has_ended_is_prompt(device: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report of a queue that has ended is not waited for again."""
    runnable = device.prepare(ping_pong(), range(3), {"x": torch.ones(4, 4)})
    real, seen = queue.SimpleQueue, []

    class Interrupting:
        """The done queue; the user strikes after the first report."""

        def __init__(self) -> None:
            self.inner = real()

        def put(self, item: str) -> None:
            self.inner.put(item)

        def get(self, timeout: float | None = None) -> str:
            if len(seen) == 1:
                seen.append("struck")
                raise KeyboardInterrupt
            assert len(seen) < 3, "both queues have reported"
            seen.append(self.inner.get(timeout=timeout))
            return seen[-1]

    monkeypatch.setattr("overlap.devices.host.device.queue.SimpleQueue", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        runnable.time(1)
    assert len(seen) == 3, "the other queue was waited for"
    monkeypatch.undo()
    assert len(runnable.time(1)) == 1


def test_a_kernel_that_fails_alone_is_named(device: HostDevice) -> None:
    """Screening meets it first; it must cost the candidate, not the sweep."""
    with pytest.raises(OpFailedError, match=r"^op middle failed: boom \("):
        device.op_times(ping_pong("boom"), 1)


def test_permuted_buffers_are_laid_out_as_captured(device: HostDevice) -> None:
    """A buffer whose captured strides are not the contiguous ones."""
    with Recorder() as recorder:
        x = recorder.input("x", (2, 3), torch.float32)
        buffer = torch.empty_like(x.t())
        with op("fill"):
            buffer.copy_(x.t())
        with op("read"):
            y = buffer[1:] + 1
        program = recorder.finish({"y": y})
    x = torch.arange(6.0).view(2, 3)
    assert torch.equal(device.prepare(program, range(2), {"x": x}).outputs()["y"], x.t()[1:] + 1)

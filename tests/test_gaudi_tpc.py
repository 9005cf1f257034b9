"""Time of vector work: numbers by hand, the busiest core, padded rows, and what nobody has a cost for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from overlap.devices.gaudi.tpc import (
    TpcConstants,
    VectorWork,
    arithmetic_ns,
    busiest_share,
    call_cost,
    op_costs,
    port_gb_per_s,
    vector_work,
)
from overlap.program import CallWork, Geometry
from tests.gaudi import BF16, CHIPS, FP32, machine

GAUDI2 = machine("gaudi2").tpc
CALLS = sorted(op_costs())


def shape(*size: int, dtype: torch.dtype = BF16) -> Geometry:
    """A dense tensor."""
    return Geometry(size, torch.empty(size, device="meta").stride(), dtype)


def call(name: str, *size: int, dtype: torch.dtype = BF16) -> CallWork:
    """A call that makes what it is given."""
    one = shape(*size, dtype=dtype)
    return CallWork(name, (one,), (one,))


def core_cycles(constants: TpcConstants, *calls: CallWork) -> float:
    """Cycles of the busiest core."""
    return arithmetic_ns(constants, vector_work(constants, calls)) * constants.clock_mhz / 1e3


@pytest.mark.parametrize(
    ("one", "cycles"),
    [
        # 96 rows of 2 vectors over 24 cores: 8 vectors.
        (call("add", 96, 256), 8),
        (call("add_", 96, 256), 8),
        # A row of 258 bytes is padded to the same 2 vectors.
        (call("add", 96, 129), 8),
        (call("add", 96, 128, dtype=FP32), 8),
        # Widening 128 lanes doubles a function, the narrow table halves it again: 1 + 2 x 26 x 0.5.
        (call("exp", 24, 128), 27),
        (call("exp", 24, 64, dtype=FP32), 27),
        (call("div", 24, 128), 1 + 13),
        (call("rsqrt", 24, 128), 12),
        (call("gelu", 24, 128), 5 + 14),
        (call("silu", 24, 128), 1 + 18),
        # 2 rows on each core: 4 + 26 per vector, two shuffle trees and a reciprocal per row.
        (call("_softmax", 48, 128), 2 * (30 + 2 * 15 + 13)),
        (call("_softmax", 48, 256), 2 * (60 + 2 * 15 + 13)),
        # fp32 whatever it is given: 2 vectors per row.
        (call("_fused_rms_norm", 24, 128), 2 * 3 + 15 + 12),
        (call("native_layer_norm", 24, 128), 2 * 5 + 2 * 15 + 12),
        (call("amax", 24, 128), 1 + 15),
        # The larger of what a call sees decides, not what is left of it.
        (CallWork("sum", (shape(24, 1024),), (shape(24, 1),)), 8 + 15),
        # Of equally large ones the wider type: a cast to fp32 writes twice the vectors.
        (CallWork("_to_copy", (shape(24, 128),), (shape(24, 128, dtype=FP32),)), 2),
        # A scalar is one vector of one row.
        (call("mul"), 1),
    ],
    ids=lambda one: one.name if isinstance(one, CallWork) else "",
)
def test_cycles_by_hand(one: CallWork, cycles: float) -> None:
    assert core_cycles(GAUDI2, one) == pytest.approx(cycles)


@pytest.mark.parametrize("function", ["exp", "reciprocal", "sqrt", "rsqrt", "tanh", "sigmoid"])
def test_a_function_costs_what_its_constant_says(function: str) -> None:
    """Of a wide type once, of a narrow one twice at most."""
    field = f"{function}_cycles"
    dearer = replace(GAUDI2, **{field: getattr(GAUDI2, field) + 10})  # type: ignore[arg-type]
    name = {"reciprocal": "div"}.get(function, function)
    for dtype, size, more in ((FP32, 64, 10), (BF16, 128, 2 * 10 * GAUDI2.narrow_function_scale)):
        one = call(name, 24, size, dtype=dtype)
        assert core_cycles(dearer, one) - core_cycles(GAUDI2, one) == pytest.approx(more)


def test_without_a_narrow_table_functions_cost_twice() -> None:
    widened = replace(GAUDI2, narrow_function_scale=1.0)
    assert core_cycles(widened, call("exp", 24, 128)) == 1 + 2 * 26
    assert core_cycles(widened, call("exp", 24, 64, dtype=FP32)) == 1 + 26


def test_shuffle_trees_are_paid_once_per_row() -> None:
    dearer = replace(GAUDI2, reduce_cycles=GAUDI2.reduce_cycles + 100)
    for size in (128, 8192):
        one = call("_softmax", 24, size)
        assert core_cycles(dearer, one) - core_cycles(GAUDI2, one) == pytest.approx(2 * 100)
    assert core_cycles(dearer, call("exp", 24, 128)) == core_cycles(GAUDI2, call("exp", 24, 128))


def test_short_rows_cost_more_than_long_ones() -> None:
    """The same elements, normalised over a head's 128 and over 8192."""
    assert core_cycles(GAUDI2, call("rms_norm", 64 * 24, 128)) > 4 * core_cycles(GAUDI2, call("rms_norm", 24, 8192))


def test_the_busiest_core_decides() -> None:
    """A 25th row takes as long as 24 more; rows of a reduction are never split."""
    assert core_cycles(GAUDI2, call("amax", 25, 128)) == core_cycles(GAUDI2, call("amax", 48, 128))
    assert core_cycles(GAUDI2, call("amax", 1, 24 * 128)) == pytest.approx(24 + 15)
    assert core_cycles(GAUDI2, call("exp", 1, 24 * 128)) == pytest.approx(27), "elementwise work is, vector by vector"
    assert [busiest_share(GAUDI2, units) for units in (1, 12, 24, 25, 48)] == [1, 1 / 12, 1 / 24, 2 / 25, 1 / 24]


def test_more_cores_help_as_far_as_there_are_rows() -> None:
    doubled = replace(GAUDI2, cores=48)
    assert core_cycles(doubled, call("amax", 48, 128)) == core_cycles(GAUDI2, call("amax", 24, 128))
    assert core_cycles(doubled, call("amax", 24, 128)) == core_cycles(GAUDI2, call("amax", 24, 128))


def test_ports_of_busy_cores_add_up() -> None:
    """64 B per cycle each: 115 GB/s, 2.76 TB/s for 24 (facts §2.1); half of the cores move half of it."""
    assert port_gb_per_s(GAUDI2, 1) == pytest.approx(115.2)
    assert port_gb_per_s(GAUDI2, 24) == pytest.approx(2764.8)
    assert port_gb_per_s(GAUDI2, 12) == pytest.approx(2764.8 / 2)
    assert port_gb_per_s(GAUDI2, 25) == pytest.approx(115.2 * 25 / 2)
    assert port_gb_per_s(machine("gaudi3").tpc, 64) == pytest.approx(6553.6)
    assert port_gb_per_s(replace(GAUDI2, port_bytes_per_cycle=128), 24) == pytest.approx(2 * 2764.8)


def test_calls_of_a_kernel_add_up_and_the_coarsest_is_shared_out() -> None:
    first, second = call("add", 30, 4096), call("_softmax", 30, 4096)
    both = vector_work(GAUDI2, [first, second])
    apart = [vector_work(GAUDI2, [one]) for one in (first, second)]
    assert both.cycles == sum(one.cycles for one in apart)
    assert [one.units for one in (*apart, both)] == [30 * 32, 30, 30]


def test_calls_without_a_cost_are_named_and_take_the_fallback() -> None:
    work = vector_work(GAUDI2, [call("add", 24, 128), call("cumsum", 24, 128), call("sort", 24, 128)])
    assert work.unknown == ("cumsum", "sort")
    assert work.cycles == 24 * (1 + 2 * GAUDI2.unknown_cycles)
    assert call_cost("cumsum") is None
    assert vector_work(GAUDI2, [call("add", 24, 128)]).unknown == ()


def test_a_name_that_ends_in_an_underscore_is_the_same_call() -> None:
    assert call_cost("masked_fill_") == call_cost("masked_fill")
    assert call_cost("nonsense_") is None


sizes = st.tuples(st.integers(1, 200), st.integers(1, 3000))


@given(st.sampled_from(CHIPS), st.sampled_from(CALLS), sizes, st.integers(0, 50), st.integers(0, 500))
def test_more_elements_never_take_less_time(
    chip: str, name: str, size: tuple[int, int], rows: int, columns: int
) -> None:
    tpc = machine(chip).tpc
    small, large = call(name, *size), call(name, size[0] + rows, size[1] + columns)
    assert core_cycles(tpc, large) >= core_cycles(tpc, small) - 1e-9


@given(st.sampled_from(CALLS), sizes)
def test_no_shape_beats_all_cores_at_one_vector_per_operation(name: str, size: tuple[int, int]) -> None:
    """The least is the plain operations of whole vectors over all cores; the most is one core alone."""
    work = vector_work(GAUDI2, [call(name, *size)])
    cycles = core_cycles(GAUDI2, call(name, *size))
    assert work.cycles / GAUDI2.cores - 1e-9 <= cycles <= work.cycles + 1e-9
    assert cycles * GAUDI2.cores >= op_costs()[name].vector * size[0] * size[1] * 2 / GAUDI2.vector_bytes - 1e-9


@given(st.integers(1, 10**6), st.integers(1, 64))
def test_shares_cover_the_work(units: int, cores: int) -> None:
    share = busiest_share(replace(GAUDI2, cores=cores), units)
    assert 1 / min(cores, units) <= share + 1e-12 <= 1 + 1e-9
    assert share * units == pytest.approx(-(-units // min(cores, units)))


@given(sizes)
def test_a_faster_clock_is_in_proportion(size: tuple[int, int]) -> None:
    work = VectorWork(float(size[0] * size[1]), size[0])
    fast = replace(GAUDI2, clock_mhz=2 * GAUDI2.clock_mhz)
    assert arithmetic_ns(GAUDI2, work) == pytest.approx(2 * arithmetic_ns(fast, work))

"""How far a time moves with what nobody knows: every uncertain constant counts, and the value is in its interval."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.devices.gaudi.constants import load_constants
from overlap.devices.gaudi.model import GaudiRunnable
from overlap.devices.gaudi.sensitivity import spread
from overlap.kernels.capture import capture
from overlap.split import Split
from tests.gaudi import CHIPS, attention_program, device, workload

BASELINE = capture(workload(1), Split())
SPLIT = capture(workload(1), Split(chunks=2, masked_blocks="skip"))
SHARDED = capture(workload(1, cards=2), Split())


def prepared(chip: str, program: object = BASELINE, **switches: object) -> GaudiRunnable:
    """A program in its own order."""
    return device(chip, **switches).prepare(program, range(len(program.ops)), {})  # type: ignore[attr-defined,arg-type]


@pytest.mark.parametrize("chip", CHIPS)
def test_the_interval_contains_the_time_and_every_effect_is_listed(chip: str) -> None:
    runnable = prepared(chip)
    found = runnable.uncertainty()
    assert found.time_ns == runnable.time(1)[0]
    assert found.low_ns < found.time_ns < found.high_ns
    uncertain = {name for name, entry in load_constants(chip).entries.items() if entry.uncertain}
    assert {one.name for one in found.effects} == uncertain
    moved = [max(abs(one.at_low_ns - found.time_ns), abs(one.at_high_ns - found.time_ns)) for one in found.effects]
    assert moved == sorted(moved, reverse=True), "the strongest first"
    assert found.high_ns - found.time_ns >= max(
        max(one.at_low_ns, one.at_high_ns) - found.time_ns for one in found.effects
    )


def test_constants_count_where_they_are_used() -> None:
    """The network only where there is one, a mode's launch only in that mode, the fused softmax only if it is there."""

    def moves(name: str, program: object, **switches: object) -> bool:
        found = prepared("gaudi2", program, **switches).uncertainty()
        effect = next(one for one in found.effects if one.name == name)
        return {effect.at_low_ns, effect.at_high_ns} != {found.time_ns}

    assert moves("nic.base_ns", SHARDED)
    assert not moves("nic.base_ns", BASELINE)
    assert moves("host.eager_op_us", BASELINE, mode="eager")
    assert not moves("host.eager_op_us", BASELINE)
    fused = capture(workload(1), Split(fused_sdpa=True, masked_blocks="skip"))
    assert moves("tpc.fused_fast_softmax_cycles", fused)
    assert moves("tpc.fused_softmax_cycles", fused, fast_fused_softmax=False)
    assert not moves("tpc.fused_softmax_cycles", fused)
    assert not moves("tpc.fused_softmax_cycles", BASELINE)
    assert moves("tpc.exp_cycles", attention_program())


def test_effects_say_at_which_end() -> None:
    """More launch time, more time; more bandwidth, less."""
    found = {one.name: one for one in prepared("gaudi2").uncertainty().effects}
    assert found["host.graph_recipe_us"].at_low_ns < found["host.graph_recipe_us"].at_high_ns
    assert found["memory.hbm_gb_per_s"].at_low_ns > found["memory.hbm_gb_per_s"].at_high_ns
    assert found["host.graph_recipe_us"].source == "measured"


def test_deviations_are_added_in_squares_each_side_apart() -> None:
    assert spread(100, [(97, 103), (96, 104)]) == (95, 105)
    assert spread(100, [(100, 112), (105, 100)]) == (100, 113)
    assert spread(100, [(88, 95)]) == (88, 100), "the further end decides, where both are on one side"
    assert spread(100, []) == (100, 100)


@given(st.floats(1, 1e9), st.lists(st.tuples(st.floats(1, 1e9), st.floats(1, 1e9)), max_size=5))
def test_the_value_is_always_inside(base: float, ends: list[tuple[float, float]]) -> None:
    low, high = spread(base, ends)
    assert low <= base <= high
    tolerance = 1e-6 * max([base, *(one for pair in ends for one in pair)])
    for pair in ends:
        assert low <= min(pair) + tolerance
        assert max(pair) <= high + tolerance


@pytest.mark.parametrize("chip", CHIPS)
def test_a_speed_up_varies_less_than_its_two_times(chip: str) -> None:
    """Both programs run on the same unknown card, so that most of what is not known cancels."""
    one = device(chip)
    before, after = (one.prepare(program, range(len(program.ops)), {}) for program in (BASELINE, SPLIT))
    found = one.speedup_interval(before, after)
    assert found is not None
    assert found.median == pytest.approx(before.time(1)[0] / after.time(1)[0])
    assert found.low <= found.median <= found.high
    times = before.uncertainty(), after.uncertainty()
    assert found.high - found.low < times[0].high_ns / times[1].low_ns - times[0].low_ns / times[1].high_ns
    same = one.speedup_interval(before, before)
    assert same is not None
    assert (same.low, same.median, same.high) == (1.0, 1.0, 1.0)

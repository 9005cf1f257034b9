"""Checks: a candidate is as right as the baseline, or out with a reason; and the space that candidates come from."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.devices.base import Gate
from overlap.errors import DeviceError, MemoryLimitError, OverlapError
from overlap.search.bench import Bench
from overlap.search.candidate import BASELINE, Candidate, enumerate_space
from overlap.search.check import Checked, check, require_sound
from overlap.search.config import SpaceConfig
from overlap.split import Split, canonical, violations
from tests.fakes import FakeDevice, FakeRunnable, small_workload
from tests.strategies import workloads
from tests.sweeps import MemoryJournal, Silent, candidate, checked

Twist = Callable[[str, dict[str, torch.Tensor]], None]
A, B = candidate(2, "program"), candidate(4, "program")


class TwistedDevice(FakeDevice):
    """Changes what a program computes: `twist(label, outputs)`."""

    def __init__(self, twist: Twist) -> None:
        super().__init__()
        self._twist = twist
        self.prepared = 0

    def prepare(self, *args: object, **options: object) -> FakeRunnable:
        """A runnable whose outputs went through the twist."""
        self.prepared += 1
        runnable = super().prepare(*args, **options)  # type: ignore[arg-type]
        right = runnable.outputs

        def outputs() -> dict[str, torch.Tensor]:
            found = right()
            self._twist(runnable.program.label, found)
            return found

        runnable.outputs = outputs  # type: ignore[method-assign]
        return runnable


def run_check(device: FakeDevice, *candidates: Candidate, journal: MemoryJournal | None = None) -> list[Checked]:
    """Baseline first, then `candidates`."""
    bench = Bench(small_workload(), device, {}, 0)
    return check(bench, journal or MemoryJournal(), candidates, Silent())


def scaled(name: str, **factors: float) -> Twist:
    """Multiply output `name` of the programs whose label has the given words (`_` for `=`)."""

    def twist(label: str, found: dict[str, torch.Tensor]) -> None:
        for words, factor in factors.items():
            if words.replace("_", "=") in label:
                found[name] = found[name] * factor

    return twist


def test_right_candidates_pass_with_errors_for_every_output() -> None:
    found = run_check(FakeDevice(), A, B)
    assert [one.candidate for one in found] == [BASELINE, A, B]
    assert all(not one.failure and one.worst_error < 1e-5 and one.peak_bytes > 0 for one in found)
    caches = {f"layer{layer}.{name}_cache" for layer in (0, 1) for name in ("key", "value")}
    assert found[1].errors.keys() == {"hidden", *caches}


@pytest.mark.parametrize("name", ["hidden", "layer1.key_cache", "layer0.value_cache"])
def test_a_wrong_output_fails_the_candidate_and_is_named(name: str) -> None:
    """Also if only a cache is wrong, which the next step would read."""
    found = run_check(FakeDevice(), A)
    assert not found[1].failure
    found = run_check(TwistedDevice(scaled(name, chunks_2=1.01)), A, B)
    assert found[1].failure.startswith(f"{name} is off by 1.0e-02, more than 2 times the baseline's")
    assert not found[2].failure


@pytest.mark.parametrize(("factor", "passes"), [(1.0015, True), (1.0019, True), (1.0025, False)])
def test_the_limit_is_twice_the_baselines_own_error(factor: float, passes: bool) -> None:
    """The baseline is off by 1e-3 here, as a coarse dtype might be."""
    found = run_check(TwistedDevice(scaled("hidden", baseline=1.001, chunks_2=factor)), A)
    assert found[0].errors["hidden"] == pytest.approx(1e-3, rel=0.01)
    assert (not found[1].failure) == passes


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_fail_and_are_kept_as_infinite(value: float) -> None:
    """JSON has neither; the journal holds -1."""
    journal = MemoryJournal()

    def twist(label: str, outputs: dict[str, torch.Tensor]) -> None:
        if "chunks=2" in label:
            outputs["hidden"].view(-1)[3] = value

    device = TwistedDevice(twist)
    for _ in range(2):
        found = run_check(device, A, journal=journal)
        assert found[1].worst_error == float("inf")
        assert found[1].failure.startswith("hidden is off by inf")
    assert [record["errors"]["hidden"] == -1.0 for record in journal.of_kind("check")] == [False, True]


def test_a_failing_gate_fails_only_its_candidate() -> None:
    device = FakeDevice()
    device.fails_gate = "chunks=2"
    found = run_check(device, A, B)
    assert [one.failure for one in found] == ["", "gate memory: told so", ""]
    assert found[1].gates == {"memory": Gate(False, "told so")}


def test_a_crash_costs_only_its_candidate() -> None:
    device = FakeDevice()
    device.crashes = "chunks=2"
    found = run_check(device, A, B)
    assert [one.failure for one in found] == ["", "op x failed: told so", ""]
    assert found[1].worst_error == float("inf")


def test_too_little_memory_costs_only_its_candidate() -> None:
    class Small(FakeDevice):
        def prepare(self, program, order, inputs, *, serial=False):  # type: ignore[no-untyped-def]
            if "chunks=4" in program.label:
                raise MemoryLimitError("it needs 2 GiB", "a smaller bucket")
            return super().prepare(program, order, inputs, serial=serial)

    assert run_check(Small(), A, B)[2].failure == "it needs 2 GiB (a smaller bucket)"


def test_without_a_baseline_there_is_nothing_to_compare_with() -> None:
    device = FakeDevice()
    device.crashes = "[baseline]"
    with pytest.raises(DeviceError, match="told so"):
        run_check(device, A)
    wrong = run_check(TwistedDevice(scaled("hidden", baseline=3.0)))[0]
    with pytest.raises(OverlapError, match=r"the baseline itself is off by 2\.0e\+00"):
        require_sound(wrong)
    require_sound(checked(BASELINE))


def test_what_is_in_the_journal_is_not_checked_again() -> None:
    """Also a failure: it stays one."""
    journal, device = MemoryJournal(), TwistedDevice(scaled("hidden", chunks_2=1.5))
    device.crashes = "chunks=4"
    first = run_check(device, A, B, journal=journal)
    count, prepared = len(journal.records), device.prepared
    device.crashes = ""
    assert run_check(device, A, B, journal=journal) == first
    assert (len(journal.records), device.prepared) == (count, prepared)


# -- the space -------------------------------------------------------------------------------------------------------

AXES = st.fixed_dictionaries(
    {
        "chunks": st.lists(st.sampled_from([0, 1, 2, 3, 4]), min_size=1, max_size=3),
        "chunk_axis": st.sampled_from([["query"], ["batch"], ["query", "batch"]]),
        "lag": st.lists(st.integers(0, 5), min_size=1, max_size=2),
        "query_tile": st.lists(st.sampled_from([0, 1, 2, 4]), min_size=1, max_size=2),
        "kv_tile": st.lists(st.sampled_from([0, 2, 99]), min_size=1, max_size=2),
        "masked_blocks": st.sampled_from([["skip"], ["compute", "skip"]]),
        "fused_sdpa": st.sampled_from([[False], [False, True]]),
    }
)


@settings(max_examples=60, deadline=None)
@given(workloads(), AXES)
def test_every_point_of_the_grid_is_found_once_or_rejected_with_a_reason(workload, axes) -> None:  # type: ignore[no-untyped-def]
    space = SpaceConfig(**axes)
    found, rejected = enumerate_space(space, workload)
    reasons = {one.split: one.reason for one in rejected}
    assert len(set(found)) == len(found)
    assert len(reasons) == len(rejected)
    assert Split() not in found
    assert all(canonical(one, workload) == one and not violations(one, workload) for one in found)
    assert all(reason == violations(one, workload)[0] for one, reason in reasons.items())
    names = [field.name for field in fields(Split)]
    for point in itertools.product(*(getattr(space, name) for name in names)):
        one = Split(**dict(zip(names, point, strict=True)))
        assert (one in reasons) == bool(violations(one, workload))
        assert one in reasons or canonical(one, workload) in {*found, Split()}


def test_rejections_say_which_rule_was_broken() -> None:
    found, rejected = enumerate_space(SpaceConfig(chunks=[1, 3, 16], query_tile=[0, 16]), small_workload())
    assert found == [Split(chunks=16, masked_blocks="skip")]
    assert [(one.split.chunks, one.split.query_tile, one.reason) for one in rejected] == [
        (3, 0, "chunks=3 does not divide the query dimension of 16"),
        (3, 16, "chunks=3 does not divide the query dimension of 16"),
        (16, 16, "query_tile=16 does not divide the 1 query tokens of an attention"),
    ]


def test_keys_are_unique_and_readable() -> None:
    """They identify samples in the journal."""
    several = [A, B, BASELINE, candidate(2, "list"), Candidate(A.split, "program", serial=True)]
    assert len({one.key for one in several}) == 5
    assert A.key == "chunks=2 masked_blocks=skip | program"
    assert several[-1].key == "chunks=2 masked_blocks=skip | program | serial"
    assert BASELINE.key == "baseline | program"

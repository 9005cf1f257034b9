"""Constants of the chips: where each is from, how far it may be off, and what cannot be typed instead."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

import pytest

from overlap.devices.gaudi.constants import Constants, Source, load_constants
from overlap.devices.gaudi.fit import GROUPS
from overlap.devices.gaudi.machine import CompilerConstants, GemmConstants, HostConstants, Machine
from overlap.devices.gaudi.memory import MemoryConstants
from overlap.devices.gaudi.nic import NicConstants
from overlap.devices.gaudi.tpc import TpcConstants, op_costs
from overlap.errors import ConfigError
from tests.gaudi import CHIPS, device

SECTIONS = {
    "gemm": GemmConstants,
    "tpc": TpcConstants,
    "memory": MemoryConstants,
    "compiler": CompilerConstants,
    "host": HostConstants,
    "nic": NicConstants,
}
GAUDI2, GAUDI3 = (load_constants(chip).entries for chip in CHIPS)


def numbers(constants: Constants) -> dict[str, float]:
    """Entries that are numbers."""
    return {
        name: float(entry.value)
        for name, entry in constants.entries.items()
        if isinstance(entry.value, (int, float)) and not isinstance(entry.value, bool)
    }


@pytest.mark.parametrize("chip", CHIPS)
def test_every_constant_says_where_it_is_from(chip: str) -> None:
    for name, entry in load_constants(chip).entries.items():
        assert entry.source in get_args(Source), name
        assert len(entry.where) >= 5, name


@pytest.mark.parametrize("chip", CHIPS)
def test_values_lie_in_their_intervals(chip: str) -> None:
    constants = load_constants(chip)
    values = numbers(constants)
    for name, entry in constants.entries.items():
        assert (entry.low is None) == (entry.high is None) != entry.uncertain, name
        if entry.low is not None and entry.high is not None:
            assert entry.low <= values[name] <= entry.high, name
            assert entry.low < entry.high, name


@pytest.mark.parametrize("chip", CHIPS)
def test_what_was_fitted_has_an_interval(chip: str) -> None:
    """Also what was guessed, unless nothing uses it."""
    for name, entry in load_constants(chip).entries.items():
        if entry.source == "fitted" or (entry.source == "guess" and "not used" not in entry.where):
            assert entry.uncertain, name


def test_fitted_constants_are_those_of_the_script() -> None:
    """Nobody writes `fitted` beside a number that no fit gives."""
    fitted = {name for name, entry in GAUDI2.items() if entry.source == "fitted"}
    assert fitted == {name for group in GROUPS.values() for name in group.limits}
    assert not [name for name, entry in GAUDI3.items() if entry.source == "fitted"], "no row of Gaudi3 is fitted to"


@pytest.mark.parametrize("group", GROUPS)
def test_fitted_values_lie_within_the_limits_of_the_script(group: str) -> None:
    for name, (low, high) in GROUPS[group].limits.items():
        assert low <= float(GAUDI2[name].value) <= high  # type: ignore[arg-type]


def test_the_chips_have_the_same_constants() -> None:
    assert GAUDI2.keys() == GAUDI3.keys()
    for name, entry in GAUDI2.items():
        assert type(entry.value) is type(GAUDI3[name].value) or name in {*numbers(load_constants("gaudi2"))}, name
        assert entry.unit == GAUDI3[name].unit, name


def test_the_chips_differ_where_it_matters() -> None:
    for name in ("tpc.cores", "memory.die_mib", "memory.die_is_cache", "memory.dma_engines", "nic.link_gb_per_s"):
        assert GAUDI2[name].value != GAUDI3[name].value, name
    for rule in ("attention_seeds", "consumers_first", "mme_signals_per_roi", "roi_depth", "min_utilisation_ratio"):
        assert GAUDI2[f"compiler.{rule}"].value != GAUDI3[f"compiler.{rule}"].value, rule


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_is_its_dataclass(chip: str, section: str) -> None:
    found = load_constants(chip).section(section, SECTIONS[section])
    for field in fields(SECTIONS[section]):
        value = load_constants(chip).entries[f"{section}.{field.name}"].value
        assert getattr(found, field.name) == value
        kinds = {"int": int, "float": (int, float), "bool": bool, "str": str}[str(field.type)]
        assert isinstance(value, kinds), field.name


def test_a_section_that_lacks_a_name_is_a_defect() -> None:
    with pytest.raises(ValueError, match="links_per_peer"):
        Constants("gaudi2", {name: entry for name, entry in GAUDI2.items() if name != "nic.links_per_peer"}).section(
            "nic", NicConstants
        )


def test_no_section_is_left_unread() -> None:
    assert {name.split(".")[0] for name in GAUDI2} == {*SECTIONS, "mme"}


def test_peaks_follow_from_the_constants() -> None:
    """432 and 1678 TFLOPS, 11.06 and 26.2 of vector work, as the vendor says or its clocks give."""
    for chip, matrix, vector in (("gaudi2", 432, 11.06), ("gaudi3", 1678, 26.2)):
        of = Machine.of(load_constants(chip))
        assert 2 * of.mme.macs_per_cycle * of.mme.clock_mhz / 1e6 == pytest.approx(matrix, rel=0.002)
        lanes = of.tpc.vector_bytes / 2
        assert 2 * lanes * of.tpc.cores * of.tpc.clock_mhz / 1e6 == pytest.approx(vector, rel=0.005)


def test_functions_of_ops_have_cycles() -> None:
    """A name in `ops.yaml` that no chip knows would only show when the op is met."""
    for chip in CHIPS:
        tpc = Machine.of(load_constants(chip)).tpc
        for name, entry in op_costs().items():
            for function in (*entry.functions, *entry.row_functions):
                assert tpc.function_cycles(function) > 0, name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mme.clok_mhz": 1}, ("gaudi2 has no constant 'mme.clok_mhz'", "mme.clock_mhz")),
        ({"nonsense": 1}, ("no constant 'nonsense'", "overlap devices device=gaudi2")),
        ({"mme.clock_mhz": "fast"}, ("mme.clock_mhz is 'fast'", "like 1650")),
        ({"mme.clock_mhz": True}, ("mme.clock_mhz is True", "like 1650")),
        ({"mme.clock_mhz": None}, ("mme.clock_mhz is None", "like 1650")),
        ({"memory.die_is_cache": 1}, ("memory.die_is_cache is 1", "like False")),
        ({"mme.design": 3}, ("mme.design is 3", "like 'gaudi2'")),
    ],
)
def test_other_values_must_exist_and_be_of_their_kind(values: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as raised:
        load_constants("gaudi2").replaced(values)
    for word in words:
        assert word in str(raised.value)


def test_other_values_reach_the_machine_and_leave_the_files_alone() -> None:
    changed = device("gaudi2", constants={"tpc.cores": 12, "mme.clock_mhz": 1700.5}).costs.machine
    assert (changed.tpc.cores, changed.mme.clock_mhz) == (12, 1700.5)
    again = Machine.of(load_constants("gaudi2"))
    assert (again.tpc.cores, again.mme.clock_mhz) == (24, 1650)


@pytest.mark.parametrize("chip", CHIPS)
def test_values_of_the_files_can_be_typed_too(chip: str) -> None:
    constants = load_constants(chip)
    assert constants.replaced({name: entry.value for name, entry in constants.entries.items()}) == constants


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 0])
def test_sizes_and_rates_are_positive_and_finite(value: float) -> None:
    for name in ("mme.clock_mhz", "tpc.cores", "memory.hbm_gb_per_s", "nic.link_gb_per_s"):
        with pytest.raises(ConfigError, match=f"{name} is"):
            load_constants("gaudi2").replaced({name: value})


def test_counts_are_whole_and_times_may_be_nothing() -> None:
    with pytest.raises(ConfigError, match=r"tpc.cores is 24\.5 .*a whole number"):
        load_constants("gaudi2").replaced({"tpc.cores": 24.5})
    assert load_constants("gaudi2").replaced({"host.fence_ns": 0}).entries["host.fence_ns"].value == 0


def test_names_may_be_nested() -> None:
    nested, flat = (load_constants("gaudi2").replaced(one) for one in ({"tpc": {"cores": 12}}, {"tpc.cores": 12}))
    assert nested == flat


def test_other_values_keep_source_and_interval() -> None:
    old = load_constants("gaudi2").entries["tpc.exp_cycles"]
    new = load_constants("gaudi2").replaced({"tpc.exp_cycles": 20}).entries["tpc.exp_cycles"]
    assert (new.value, new.source, new.low, new.high) == (20, old.source, old.low, old.high)


def test_an_unknown_chip_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of gaudi2, gaudi3"):
        load_constants("gaudi1")

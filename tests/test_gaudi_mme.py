"""Costs of GEMMs against rows of the vendor's own cost model, the rate of dtypes, what can be typed wrong, properties.

`mme_oracle_rows.csv` holds rows that a driver printed which was linked against MmeBrain of Intel's open Gaudi software
stack (HabanaAI/Intel_Gaudi3_Software at e6cef1c); the whole table is tried where `../shared` has it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from overlap.devices.gaudi.constants import load_constants
from overlap.devices.gaudi.mme import Gemm, MmeConstants, cost, gemm_cost, mme_constants
from overlap.devices.gaudi.mme.problem import ELEMENT_BYTES, LARGEST, OPS
from overlap.errors import ConfigError, OverlapError, WorkloadError

ROWS = Path(__file__).parent / "mme_oracle_rows.csv"
TABLE = Path(__file__).parents[1] / ".." / "shared" / "data" / "mme_oracle.csv"
CHIPS = ("gaudi2", "gaudi3")
EXACT = {
    "geometry": "geometry",
    "pattern": "pattern",
    "concurrency": "concurrency",
    "cycles": "compute_cycles",
    "activations": "activations",
    "fetch_a": "fetch_a",
    "fetch_b": "fetch_b",
    "width": "width",
    "height": "height",
}
CLOSE = {"utilisation": "mme_util", "efficiency": "eff"}
# chip dtype op group b1xb2 m,n,k | geometry pattern WxH concurrency activations fetches utilisation cycles efficiency
EXAMPLES = """
gaudi2 bf16 ab  1 1x1   4096,4096,4096  | 2xh fck 256x512  1  64  4/8  1.0000 524288  1.0000
gaudi2 bf16 abt 1 32x1  1024,1024,128   | 2xh fkc 256x512  1  1   4/2  1.0000 65536   0.5000
gaudi2 bf16 ab  1 32x1  1024,128,1024   | 2xh fkc 256x512  1  1   1/2  0.5000 65536   0.5000
gaudi2 bf16 abt 1 32x1  2048,2048,64    | 2xh fck 256x512  1  1   8/4  1.0000 262144  0.2500
gaudi2 bf16 ab  1 32x1  2048,64,2048    | 4xh fkc 128x1024 1  1   1/2  0.3333 196608  0.3333
gaudi2 bf16 ab  1 32x8  1,128,1024      | 2xh fkc 128x128  4  1   1/1  0.0078 65536   0.0039
gaudi2 bf16 abt 4 8x8   1,1024,128      | 4xw fck 1024x128 1  1   1/1  0.0303 16384   0.0156
gaudi2 bf16 ab  1 1x1   8,4096,4096     | 4xw fck 1024x128 1  2   1/1  0.0615 16640   0.0615
gaudi2 bf16 ab  1 1x1   100,5000,300    | 4xw fck 1024x128 1  1   1/1  0.6598 1734    0.6600
gaudi2 bf16 ab  1 1x1   1000,100,1000   | 4xh fkc 128x1024 1  1   1/1  0.3845 1984    0.3845
gaudi2 fp8  abt 1 64x1  128,128,128     | 2xh fkc 128x128  4  1   1/1  1.0000 4096    0.2500
gaudi2 bf16 atb 1 512x1 48,48,32        | 2xh fkc 64x64    8  1   1/1  0.5625 16384   0.0176
gaudi3 bf16 ab  1 1x1   4096,4096,4096  | 2xw fck 1024x512 1  16  1/8  1.0000 131072  1.0000
gaudi3 bf16 abt 1 32x1  1024,1024,128   | 4xw fkc 1024x256 2  1   1/4  1.0000 32768   0.2500
gaudi3 bf16 ab  1 32x1  1024,128,1024   | 4xw fkc 256x256  8  1   1/4  0.5000 16384   0.5000
gaudi3 bf16 ab  1 32x8  1,128,1024      | 4xh fkc 128x128  16 1   1/1  0.0078 16384   0.0039
gaudi3 bf16 abt 4 8x8   1,1024,128      | 4xw fck 1024x128 2  1   1/1  0.0312 32768   0.0020
gaudi3 bf16 ab  1 1x1   8,4096,4096     | 4xw fck 2048x128 1  2   1/1  0.0625 8192    0.0312
gaudi3 bf16 ab  1 1x1   100,5000,300    | 4xw fck 2048x128 1  1   1/1  0.6358 1536    0.1863
gaudi3 fp8  ab  1 1x1   8192,28672,8192 | 2xw fck 1024x512 1  224 7/16 1.0000 3670016 1.0000
"""


def rows(path: Path) -> list[dict[str, str]]:
    """Rows of the vendor's model."""
    return list(csv.DictReader(line for line in path.read_text().splitlines() if not line.startswith("#")))


def problem(row: dict[str, str]) -> Gemm:
    """What a row asks."""
    m, n, k, b1, b2, b3, group = (int(row[name]) for name in ("m", "n", "k", "b1", "b2", "b3", "group"))
    return Gemm(row["dtype"], row["op"], m, n, k, (b1, b2, b3), group)


def differences(table: Iterable[dict[str, str]]) -> list[str]:
    """Rows that the model answers differently."""
    wrong = []
    for row in table:
        gemm = problem(row)
        ours = asdict(cost(mme_constants(row["chip"]), gemm))
        names = [name for name, column in EXACT.items() if str(ours[name]) != row[column]]
        names += [name for name, column in CLOSE.items() if abs(ours[name] - float(row[column])) > 1e-6]
        wrong += [f"{row['chip']} {gemm}: {name} {ours[name]}, vendor {row}" for name in names]
    return wrong


def test_the_vendors_rows_are_met_exactly() -> None:
    table = rows(ROWS)
    assert len(table) == 150
    assert differences(table) == []


def test_the_rows_reach_every_corner() -> None:
    table = rows(ROWS)
    attention = {f"{name}{phase}{group}" for name in ("qk", "pv") for phase in ("", "d") for group in ("", "_gqa")}
    assert {row["tag"] for row in table} == {"edge", "head", "proj", "random", "square"} | attention
    assert {(row["chip"], row["op"]) for row in table} == {(chip, op) for chip in CHIPS for op in OPS}
    assert {row["dtype"] for row in table} == ELEMENT_BYTES.keys() - {"fp16"}
    assert {(row["chip"], row["concurrency"]) for row in table} == {
        (chip, str(one)) for chip, most in (("gaudi2", 8), ("gaudi3", 16)) for one in (1, 2, 4, 8, 16) if one <= most
    }


@pytest.mark.skipif(not TABLE.is_file(), reason="the whole table in ../shared is not here")
def test_the_vendors_whole_table_is_met_exactly() -> None:
    assert differences(rows(TABLE)) == []


@pytest.mark.parametrize("line", EXAMPLES.strip().splitlines())
def test_worked_example(line: str) -> None:
    asked, answer = line.split("|")
    chip, dtype, op, group, batch, sizes = asked.split()
    geometry, pattern, tile, concurrency, activations, fetches, utilisation, cycles, efficiency = answer.split()
    b1, b2 = (int(size) for size in batch.split("x"))
    m, n, k = (int(size) for size in sizes.split(","))
    found = gemm_cost(chip, dtype, op, m, n, k, (b1, b2), int(group))
    assert (found.geometry, found.pattern, f"{found.width}x{found.height}") == (geometry, pattern, tile)
    assert (found.concurrency, found.activations) == (int(concurrency), int(activations))
    assert (f"{found.fetch_a}/{found.fetch_b}", found.cycles) == (fetches, int(cycles))
    assert found.utilisation == pytest.approx(float(utilisation), abs=5.1e-5)
    assert found.efficiency == pytest.approx(float(efficiency), abs=5.1e-5)


# The hardware estimate.


@pytest.mark.parametrize(
    ("chip", "clock_mhz", "tflops"), [("gaudi2", 1650, 432.5), ("gaudi3", 1600, 1677.7), ("gaudi3", 1750, 1835.0)]
)
def test_a_large_gemm_reaches_the_public_peak(chip: str, clock_mhz: float, tflops: float) -> None:
    gemm = Gemm("bf16", "ab", 8192, 8192, 8192)
    found = cost(replace(mme_constants(chip), clock_mhz=clock_mhz), gemm)
    assert found.efficiency == 1
    assert 2 * gemm.macs / found.hw_ns / 1000 == pytest.approx(tflops, abs=0.05)


@pytest.mark.parametrize(
    ("chip", "dtype", "times"),
    [
        ("gaudi2", "bf16", 1),
        ("gaudi2", "fp16", 1),
        ("gaudi2", "fp8", 0.5),
        ("gaudi2", "tf32", 2),
        ("gaudi2", "fp32", 4),
        ("gaudi3", "bf16", 1),
        ("gaudi3", "fp16", 4),
        ("gaudi3", "fp8", 1),
        ("gaudi3", "tf32", 4),
        ("gaudi3", "fp32", 8),
    ],
)
def test_the_rate_of_a_dtype_is_in_the_hardware_estimate_alone(chip: str, dtype: str, times: float) -> None:
    found = gemm_cost(chip, dtype, "ab", 4096, 4096, 8192)
    assert found.cycles == gemm_cost(chip, "bf16", "ab", 4096, 4096, 8192).cycles
    assert found.hw_cycles == times * found.cycles
    assert found.hw_ns == pytest.approx(found.hw_cycles / mme_constants(chip).clock_mhz * 1000)


def test_the_roll_up_floor_holds_for_fast_dtypes_too() -> None:
    # 300 elements of fp8 are 150 cycles of hardware, below the floor of 256.
    found = gemm_cost("gaudi2", "fp8", "ab", 512, 256, 300)
    assert (found.cycles, found.hw_cycles) == (300, 256)
    # An odd depth fills its last granule.
    assert gemm_cost("gaudi2", "fp8", "ab", 512, 256, 1001).hw_cycles == 501


@pytest.mark.parametrize("chip", CHIPS)
def test_the_largest_sizes_have_a_cost(chip: str) -> None:
    found = gemm_cost(chip, "fp32", "ab", LARGEST, LARGEST, LARGEST, (LARGEST, LARGEST), LARGEST)
    assert found.cycles > LARGEST
    assert found.efficiency <= 1


# What can be typed wrong.


@pytest.mark.parametrize(
    ("error", "word", "change"),
    [
        (ConfigError, "gaudi4", {"chip": "gaudi4"}),
        (ConfigError, "did you mean bf16", {"dtype": "bf61"}),
        (ConfigError, "int8", {"dtype": "int8"}),
        (ConfigError, "op 'ba'", {"op": "ba"}),
        (ConfigError, "op", {"op": ["ab"]}),
        (WorkloadError, "m of a GEMM is 0", {"m": 0}),
        (WorkloadError, "n of a GEMM is -1", {"n": -1}),
        (WorkloadError, "k of a GEMM is 0", {"k": 0}),
        (WorkloadError, "whole number", {"k": 0.5}),
        (WorkloadError, "whole number", {"m": "8"}),
        (WorkloadError, "whole number", {"m": [8]}),
        (WorkloadError, "from 1 to", {"k": 10**60}),
        (WorkloadError, "from 1 to", {"m": LARGEST + 1}),
        (WorkloadError, "batch of a GEMM is 0", {"batch": (4, 0)}),
        (WorkloadError, "batch of a GEMM is 4", {"batch": 4}),
        (WorkloadError, "whole number", {"batch": (4, None)}),
        (WorkloadError, "group of a GEMM is 0", {"group": 0}),
        (WorkloadError, "4 batch dimensions", {"batch": (2, 2, 2, 2)}),
        (WorkloadError, "the group included", {"batch": (2, 2, 2), "group": 2}),
    ],
)
def test_bad_input_is_explained(error: type[OverlapError], word: str, change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"chip": "gaudi2", "dtype": "bf16", "op": "ab", "m": 64, "n": 64, "k": 64}
    gemm_cost(**good)
    with pytest.raises(error) as caught:
        gemm_cost(**good | change)
    assert word in str(caught.value)
    assert caught.value.hint


def test_an_unknown_design_is_explained() -> None:
    constants = replace(mme_constants("gaudi3"), design="gaudi5")
    with pytest.raises(ConfigError, match="did you mean gaudi3"):
        cost(constants, Gemm("bf16", "ab", 8, 8, 8))


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("bfloat16", "bf16"),
        ("torch.bfloat16", "bf16"),
        ("float16", "fp16"),
        ("float32", "fp32"),
        ("float8_e4m3fn", "fp8"),
    ],
)
def test_torchs_names_of_dtypes(name: str, short: str) -> None:
    assert gemm_cost("gaudi2", name, "abt", 300, 200, 5000) == gemm_cost("gaudi2", short, "abt", 300, 200, 5000)


def test_a_batch_may_be_short_a_list_or_longer_than_it_needs() -> None:
    whole = gemm_cost("gaudi3", "bf16", "ab", 64, 64, 64, (8, 4, 1))
    assert gemm_cost("gaudi3", "bf16", "ab", 64, 64, 64, [8, 4]) == whole
    assert gemm_cost("gaudi3", "bf16", "ab", 64, 64, 64, (1, 8, 1, 4)) == whole
    assert gemm_cost("gaudi3", "bf16", "ab", 64, 64, 64, ()) == gemm_cost("gaudi3", "bf16", "ab", 64, 64, 64)


# Constants.


@pytest.mark.parametrize("chip", CHIPS)
def test_constants_agree_with_each_other_and_say_where_they_are_from(chip: str) -> None:
    found = mme_constants(chip)
    assert found.macs_per_cycle == found.mmes * found.eus_per_mme * found.eu_columns * found.eu_rows
    entries = {key: entry for key, entry in load_constants(chip).entries.items() if key.startswith("mme.")}
    for key, entry in entries.items():
        assert entry.where, key
        if entry.low is not None and entry.high is not None:
            assert isinstance(entry.value, (int, float))
            assert entry.low <= entry.value <= entry.high
    uncertain = {key for key, entry in entries.items() if entry.uncertain}
    assert uncertain == ({"mme.clock_mhz", "mme.rollup_cycles"} if chip == "gaudi3" else set())


def test_equal_constants_are_one_key_of_the_cache() -> None:
    constants = mme_constants("gaudi3")
    copy = replace(constants)
    assert copy is not constants
    assert (copy, hash(copy)) == (constants, hash(constants))
    assert hash(replace(constants, mmes=4)) != hash(constants)
    gemm = Gemm("bf16", "ab", 77, 78, 79)
    assert cost(copy, gemm) is cost(constants, gemm)


def test_constants_of_the_yaml_can_be_replaced() -> None:
    changed = load_constants("gaudi3").replaced({"mme.rollup_cycles": 256}).section("mme", MmeConstants)
    assert cost(changed, Gemm("bf16", "ab", 64, 64, 64)).cycles == 256
    assert gemm_cost("gaudi3", "bf16", "ab", 64, 64, 64).cycles == 512


# Properties.

SIZES = st.one_of(st.integers(1, 300), st.integers(1, 20000), st.sampled_from([64, 128, 256, 512, 1024, 4096, 8192]))


@st.composite
def problems(draw: st.DrawFn, group: bool = True) -> Gemm:
    """Any GEMM of a size that models have."""
    batch = draw(st.lists(st.integers(1, 40), max_size=2).map(tuple))
    shared = draw(st.integers(1, 16)) if group else 1
    dtype, op = draw(st.sampled_from(sorted(ELEMENT_BYTES))), draw(st.sampled_from(OPS))
    return Gemm(dtype, op, draw(SIZES), draw(SIZES), draw(SIZES), batch, shared)


@given(st.sampled_from(CHIPS), problems())
def test_no_gemm_is_faster_than_the_engines(chip: str, gemm: Gemm) -> None:
    constants = mme_constants(chip)
    found = cost(constants, gemm)
    assert found.cycles * constants.macs_per_cycle >= gemm.macs
    assert found.cycles >= constants.rollup_cycles
    assert found.hw_cycles >= constants.rollup_cycles
    assert 0 < found.efficiency <= 1
    assert 0 < found.utilisation <= 1 + 1e-6
    assert found.width * found.height * found.concurrency <= constants.macs_per_cycle
    assert min(found.activations, found.fetch_a, found.fetch_b) >= 1


@given(st.sampled_from(CHIPS), problems())
def test_the_same_question_has_the_same_answer(chip: str, gemm: Gemm) -> None:
    assert cost.__wrapped__(mme_constants(chip), gemm) == cost(mme_constants(chip), gemm)


@given(st.sampled_from(CHIPS), problems())
def test_at_bf16_both_estimates_agree(chip: str, gemm: Gemm) -> None:
    found = cost(mme_constants(chip), gemm._replace(dtype="bf16"))
    assert found.hw_cycles == found.cycles


@given(st.sampled_from(CHIPS), problems(group=False), st.integers(17, 60), st.integers(1, 40))
def test_more_batches_take_no_less_time(chip: str, gemm: Gemm, outer: int, more: int) -> None:
    # Below 17 matrices their number decides what is reused, and with that, which geometry can win.
    few, many = (cost(mme_constants(chip), gemm._replace(batch=(*gemm.batch, b3))) for b3 in (outer, outer + more))
    assert few.cycles <= many.cycles
    assert few.hw_cycles <= many.hw_cycles


@given(st.sampled_from(CHIPS), problems())
def test_dimensions_of_size_one_do_not_matter(chip: str, gemm: Gemm) -> None:
    constants = mme_constants(chip)
    assert cost(constants, gemm._replace(batch=(1, *gemm.batch))) == cost(constants, gemm)


@given(st.sampled_from(CHIPS), problems())
def test_the_clock_changes_nothing_but_nanoseconds(chip: str, gemm: Gemm) -> None:
    constants = mme_constants(chip)
    old, new = cost(constants, gemm), cost(replace(constants, clock_mhz=2 * constants.clock_mhz), gemm)
    before, after = asdict(old), asdict(new)
    assert {name for name in before if before[name] != after[name]} == {name for name in before if name.endswith("_ns")}
    assert new.hw_ns == pytest.approx(old.hw_ns / 2)


@given(st.sampled_from(CHIPS), problems())
def test_rates_and_peaks_change_nothing_but_their_fields(chip: str, gemm: Gemm) -> None:
    constants = mme_constants(chip)
    old = cost(constants, gemm)
    assert cost(replace(constants, port_gb_per_s=100), gemm) == old
    peak = cost(replace(constants, macs_per_cycle=2 * constants.macs_per_cycle), gemm)
    assert peak == replace(old, efficiency=old.efficiency / 2)


@given(st.sampled_from(CHIPS), problems())
def test_a_lower_roll_up_floor_costs_no_more(chip: str, gemm: Gemm) -> None:
    constants = mme_constants(chip)
    low = replace(constants, rollup_cycles=constants.rollup_cycles // 2)
    assert cost(low, gemm).cycles <= cost(constants, gemm).cycles


@given(problems(), st.integers(2, 6))
def test_a_pipeline_only_adds_descriptors(gemm: Gemm, level: int) -> None:
    constants = mme_constants("gaudi3")
    old, new = cost(constants, gemm), cost(replace(constants, pipeline_level=level), gemm)
    assume(old.activations != new.activations)
    assert new.activations > old.activations
    kept = {"activations": 0, "fetch_a": 0, "fetch_b": 0}
    assert replace(new, **kept) == replace(old, **kept)

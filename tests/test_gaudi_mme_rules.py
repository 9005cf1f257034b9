"""One case for each rule of the vendor's cost model: what it decides, next to the nearest problem where it does not.

Cases marked (vendor) are rows of the vendor's table; the others follow from reading its source, or by hand.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from overlap.devices.gaudi.mme import Gemm, cost, cycles, gemm_cost, mme_constants
from overlap.devices.gaudi.mme.choose import DESIGNS
from overlap.devices.gaudi.mme.geometry import Tile
from overlap.devices.gaudi.mme.problem import checked, shape_of
from overlap.devices.gaudi.mme.reuse import Pattern, Recipe, recipe

TIME = [
    ("a tile takes its depth", ("gaudi2", "bf16", "ab", 512, 256, 257), {"cycles": 257}),
    ("but no less than the roll-up", ("gaudi2", "bf16", "ab", 512, 256, 64), {"cycles": 256}),
    ("which is longer on Gaudi3", ("gaudi3", "bf16", "ab", 512, 1024, 64), {"cycles": 512}),
    ("tiles are whole", ("gaudi2", "bf16", "ab", 513, 256, 300), {"cycles": 600}),
    ("ten ports stall the first steps", ("gaudi2", "bf16", "ab", 8, 4096, 4096), {"cycles": 4 * 4096 + 4096 // 16}),
    ("by a whole step without a transpose", ("gaudi2", "bf16", "atb", 8, 4096, 4096), {"cycles": 5 * 4096}),
    ("by the columns of B where it is turned", ("gaudi2", "fp8", "atbt", 200, 1, 192, (4, 3, 4)), {"cycles": 3072}),
    ("which the roll-up hides (vendor)", ("gaudi2", "bf16", "abt", 681, 4, 6), {"cycles": 256}),
    ("again in every split (vendor)", ("gaudi2", "bf16", "abt", 8, 8192, 8192), {"cycles": 66560, "fetch_a": 2}),
    ("not in fp32, which is slower", ("gaudi2", "fp32", "ab", 8, 4096, 4096), {"cycles": 4 * 4096}),
    (
        "nor where the last port of an upright A is idle (vendor)",
        ("gaudi2", "bf16", "atb", 129, 33, 200, (5,)),
        {"geometry": "4xh", "cycles": 512},
    ),
    (
        "chunks shorter than the roll-up take it each (vendor)",
        ("gaudi3", "tf32", "abt", 16384, 32, 1000),
        {"cycles": 8 * 2 * 512, "fetch_b": 2},
    ),
    (
        "a walk of one step is one of the other direction (vendor)",
        ("gaudi2", "bf16", "ab", 1000, 383, 3, (2, 8, 4)),
        {"geometry": "4xh", "cycles": 49152, "utilisation": 0.7333793},
    ),
]
CONCURRENCY = [
    ("engines without work take the next matrix", ("gaudi2", "bf16", "ab", 256, 256, 1024, (4,)), {"cycles": 2048}),
    ("unless the matrix needs both", ("gaudi2", "bf16", "ab", 256, 257, 1024, (4,)), {"cycles": 4096}),
    ("a core has a matrix of its own", ("gaudi2", "bf16", "ab", 128, 128, 600, (8,)), {"concurrency": 4}),
    ("if it fits", ("gaudi2", "bf16", "ab", 128, 129, 600, (8,)), {"concurrency": 2, "width": 256}),
    ("or two", ("gaudi2", "bf16", "ab", 64, 64, 600, (8,)), {"concurrency": 8, "width": 64, "height": 64}),
    ("if both fit", ("gaudi2", "bf16", "ab", 65, 64, 600, (8,)), {"concurrency": 4}),
    ("and it is not fp8", ("gaudi2", "fp8", "ab", 64, 64, 600, (8,)), {"concurrency": 4, "width": 128}),
    (
        "wide cores as well (vendor)",
        ("gaudi2", "bf16", "ab", 3, 203, 30, (11,)),
        {"geometry": "4xw", "width": 256, "height": 128, "concurrency": 4, "cycles": 768},
    ),
    (
        "without a third batch dimension (vendor)",
        ("gaudi2", "bf16", "abt", 33, 129, 2047, (7, 3, 2)),
        {"geometry": "2xh", "concurrency": 2},
    ),
    ("in fp8 where A is turned", ("gaudi2", "fp8", "ab", 2, 137, 3, (30,)), {"geometry": "4xw", "concurrency": 4}),
    ("and not otherwise", ("gaudi2", "fp8", "atb", 2, 137, 3, (30,)), {"geometry": "2xh", "concurrency": 2}),
    (
        "and tall ones (vendor)",
        ("gaudi2", "bf16", "ab", 200, 15, 1000, (8,)),
        {"geometry": "4xh", "width": 64, "height": 256, "concurrency": 4, "cycles": 3562},
    ),
    ("in fp8 where B is turned", ("gaudi2", "fp8", "atbt", 200, 1, 192, (4, 3, 4)), {"width": 64, "height": 256}),
    ("and not otherwise (vendor)", ("gaudi2", "fp8", "ab", 192, 64, 2, (12, 16)), {"geometry": "2xh", "cycles": 24576}),
    ("units of Gaudi3 have one each", ("gaudi3", "bf16", "ab", 64, 128, 600, (16,)), {"concurrency": 16, "width": 128}),
    ("if it fits half their width", ("gaudi3", "bf16", "ab", 64, 129, 600, (16,)), {"concurrency": 8, "width": 256}),
    (
        "or all of it where they share B",
        ("gaudi3", "bf16", "atb", 2, 200, 300, (), 5),
        {"concurrency": 16, "width": 256, "height": 64},
    ),
    ("and not where they do not", ("gaudi3", "bf16", "atb", 2, 200, 300, (5,)), {"concurrency": 8}),
    ("matrices that are missing are lost", ("gaudi2", "bf16", "ab", 128, 128, 600, (5,)), {"utilisation": 0.625}),
    ("only the innermost dimension is shared out", ("gaudi2", "bf16", "ab", 128, 128, 600, (2, 8)), {"cycles": 4800}),
    ("though the best one fills the tile", ("gaudi2", "bf16", "ab", 128, 128, 600, (2, 8)), {"utilisation": 1}),
    ("on Gaudi3 the first one (vendor)", ("gaudi3", "bf16", "ab", 81, 5, 8, (3, 18)), {"utilisation": 0.011930466}),
    ("dimensions of size 1 are dropped", ("gaudi3", "fp8", "abt", 6, 1, 1, (1, 1, 134)), {"cycles": 9 * 512}),
]
HALF_HEIGHT = [
    ("short matrices halve a unit's height (vendor)", ("gaudi3", "bf16", "atb", 4, 3, 10), {"height": 64}),
    ("with as many rows as ports (vendor)", ("gaudi3", "bf16", "ab", 2, 4, 4), {"height": 64}),
    ("not with fewer (vendor)", ("gaudi3", "bf16", "ab", 1, 35, 1), {"height": 128}),
    ("each output port counts its own rows (vendor)", ("gaudi3", "bf16", "abt", 100, 1, 100000), {"height": 128}),
    ("anew for every grid of engines (vendor)", ("gaudi3", "bf16", "ab", 200, 17, 5000), {"height": 256}),
    (
        "and with twice the accumulators (vendor)",
        ("gaudi3", "bf16", "abt", 8, 32000, 4096),
        {"fetch_a": 2, "activations": 4},
    ),
]
GROUPS = [
    ("a group is stacked where A is turned", ("gaudi2", "bf16", "abt", 1, 1024, 128, (8, 8), 4), {"cycles": 16384}),
    ("and shares no time where it is not", ("gaudi2", "bf16", "atbt", 1, 1024, 128, (8, 8), 4), {"cycles": 4 * 16384}),
    (
        "stacked rows count as rows (vendor)",
        ("gaudi3", "bf16", "ab", 2, 5, 16, (2,), 3),
        {"height": 64, "cycles": 1024, "utilisation": 0.0019454956},
    ),
    (
        "if the tile does not get too large",
        ("gaudi3", "bf16", "abt", 3, 1, 316291, (6,), 37),
        {"concurrency": 16, "width": 128},
    ),
    ("as it does not here", ("gaudi3", "bf16", "abt", 3, 1, 1000, (6,), 37), {"concurrency": 8, "width": 256}),
    (
        "of divisors that are as good, the smallest",
        ("gaudi3", "bf16", "ab", 3, 7, 1, (1, 7), 32),
        {"utilisation": 96 / 128 * 7 / 256 * (6 + 7 / 8) / 7},
    ),
]
CHOICE = [
    (
        "of equal geometries the first of the list (vendor)",
        ("gaudi2", "bf16", "ab", 7, 4, 9, (8,)),
        {"geometry": "2xh"},
    ),
    ("Gaudi3's list begins with 2xw (vendor)", ("gaudi3", "fp32", "ab", 1024, 2000, 32), {"geometry": "2xw"}),
    ("four matrices leave 4xh and 4xw (vendor)", ("gaudi3", "bf16", "atb", 9, 9, 140, (4, 2)), {"geometry": "4xh"}),
    ("three do not", ("gaudi3", "bf16", "atb", 9, 9, 140, (3,)), {"geometry": "2xh"}),
    ("small ones leave 4xh (vendor)", ("gaudi3", "bf16", "abt", 129, 96, 129, (8,)), {"height": 256, "concurrency": 4}),
    ("a wide tile walks down", ("gaudi3", "bf16", "ab", 1024, 128, 1024, (32,)), {"geometry": "4xw", "pattern": "fkc"}),
    ("a single row of them along", ("gaudi2", "bf16", "ab", 8, 4096, 4096), {"geometry": "4xw", "pattern": "fck"}),
    (
        "by the tile of the last candidate (vendor)",
        ("gaudi2", "bf16", "abt", 1000, 1000, 31),
        {"geometry": "2xh", "pattern": "fkc", "fetch_a": 4, "fetch_b": 1},
    ),
]
REUSE = [
    ("what fits the buffer is read once (vendor)", ("gaudi2", "bf16", "atb", 1, 3160, 9), {"fetch_a": 1}),
    ("across the walk too (vendor)", ("gaudi2", "bf16", "abt", 511, 1000, 17, (4,)), {"fetch_a": 1, "fetch_b": 1}),
    ("16 matrices may reuse (vendor)", ("gaudi2", "bf16", "ab", 2084, 1530, 1, (16,)), {"activations": 9}),
    ("more may not (vendor)", ("gaudi3", "bf16", "abt", 500, 8, 16, (1000, 2)), {"fetch_b": 2}),
    ("the depth beyond the buffer is cut", ("gaudi2", "bf16", "ab", 512, 1024, 2816), {"activations": 2}),
    ("just below it is not", ("gaudi2", "bf16", "ab", 512, 1024, 2752), {"activations": 1}),
    ("lines are padded to the port", ("gaudi2", "tf32", "abt", 4, 12129, 692), {"activations": 6, "fetch_a": 3}),
    ("misaligned lines take two (vendor)", ("gaudi2", "bf16", "ab", 256, 1000, 5000), {"activations": 4}),
    ("a line of memory is two on Gaudi3 (vendor)", ("gaudi3", "bf16", "atb", 6144, 64, 8193), {"activations": 6}),
    ("ports share the depth on Gaudi3 (vendor)", ("gaudi3", "bf16", "atb", 17, 8191, 600), {"activations": 1}),
    ("in fp8 on Gaudi2 as well (vendor)", ("gaudi2", "fp8", "ab", 16384, 512, 3584), {"fetch_a": 2, "fetch_b": 1}),
    ("spans are whole granules", ("gaudi2", "fp8", "atb", 902, 31, 2755), {"activations": 2}),
    ("chunks are whole lines that fit (vendor)", ("gaudi2", "bf16", "ab", 6144, 1, 8192), {"activations": 14}),
    ("each accumulator holds a step (vendor)", ("gaudi3", "bf16", "atb", 1100, 1100, 5000), {"activations": 8}),
    ("one row of tiles each (vendor)", ("gaudi2", "bf16", "abt", 3072, 4097, 3000), {"activations": 90, "fetch_a": 5}),
    ("or one column (vendor)", ("gaudi2", "bf16", "ab", 8192, 512, 3584), {"activations": 16, "fetch_b": 4}),
    ("reuse ends after 240 steps (vendor)", ("gaudi2", "fp8", "ab", 131072, 512, 2048), {"activations": 2}),
    ("a loop after 256 (vendor)", ("gaudi2", "bf16", "abt", 524288, 2048, 2048), {"activations": 4, "fetch_b": 1024}),
    ("a batch as well (vendor)", ("gaudi2", "bf16", "abt", 128, 384, 15, (1000, 4)), {"activations": 8}),
    ("in concurrent matrices (vendor)", ("gaudi3", "bf16", "abt", 100, 8, 500, (300, 3)), {"activations": 1}),
    ("every matrix has its chunks (vendor)", ("gaudi2", "bf16", "abt", 2240, 58, 12670, (7,)), {"activations": 70}),
]
RULES = [*TIME, *CONCURRENCY, *HALF_HEIGHT, *GROUPS, *CHOICE, *REUSE]


@pytest.mark.parametrize(("rule", "asked", "expected"), RULES, ids=[rule for rule, _, _ in RULES])
def test_rule(rule: str, asked: tuple[Any, ...], expected: dict[str, Any]) -> None:
    found = gemm_cost(*asked)
    for name, value in expected.items():
        assert getattr(found, name) == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value), name


# Parts that no recommended strategy shows, or only together with others.


def tile(chip: str, geometry: str, gemm: Gemm) -> Tile:
    """The tile of a geometry, whether or not it wins."""
    return DESIGNS[chip].tile(mme_constants(chip), shape_of(checked(gemm)), geometry)


def test_ports_of_gaudi2() -> None:
    large = Gemm("fp8", "atb", 4096, 4096, 4096)
    wide, tall = tile("gaudi2", "4xw", large), tile("gaudi2", "4xh", large)
    assert (wide.interleaved, wide.lanes, wide.facing) == ((2, 2), (1, 2), (128, 128))
    assert (tall.interleaved, tall.lanes, tall.facing) == ((2, 2), (2, 1), (128, 128))
    turned = large._replace(dtype="bf16", op="abt")
    assert tile("gaudi2", "4xw", turned).interleaved == (2, 1)
    assert tile("gaudi2", "2xh", turned).interleaved == (2 * 2 * 2, 1)
    assert tile("gaudi2", "4xh", turned).interleaved == (4 * 2 * 2, 1)
    assert tile("gaudi2", "4xh", turned).facing == (64, 64)
    assert tile("gaudi2", "4xh", large._replace(dtype="bf16")).lanes == (1, 1)


def test_ports_of_gaudi3() -> None:
    large = Gemm("bf16", "ab", 4096, 4096, 4096)
    tall = tile("gaudi3", "4xh", large)
    assert (tall.interleaved, tall.lanes, tall.facing) == ((4 * 8, 4), (1, 4), (64, 256))
    upright = tile("gaudi3", "4xw", large._replace(op="atbt", m=8))
    assert (upright.interleaved, upright.lanes, upright.facing) == ((4, 1), (4, 1), (256, 64))
    assert (upright.height, upright.double_accumulators) == (128, True)


@pytest.mark.parametrize("geometry", ["4xw", "2xw", "2xh", "4xh"])
def test_a_quartered_engine_is_never_constrained(geometry: str) -> None:
    found = tile("gaudi2", geometry, Gemm("bf16", "ab", 64, 64, 64, (8,)))
    assert (found.width, found.height, found.concurrency, found.constrained) == (64, 64, 8, False)
    assert found.double_accumulators


def steps(gemm: Gemm, geometry: str, pattern: Pattern, splits: tuple[int, int] = (1, 1)) -> cycles.Steps:
    """Steps on Gaudi2 with a recipe of our own."""
    plan = Recipe(None, 1, *splits, 1)
    constants = mme_constants("gaudi2")
    return cycles.steps(constants, shape_of(gemm), tile("gaudi2", geometry, gemm), plan, pattern)


def test_constrained_steps_are_those_across_the_walk() -> None:
    column = Gemm("bf16", "ab", 3072, 100, 64)  # one tile of 4xh wide, three high
    assert steps(column, "4xh", "fkc").constrained == 1
    assert steps(column, "4xh", "fck").constrained == 1
    row = column._replace(m=1000, n=500)
    assert steps(row, "4xh", "fkc").constrained == 1
    assert steps(row, "4xh", "fck").constrained == 1
    both = column._replace(n=500)
    assert (steps(both, "4xh", "fkc").constrained, steps(both, "4xh", "fck").constrained) == (4, 3)
    assert steps(both, "4xh", "fck", (2, 3)).constrained == 3 * 2 * 3
    assert steps(both, "2xh", "fck", (2, 3)).constrained == 0


def test_more_constrained_steps_than_steps_never_win() -> None:
    gemm = Gemm("bf16", "ab", 3072, 500, 1000)
    count = steps(gemm, "4xh", "fck", (4, 3))
    assert count.constrained == 36 > count.tiles == 12
    constants, plan = mme_constants("gaudi2"), Recipe("a", 1, 4, 3, 1)
    assert cycles.vendor_cycles(constants, shape_of(gemm), plan, count) == (2**32 - 24) * 1000 + 36 * 2000
    assert cycles.hardware_cycles(constants, shape_of(gemm), plan, count) == 12 * 2000


def test_stalls_round_as_single_precision_does() -> None:
    # 17,000,001 · 1.25 lies between two floats; the lower one is taken.
    gemm = Gemm("bf16", "ab", 128, 4096, 17_000_001)
    constants = mme_constants("gaudi2")
    count = cycles.Steps(1, 1, 1, 1, 1.25)
    found = cycles.vendor_cycles(constants, shape_of(gemm), Recipe(None, 1, 1, 1, 1), count)
    assert found == 21_250_000


@pytest.mark.parametrize(
    ("gemm", "pattern", "level", "splits"),
    [
        (Gemm("bf16", "ab", 4096, 4096, 64), "fck", 1, (1, 1)),
        (Gemm("bf16", "ab", 4096, 4096, 64), "fck", 3, (1, 3)),
        (Gemm("bf16", "ab", 4096, 4096, 64), "fkc", 3, (3, 1)),
        # Too few tiles across the walk: along it, while every accumulator keeps one.
        (Gemm("bf16", "ab", 512, 4096, 64), "fck", 3, (3, 1)),
        (Gemm("bf16", "ab", 512, 2048, 64), "fck", 3, (2, 1)),
        (Gemm("bf16", "ab", 512, 1024, 64), "fck", 3, (1, 1)),
        (Gemm("bf16", "ab", 4096, 256, 64), "fkc", 3, (1, 2)),
        # Without reuse there is nothing to keep.
        (Gemm("bf16", "ab", 512, 512, 64, (32,)), "fck", 3, (2, 1)),
        # B is reused although the walk goes along the width.
        (Gemm("bf16", "ab", 4096, 256, 64), "fck", 3, (1, 2)),
    ],
)
def test_a_pipeline_asks_for_descriptors(gemm: Gemm, pattern: Pattern, level: int, splits: tuple[int, int]) -> None:
    constants = replace(mme_constants("gaudi2"), pipeline_level=level)
    found = recipe(constants, shape_of(gemm), tile("gaudi2", "2xh", gemm), pattern)
    assert (found.width_splits, found.height_splits) == splits


def test_a_pipeline_counts_in_the_cost() -> None:
    constants = mme_constants("gaudi2")
    gemm = Gemm("bf16", "ab", 4096, 4096, 1024)
    old, new = cost(constants, gemm), cost(replace(constants, pipeline_level=3), gemm)
    assert (old.activations, new.activations) == (1, 3)
    assert old.cycles == new.cycles

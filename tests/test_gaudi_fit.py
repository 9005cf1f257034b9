"""Fitted constants: from calibration rows only, and the values in the files are what the fit gives."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from overlap.devices.gaudi.constants import CHIPS, load_constants
from overlap.devices.gaudi.fit import GROUPS, fit, make_point
from overlap.devices.gaudi.validation.rows import read_rows

ROWS = {row.id: row for row in read_rows()}
FITTED_KEYS = {key for group in GROUPS.values() for key in group.limits}


def test_groups_read_calibration_rows_only() -> None:
    used = [ROWS[name] for group in GROUPS.values() for name in group.rows]
    assert used
    assert all(row.calibration and row.chip == "Gaudi2" for row in used)


def test_chips_cite_no_validation_row() -> None:
    """A constant that was taken from a row makes that row a calibration row."""
    cited = {
        (chip, name, found)
        for chip in CHIPS
        for name, entry in load_constants(chip).entries.items()
        for found in re.findall(r"[A-Z]+-\d{4}", entry.where)
    }
    assert len(cited) > 20
    assert not [one for one in cited if one[2] in ROWS and not ROWS[one[2]].calibration]


@pytest.mark.parametrize(
    ("m", "n", "itemsize", "tflops", "k"),
    [
        (16384, 256, 2, 11.014822, 32),  # GEMM-0169
        (8192, 1024, 2, 22.892688, 64),  # GEMM-0161
        (8192, 1024, 2, 45.726408, 128),  # GEMM-0159
        (16384, 1024, 4, 11.774035, 64),  # GEMM-0180
        (4096, 1024, 4, 5.7178121, 32),  # GEMM-0128
    ],
)
def test_the_roll_up_floor_of_gaudi1_is_a_rate_of_results(m: int, n: int, itemsize: int, tflops: float, k: int) -> None:
    """Calibration rows of Intel's gemm_params.csv with small K, 1.8 GHz: the same B per cycle for bf16 and fp32."""
    cycles = 2 * m * n * k / (tflops * 1e12) * 1.8e9
    assert m * n * itemsize / cycles == pytest.approx(197, rel=0.05)


def test_a_validation_row_is_refused() -> None:
    row = replace(ROWS["GEMM-0192"], use="val:mme")
    with pytest.raises(ValueError, match="no calibration row"):
        make_point(row)


def test_every_fitted_constant_has_a_group_and_the_other_way_round() -> None:
    entries = load_constants("gaudi2").entries
    assert {name for name, entry in entries.items() if entry.source == "fitted"} == FITTED_KEYS
    assert not [name for name, entry in load_constants("gaudi3").entries.items() if entry.source == "fitted"]


@pytest.mark.parametrize("name", GROUPS)
def test_the_files_hold_what_the_fit_gives(name: str) -> None:
    constants = load_constants("gaudi2")
    for key, (value, _, _) in fit(GROUPS[name], ROWS, constants, leave_out=False).items():
        entry = constants.entries[key]
        assert value == pytest.approx(entry.value, rel=0.03), key
        assert entry.low is not None
        assert entry.high is not None
        assert entry.low * 0.99 <= value <= entry.high * 1.01

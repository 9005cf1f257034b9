"""Fitted constants: from calibration rows only, and the values in the files are what the fit gives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlap.devices.gaudi.constants import load_constants
from overlap.devices.gaudi.fit import GROUPS, fit, make_point
from overlap.devices.gaudi.validation.rows import read_rows

ROWS = {row.id: row for row in read_rows()}
FITTED_KEYS = {key for group in GROUPS.values() for key in group.limits}


def test_groups_read_calibration_rows_only() -> None:
    used = [ROWS[name] for group in GROUPS.values() for name in group.rows]
    assert used
    assert all(row.calibration and row.chip == "Gaudi2" for row in used)


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

"""A slice of the fuzzing in `tests.fuzz`; the long run is a command of its own."""

from __future__ import annotations

import pytest

from tests.fuzz import run


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_give_a_trace_or_an_error_of_ours(seed: int) -> None:
    outcomes = list(run(60, seed))
    assert "trace" in outcomes
    assert "an error that says nothing" not in outcomes
    assert len(set(outcomes)) > 1, "some files must be beyond reading, or nothing was damaged"

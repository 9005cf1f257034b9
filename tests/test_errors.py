from __future__ import annotations

import pickle

import pytest

from overlap import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.OverlapError)]


@pytest.mark.parametrize("kind", KINDS)
def test_one_line_with_the_hint(kind: type[errors.OverlapError]) -> None:
    assert str(kind("14 heads", "use 16")) == "14 heads (use 16)"
    assert str(kind("14 heads")) == "14 heads"


@pytest.mark.parametrize("kind", KINDS)
def test_survives_a_worker_process(kind: type[errors.OverlapError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("message", "hint")))
    assert (type(copy), copy.message, copy.hint) == (kind, "message", "hint")


@pytest.mark.parametrize("kind", KINDS)
def test_says_what_it_is_for(kind: type[errors.OverlapError]) -> None:
    assert kind.__doc__

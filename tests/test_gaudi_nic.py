"""Sums over the cards: numbers by hand, what more cards and faster links do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.devices.gaudi.nic import all_reduce_ns
from tests.gaudi import CHIPS, machine

GAUDI2, GAUDI3 = (machine(chip).nic for chip in CHIPS)
MB = 10**6
degrees = st.integers(2, 8)


def test_by_hand() -> None:
    """8 cards, 64 MB: 2 x 7/8 of it over 7 peers' 3 links of 12.5 GB/s at 90 %."""
    carried = 2 * 64 * MB * 7 / 8 / (12.5 * 3 * 7 * 0.9)
    assert all_reduce_ns(GAUDI2, 64 * MB, 8) == pytest.approx(14960 + 7 * 1328 + carried)


def test_one_card_has_nothing_to_sum() -> None:
    assert all_reduce_ns(GAUDI2, 64 * MB, 1) == 0


def test_small_tensors_cost_the_start_large_ones_the_links() -> None:
    assert all_reduce_ns(GAUDI2, 1, 8) == pytest.approx(14960 + 7 * 1328, rel=1e-4)
    assert all_reduce_ns(GAUDI2, 1, 2) < all_reduce_ns(GAUDI2, 1, 8), "every peer must be told"
    assert all_reduce_ns(GAUDI2, 1000 * MB, 2) > all_reduce_ns(GAUDI2, 1000 * MB, 8), "two cards have 3 links only"


def test_links_of_gaudi3_are_twice_as_fast() -> None:
    start2, start3 = (all_reduce_ns(one, 0, 8) for one in (GAUDI2, GAUDI3))
    ratio = (all_reduce_ns(GAUDI2, 64 * MB, 8) - start2) / (all_reduce_ns(GAUDI3, 64 * MB, 8) - start3)
    assert ratio == pytest.approx(2.0)


@given(st.integers(0, 10**9), st.integers(0, 10**9), degrees)
def test_more_bytes_never_take_less_time(few: int, more: int, degree: int) -> None:
    assert all_reduce_ns(GAUDI2, few + more, degree) >= all_reduce_ns(GAUDI2, few, degree)


@given(st.integers(1, 10**9), degrees)
def test_every_constant_counts(nbytes: int, degree: int) -> None:
    base = all_reduce_ns(GAUDI2, nbytes, degree)
    for name in ("base_ns", "per_peer_ns"):
        assert all_reduce_ns(replace(GAUDI2, **{name: 2 * getattr(GAUDI2, name)}), nbytes, degree) > base
    for name, better in (("link_gb_per_s", 25.0), ("links_per_peer", 6), ("efficiency", 1.0)):
        assert all_reduce_ns(replace(GAUDI2, **{name: better}), nbytes, degree) < base  # type: ignore[arg-type]


@given(st.integers(1, 10**9), degrees)
def test_no_sum_is_faster_than_the_links(nbytes: int, degree: int) -> None:
    least = 2 * nbytes / degree / (GAUDI2.link_gb_per_s * GAUDI2.links_per_peer)
    assert all_reduce_ns(GAUDI2, nbytes, degree) >= least

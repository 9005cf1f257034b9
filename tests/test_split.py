from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.errors import SplitError
from overlap.search.config import SpaceConfig
from overlap.split import AXES, Split, blocks, canonical, check, chunk_shape, violations
from overlap.workload import Bucket, ModelShape, Workload
from tests.strategies import splits_of, workloads

SHAPE = ModelShape(name="toy", hidden=64, heads=8, kv_heads=4, head_dim=8, ffn=128, layers=4)
PREFILL = Workload(SHAPE, Bucket("prefill", 2, 64, 16))
cases = workloads().flatmap(lambda workload: st.tuples(st.just(workload), splits_of(workload)))


def test_every_field_has_an_axis_and_a_place_in_the_space() -> None:
    names = {one.name for one in fields(Split)}
    assert set(AXES) == names
    assert {one.name for one in fields(SpaceConfig)} == names
    assert all(axis.meaning and axis.route for axis in AXES.values())


@given(workloads())
def test_the_baseline_always_fits(workload: Workload) -> None:
    assert violations(Split(), workload) == []


@given(cases)
def test_drawn_splits_keep_the_rules(case: tuple[Workload, Split]) -> None:
    workload, split = case
    assert violations(split, workload) == []
    batch, query = chunk_shape(split, workload)
    assert batch * query * split.chunks == workload.bucket.batch * workload.bucket.query


@given(cases)
def test_canonical_is_legal_simpler_and_stable(case: tuple[Workload, Split]) -> None:
    workload, split = case
    simple = canonical(split, workload)
    assert violations(simple, workload) == []
    assert simple.complexity <= split.complexity
    assert canonical(simple, workload) == simple
    if simple.chunks == split.chunks > 1:
        assert chunk_shape(simple, workload) == chunk_shape(split, workload)


@given(cases)
def test_changed_tells_the_split(case: tuple[Workload, Split]) -> None:
    _, split = case
    assert Split(**split.changed()) == split  # type: ignore[arg-type]
    assert Split(**split.as_dict()) == split  # type: ignore[arg-type]
    assert len(str(split).split()) == max(1, split.complexity)


@pytest.mark.parametrize(
    "split",
    [
        Split(chunks=3),
        Split(chunks=0),
        Split(chunks=4, chunk_axis="batch"),
        Split(chunk_axis="depth"),
        Split(chunks=2, lag=-1),
        Split(chunks=2, lag=9),
        Split(head_groups=3),
        Split(head_groups=0),
        Split(query_tile=48),
        Split(chunks=2, query_tile=64),
        Split(query_tile=-1),
        Split(kv_tile=81),
        Split(masked_blocks="hide"),
        Split(normalise="never"),
        Split(softmax="slow"),
        Split(projections="half"),
        Split(fused_sdpa=True, kv_tile=16),
        Split(fused_sdpa=True, softmax="fast"),
        Split(layers_per_graph=3),
    ],
)
def test_a_broken_rule_is_named(split: Split) -> None:
    rules = violations(split, PREFILL)
    assert rules
    assert any(f"{name}={getattr(split, name)}".lower() in rules[0].lower() for name in AXES)
    with pytest.raises(SplitError) as caught:
        check(split, PREFILL)
    assert "\n" not in str(caught.value)
    assert str(PREFILL) in str(caught.value)


def test_heads_count_on_the_shard() -> None:
    sharded = replace(PREFILL, tensor_parallel=4)
    assert violations(Split(head_groups=4), PREFILL) == []
    assert violations(Split(head_groups=4), sharded)


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 20))
def test_blocks_cover_without_gap_or_overlap(start: int, length: int, size: int) -> None:
    pieces = list(blocks(start, start + length, size))
    assert [one for begin, end in pieces for one in range(begin, end)] == list(range(start, start + length))
    assert all(end - begin == size for begin, end in pieces[:-1])
    if not size:
        assert len(pieces) <= 1

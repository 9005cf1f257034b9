from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.analysis.words import split_in_words
from overlap.errors import SplitError
from overlap.kernels.capture import capture
from overlap.search.config import SpaceConfig
from overlap.split import AXES, CHOICES, Split, blocks, canonical, check, chunk_shape, violations
from overlap.workload import Bucket, ModelShape, Workload
from tests.strategies import splits_of, workloads

SHAPE = ModelShape(name="toy", hidden=64, heads=8, kv_heads=4, head_dim=8, ffn=128, layers=4)
PREFILL = Workload(SHAPE, Bucket("prefill", 2, 64, 16))
cases = workloads().flatmap(lambda workload: st.tuples(st.just(workload), splits_of(workload)))


def test_every_field_has_an_axis_and_a_place_in_the_space() -> None:
    names = {one.name for one in fields(Split)}
    assert set(AXES) == names
    assert {one.name for one in fields(SpaceConfig)} - {"when", "recipes"} == names
    assert all(axis.meaning and axis.route and axis.memory for axis in AXES.values())


def test_named_values_are_those_that_the_rules_know() -> None:
    """And the neutral one is among them."""
    for name, values in CHOICES.items():
        assert getattr(Split(), name) in values
        told = AXES[name].broken(replace(Split(), **{name: "other"}), PREFILL)
        assert told == f"{name}=other is not one of {', '.join(values)}"
    assert set(CHOICES) == {one.name for one in fields(Split) if isinstance(one.default, str)}


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
        Split(chunks=2, lag=5, turn="block"),
        Split(chunks=2, turn="layer"),
        Split(chunks=2, attend="half"),
        Split(chunks=2, attend="whole", lag=1),
        Split(chunks=2, chunk_axis="batch", attend="whole", lag=1),
        Split(chunks=2, chunk_axis="batch", attend="whole", turn="block"),
        Split(chunks=2, chunk_axis="batch", attend="whole", query_tile=48),
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
        Split(fused_sdpa=True, normalise="after", masked_blocks="skip"),
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


def test_turns_bound_the_lag() -> None:
    """A window of two layers has eight stages, or four blocks."""
    assert violations(Split(chunks=2, lag=8), PREFILL) == []
    assert violations(Split(chunks=2, lag=4, turn="block"), PREFILL) == []


def test_tiles_of_a_whole_attention_cut_the_whole_query() -> None:
    """Two chunks of 32 tokens that attend together can have a tile of 64."""
    workload = replace(PREFILL, bucket=Bucket("prefill", 2, 128, 16))
    tiled = Split(chunks=4, attend="whole", query_tile=64, masked_blocks="skip")
    assert violations(tiled, workload) == []
    assert violations(replace(tiled, attend="chunk"), workload)
    assert canonical(tiled, workload) == tiled
    assert canonical(replace(tiled, query_tile=128), workload) == Split(chunks=4, attend="whole")


@pytest.mark.parametrize(
    ("split", "context", "simple"),
    [
        (Split(turn="block"), 0, Split()),
        (Split(lag=2, turn="block", chunk_axis="batch"), 0, Split()),
        (Split(attend="whole"), 0, Split()),
        # Nothing lies before the diagonal of a single tile without context; behind a context it does.
        (Split(fused_sdpa=True, kv_tile=8, masked_blocks="skip"), 0, Split(fused_sdpa=True, masked_blocks="skip")),
        (
            Split(fused_sdpa=True, kv_tile=8, masked_blocks="skip"),
            16,
            Split(fused_sdpa=True, kv_tile=8, masked_blocks="skip"),
        ),
        (
            Split(chunks=2, fused_sdpa=True, kv_tile=8, masked_blocks="skip"),
            0,
            Split(chunks=2, fused_sdpa=True, kv_tile=8, masked_blocks="skip"),
        ),
    ],
)
def test_what_makes_no_difference_goes(split: Split, context: int, simple: Split) -> None:
    workload = replace(PREFILL, bucket=Bucket("prefill", 2, 64, context))
    assert violations(split, workload) == []
    assert canonical(split, workload) == simple


def programs_of(*splits: Split, context: int = 16) -> list[str]:
    """Fingerprints of what the splits make of a small prefill."""
    workload = replace(PREFILL, bucket=Bucket("prefill", 2, 64, context))
    return [capture(workload, one).fingerprint for one in splits]


def test_a_sliced_fused_attention_stays_apart_from_a_whole_one() -> None:
    """Even a slice as long as all keys ends at the diagonal, before which nothing is masked."""
    whole = Split(fused_sdpa=True, masked_blocks="skip")
    sliced, longest = replace(whole, kv_tile=16), replace(whole, kv_tile=80)
    assert canonical(longest, PREFILL) == canonical(sliced, PREFILL) == sliced
    apart, one, other = programs_of(whole, sliced, longest)
    assert apart != one == other


def test_a_step_of_decode_has_no_diagonal() -> None:
    """One slice of all keys is no cut there."""
    workload = replace(PREFILL, bucket=Bucket("decode", 2, 1, 15))
    whole = Split(fused_sdpa=True, masked_blocks="skip")
    assert canonical(replace(whole, kv_tile=16), workload) == whole
    assert canonical(replace(whole, kv_tile=8), workload) == replace(whole, kv_tile=8)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_what_canonical_drops_made_no_difference(case: tuple[Workload, Split]) -> None:
    """The program stays as it is, but for names of tiles and the parts of axes that hold no work at all."""
    workload, split = case
    # One tile of all keys, and masks that hide nothing, are simplified on purpose.
    if (split.kv_tile and not split.fused_sdpa) or workload.bucket.phase == "decode":
        split = replace(split, kv_tile=0)
    simple = replace(canonical(split, workload), masked_blocks=split.masked_blocks)
    found = [[one.kernel.key for one in capture(workload, each).ops] for each in (split, simple)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("split", "says"),
    [
        (Split(chunks=2, turn="block"), "all of its attention block, or its MLP"),
        (Split(chunks=2, turn="block", lag=1), "trails the one before it by 1 block."),
        (Split(chunks=2, turn="block", lag=2), "trails the one before it by 2 blocks."),
        (Split(chunks=2, lag=2), "trails the one before it by 2 stages."),
        (Split(chunks=2, attend="whole"), "computed once for all of them"),
        (Split(fused_sdpa=True, kv_tile=16, masked_blocks="skip"), "A slice of the fused attention covers 16 key"),
    ],
)
def test_words_tell_turns_and_slices(split: Split, says: str) -> None:
    assert violations(split, PREFILL) == []
    assert says in " ".join(split_in_words(split, PREFILL))


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

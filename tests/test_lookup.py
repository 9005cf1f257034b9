"""Which entry is for a shape, and whether a config is for this model, device and software."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.errors import TunedError
from overlap.serve.lookup import EXACT, NONE, PADDED, WAIVABLE, WORDS, Host, Lookup, check_key, shape_hash
from overlap.serve.tuned import Entry, Tuned
from overlap.workload import Bucket, ModelShape
from tests.tuned_configs import CHUNKS, HEADS, LLAMA, QUERY_TILES, QWEN, UNCUT, entry, table64, tuned

PROMPT = Bucket("prefill", 2, 1024, 128)
TABLE = table64()
SMALL = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 3))


def bucket_of(batch: int, query: int, context: int) -> Bucket:
    """As a stack says it: one new token behind others is a decode step."""
    return Bucket("decode" if query == 1 and context else "prefill", batch, query, context)


def at(lookup: Lookup, bucket: Bucket) -> tuple[Entry | None, str]:
    found = lookup.find(bucket.batch, bucket.query, bucket.context)
    assert bool(found.reason) == (found.entry is None)
    return found.entry, found.how


# -- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", [False, True])
def test_a_tuned_shape_gets_its_own_entry(pad: bool) -> None:
    """Whatever the order of the file, and however many others contain it."""
    lookup = Lookup(TABLE.with_entries(TABLE.entries), pad)
    for one in TABLE.entries:
        assert at(lookup, one.bucket) == ((None, NONE) if one.pass_through else (one, EXACT))


def test_where_the_baseline_won_nothing_is_done_and_the_reason_says_so() -> None:
    """Also if a larger bucket would have a split: this shape was measured, that one was not."""
    lookup = Lookup(tuned([entry(PROMPT, UNCUT), entry(replace(PROMPT, batch=4))]), pad=True)
    assert lookup.find(2, 1024, 128).reason == "the baseline was the best"
    assert lookup.find(2, 1000, 128).reason == "the baseline was the best"
    assert at(lookup, replace(PROMPT, batch=3))[1] == PADDED
    assert Lookup(tuned(), pad=True).find(1, 1, 0).reason == "no bucket contains this shape"


def test_without_padding_only_the_shape_itself_will_do() -> None:
    lookup = Lookup(tuned([entry(PROMPT)]))
    for field in ("batch", "query", "context"):
        for step in (-1, 1):
            assert at(lookup, replace(PROMPT, **{field: getattr(PROMPT, field) + step})) == (None, NONE)
    assert lookup.find(1, 1, 0).reason == "no bucket of this shape"


def test_phases_are_kept_apart() -> None:
    prompts, steps = Bucket("prefill", 4, 1024, 4096), Bucket("decode", 2, 1, 128)
    lookup = Lookup(tuned([entry(prompts), entry(steps, HEADS)]), pad=True)
    assert at(lookup, Bucket("decode", 4, 1, 128)) == (None, NONE)
    assert at(lookup, Bucket("decode", 1, 1, 100)) == (lookup.find(2, 1, 128).entry, PADDED)
    assert at(lookup, Bucket("prefill", 2, 2, 128)) == (lookup.find(4, 1024, 4096).entry, PADDED)


def test_one_token_behind_nothing_is_a_prompt() -> None:
    lookup = Lookup(tuned([entry(Bucket("prefill", 1, 1024, 0)), entry(Bucket("decode", 1, 1, 128), HEADS)]), pad=True)
    assert lookup.find(1, 1, 0).entry == lookup.find(1, 1024, 0).entry != lookup.find(1, 1, 1).entry


@pytest.mark.parametrize("shape", [(0, 1, 1), (1, 0, 5), (-1, 4, 0), (0, 0, 0)])
@pytest.mark.parametrize("pad", [False, True])
def test_what_computes_nothing_has_no_entry(shape: tuple[int, int, int], pad: bool) -> None:
    found = Lookup(TABLE, pad).find(*shape)
    assert (found.entry, found.how, found.reason) == (None, NONE, "nothing to compute")


def test_padded_is_the_bucket_with_the_fewest_scores() -> None:
    """Not the one with the fewest tokens: 8 x 128 over 128 scores less than 1 x 1024 over 1024."""
    wide, long = Bucket("prefill", 8, 128, 0), Bucket("prefill", 1, 1024, 0)
    lookup = Lookup(tuned([entry(long), entry(wide), entry(Bucket("prefill", 8, 1024, 0))]), pad=True)
    found, how = at(lookup, Bucket("prefill", 1, 100, 0))
    assert found is not None
    assert (found.bucket, how) == (wide, PADDED)


def brute(entries: Collection[Entry], want: Bucket) -> tuple[int, list[Bucket]]:
    """The fewest scores of the buckets that `want` fits into, and those buckets; written apart from the look-up."""
    best, which = 0, []
    for one in entries:
        b = one.bucket
        if b.phase != want.phase or b.batch < want.batch or b.query < want.query or b.context < want.context:
            continue
        scores = sum(b.context + b.query for _ in range(b.batch) for _ in range(b.query))
        if not which or scores < best:
            best, which = scores, []
        if scores == best:
            which.append(b)
    return best, which


@given(st.sets(SMALL, max_size=8), st.sets(SMALL, max_size=3), st.lists(SMALL, max_size=6))
def test_the_smallest_containing_bucket_is_found(
    shapes: set[tuple[int, int, int]], passing: set[tuple[int, int, int]], wanted: list[tuple[int, int, int]]
) -> None:
    config = tuned(entry(bucket_of(*one), UNCUT if one in passing else HEADS) for one in shapes)
    lookup = Lookup(config, pad=True)
    for shape in [*wanted, *wanted, *shapes]:
        want = bucket_of(*shape)
        _, best = brute(config.entries, want)
        exact = next((one for one in config.entries if one.bucket == want), None)
        expected = exact or next((one for one in config.entries if one.bucket in best[:1]), None)
        if expected is None or expected.pass_through:
            assert at(lookup, want) == (None, NONE)
        else:
            assert at(lookup, want) == (expected, EXACT if exact else PADDED)


@given(st.integers(1, 70), st.integers(1, 9000) | st.just(1), st.integers(1, 20000))
def test_never_a_bucket_that_does_not_contain_the_shape(batch: int, query: int, context: int) -> None:
    want = bucket_of(batch, query, context)
    found, how = at(Lookup(TABLE, pad=True), want)
    if found is not None:
        assert found.bucket.phase == want.phase
        assert found.bucket.batch >= batch
        assert found.bucket.query >= want.query
        assert found.bucket.context >= context
        assert how == (EXACT if found.bucket == want else PADDED)
    if not brute(TABLE.entries, want)[1]:
        assert (found, how) == (None, NONE)


def test_answers_are_kept() -> None:
    lookup = Lookup(TABLE, pad=True)
    assert lookup.find(3, 1, 100) is lookup.find(3, 1, 100)


# -- the key ---------------------------------------------------------------------------------------------------------


def host(model: ModelShape = LLAMA, degree: int = 1, kinds: Collection[str] = ("host",), **software: str) -> Host:
    return Host(model, degree, kinds, software or {"torch": "2.9.0"})


def refused(config: Tuned, here: Host, waived: Collection[str] = ()) -> str:
    with pytest.raises(TunedError) as caught:
        check_key(config, here, waived)
    return str(caught.value)


CONFIG = tuned([entry(PROMPT, CHUNKS)])


def test_what_agrees_is_taken_without_a_word() -> None:
    assert check_key(CONFIG, host()) == []


def test_names_and_constants_decide_no_work() -> None:
    other = replace(LLAMA, name="mine", norm_eps=1e-3, rope_theta=1.0)
    assert shape_hash(other) == shape_hash(LLAMA)
    assert check_key(CONFIG, host(other)) == []


@pytest.mark.parametrize("field", [name for name in ModelShape.__dataclass_fields__ if name not in WORDS])
def test_every_other_field_makes_another_model(field: str) -> None:
    value = getattr(LLAMA, field)
    other = replace(LLAMA, **{field: not value if isinstance(value, bool) else value * 2})
    if field == "kv_heads":
        other = replace(LLAMA, kv_heads=value // 2)
    assert shape_hash(other) != shape_hash(LLAMA)
    said = refused(CONFIG, host(other), WAIVABLE)
    assert f"tuned for another model, {LLAMA.name}: {field} {value}, not {getattr(other, field)}" in said


def test_every_difference_of_models_is_named() -> None:
    said = refused(CONFIG, host(QWEN))
    for name in ("hidden", "heads", "kv_heads", "ffn", "layers", "qkv_bias"):
        assert f"{name} {getattr(LLAMA, name)}, not {getattr(QWEN, name)}" in said
    assert "norm_eps" not in said


def test_degrees_must_agree_and_cannot_be_waived() -> None:
    assert "tuned for tensor_parallel 1, the model runs at 2" in refused(CONFIG, host(degree=2), WAIVABLE)


def test_dtypes_must_agree() -> None:
    here = host(replace(LLAMA, dtype="float32"))
    assert "tuned for bfloat16, the model is float32" in refused(CONFIG, here)
    assert check_key(CONFIG, here, ["dtype"]) == []


def test_devices_must_agree() -> None:
    assert "this is cuda" in refused(CONFIG, host(kinds=["cuda"]))
    assert "this is hpu or gaudi2" in refused(CONFIG, host(kinds=["hpu", "gaudi2"]))
    assert check_key(CONFIG, host(kinds=["cuda"]), ["device"]) == []
    assert "nobody knows" in check_key(CONFIG, host(kinds=[]))[0]


def test_a_config_of_a_model_of_the_device_is_taken_with_a_warning() -> None:
    here = host(kinds=["hpu", "gaudi2", "gaudi3"])
    assert check_key(table64(), here) == [f"tuned on a model of the device, {TABLE.device.name}"]
    assert check_key(tuned([entry()], kind="hpu"), here) == []


@pytest.mark.parametrize(
    ("mine", "theirs", "same"),
    [
        ("2.9.1", "2.9.0", True),
        ("2.9.0+cpu", "2.9.0+hpu.git1", True),
        ("2.9", "2.9.0", True),
        ("2.10.0", "2.9.0", False),
        ("3.9.0", "2.9.0", False),
        ("lazy", "compile", False),
    ],
)
def test_releases_must_agree_in_two_numbers(mine: str, theirs: str, same: bool) -> None:
    config = tuned(software={"torch": theirs})
    if same:
        assert check_key(config, host(torch=mine)) == []
    else:
        assert refused(config, host(torch=mine)).startswith(f"tuned with torch {theirs}, here is {mine}")
        assert check_key(config, host(torch=mine), ["software"]) == []


def test_what_one_side_does_not_know_is_a_warning() -> None:
    config = tuned(software={"torch": "2.9.0"})
    assert check_key(config, host(torch="")) == ["torch: tuned with 2.9.0, here is an unknown one"]
    said = check_key(config, host(**{"habana-torch-plugin": "1.23.0"}))
    assert said == ["habana-torch-plugin: tuned with an unknown version, here is 1.23.0"]
    assert check_key(config, host(torch=""), ["software"]) == []


def test_a_definite_difference_counts_beside_what_is_unknown() -> None:
    config = tuned(software={"torch": "2.9.0"})
    here: dict[str, Any] = {"plugin": "", "torch": "2.10"}
    assert "torch 2.9.0, here is 2.10" in refused(config, Host(LLAMA, 1, ("host",), here))


@pytest.mark.parametrize("name", ["model", "tensor_parallel", "", "torch"])
def test_only_three_parts_can_be_waived(name: str) -> None:
    assert f"{name!r} cannot be waived" in refused(CONFIG, host(), [name])


def test_everything_waivable_may_be_waived_at_once() -> None:
    here = host(replace(LLAMA, dtype="float16"), kinds=["cuda"], torch="1.0")
    assert check_key(tuned([entry(PROMPT, QUERY_TILES)], kind="gaudi3"), here, WAIVABLE) == []

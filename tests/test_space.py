"""The space as data: conditional axes, what is wrong with a space, and why nothing of it is left."""

from __future__ import annotations

import itertools
from dataclasses import fields
from importlib import resources
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.errors import ConfigError, SplitError
from overlap.search.candidate import Rejected, about_ops, enumerate_space, few_enough, require_some
from overlap.search.config import AXES, NEUTRAL, SpaceConfig
from overlap.split import Split, canonical, violations
from overlap.workload import Bucket, ModelShape, Workload
from tests.fakes import small_workload

SHIPPED = ("default", "model", "wide")
LLAMA_8B = ModelShape("llama-8b", 4096, 32, 8, 128, 14336, 32)


def space_of(name: str) -> SpaceConfig:
    """A space that comes with the package."""
    text = (resources.files("overlap.conf") / "space" / f"{name}.yaml").read_bytes()
    return SpaceConfig(**msgspec.yaml.decode(text))


def splits(workload: Workload | None = None, **space: Any) -> set[Split]:
    """What a space has for a workload."""
    return set(enumerate_space(SpaceConfig(**space), workload or small_workload())[0])


# -- conditions ------------------------------------------------------------------------------------------------------


def test_a_conditional_axis_is_neutral_where_its_condition_does_not_hold() -> None:
    when = {"lag": {"chunks": [4], "turn": ["block"]}}
    found = splits(chunks=[2, 4], lag=[1, 2], turn=["stage", "block"], when=when)
    assert {(one.chunks, one.turn, one.lag) for one in found} == {
        (2, "stage", 0),
        (2, "block", 0),
        (4, "stage", 0),
        (4, "block", 1),
        (4, "block", 2),
    }


@pytest.mark.parametrize("first", ["lag", "turn"])
def test_conditions_on_conditional_axes_see_what_those_became(first: str) -> None:
    """However they are written: turn falls back to stage for two chunks, and so lag to 0."""
    conditions = {"lag": {"turn": ["block"]}, "turn": {"chunks": [4]}}
    when = {name: conditions[name] for name in (first, *(name for name in conditions if name != first))}
    found = splits(chunks=[2, 4], lag=[1], turn=["block"], when=when)
    assert {(one.chunks, one.turn, one.lag) for one in found} == {(2, "stage", 0), (4, "block", 1)}


VALUES: dict[str, list[list[Any]]] = {
    "chunks": [[1], [2], [1, 2, 4]],
    "lag": [[0], [1], [0, 1]],
    "turn": [["stage"], ["block"], ["stage", "block"]],
    "query_tile": [[0], [0, 4]],
    "masked_blocks": [["skip"], ["compute", "skip"]],
}
ORDER = list(VALUES)


@given(
    st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()}),
    # Of axes that come later only, so that there is no circle.
    st.sets(st.sampled_from([(a, b) for a, b in itertools.combinations(ORDER, 2)]), max_size=3),
    st.data(),
)
def test_conditions_take_no_point_that_keeps_them(
    axes: dict[str, list[Any]], pairs: set[tuple[str, str]], data: st.DataObject
) -> None:
    """Points are those of the grid with every axis neutral exactly where a condition fails."""
    when: dict[str, dict[str, list[Any]]] = {}
    for axis, other in sorted(pairs):
        when.setdefault(axis, {})[other] = data.draw(st.sampled_from(VALUES[other]))
    workload = small_workload()
    found = splits(workload, **axes, when=when)
    expected = set()
    for point in itertools.product(*axes.values()):
        split = dict(zip(axes, point, strict=True))
        for axis in reversed(ORDER):
            if not all(split[other] in allowed for other, allowed in when.get(axis, {}).items()):
                split[axis] = NEUTRAL[axis]
        if not violations(Split(**split), workload):
            expected.add(canonical(Split(**split), workload))
    assert found == expected - {Split()}


# -- what is wrong with a space --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"chunks": []}, "space.chunks is empty (give at least one value)"),
        ({"turn": ["blok"]}, "space.turn has the value 'blok' (did you mean block? there are: stage, block)"),
        ({"when": {"lagg": {"chunks": [2]}}}, "space.when names 'lagg', which is no axis (did you mean lag?)"),
        ({"when": {"lag": {"chunk": [2]}}}, "space.when names 'chunk', which is no axis (did you mean chunks"),
        ({"when": {"recipes": {"chunks": [2]}}}, "space.when names 'recipes', which is no axis (axes are chunks"),
        ({"when": {"lag": {"chunks": ["2"]}}}, "space.when.lag.chunks has the value '2' (values of chunks are of type"),
        ({"when": {"lag": {"chunks": [True]}}}, "space.when.lag.chunks has the value True"),
        ({"when": {"lag": {"chunks": []}}}, "space.when.lag.chunks is empty"),
        ({"when": {"lag": {"attend": ["all"]}}}, "space.when.lag.attend has the value 'all'"),
        ({"when": {"lag": {"lag": [1]}}}, "space.when goes in a circle: lag -> lag"),
        ({"when": {"lag": {"turn": ["block"]}, "turn": {"lag": [1]}}}, "space.when goes in a circle: "),
    ],
)
def test_a_wrong_space_is_refused_with_the_place_and_the_reason(space: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SpaceConfig(**space)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


# -- an empty space --------------------------------------------------------------------------------------------------


def test_an_empty_space_says_which_rule_took_how_many() -> None:
    """Longest first, each with an example; the same rule with other numbers is one rule."""
    workload = small_workload()
    space = SpaceConfig(chunks=[3, 5, 7, 8], query_tile=[0, 5], kv_tile=[0, 99])
    found, rejected = enumerate_space(space, workload)
    kept = [one for one in rejected if one.split.chunks != 8 or one.split.query_tile or one.split.kv_tile]
    assert len(found) == 1
    assert len(kept) == len(rejected) == 15
    with pytest.raises(SplitError) as caught:
        require_some([], rejected, workload)
    assert str(caught.value) == (
        "no split of the space can run; rules took "
        "chunks: 12 of 15, as in chunks=3 does not divide the query dimension of 16; "
        "query_tile: 2 of 15, as in query_tile=5 does not divide the 2 query tokens of an attention; "
        "kv_tile: 1 of 15, as in kv_tile=99 is outside 0..16, the tokens to attend to "
        f"(workload: {workload})"
    )


def test_a_space_with_a_split_or_without_any_point_but_the_baseline_is_fine() -> None:
    """The baseline is always there to be kept."""
    workload = small_workload()
    require_some([Split(chunks=2)], [Rejected(Split(chunks=3), "chunks=3 is no good")], workload)
    require_some(*enumerate_space(SpaceConfig(), workload), workload)


def test_programs_with_too_many_ops_are_counted_as_a_rule_of_their_own() -> None:
    workload = small_workload()
    tiny, small = Split(query_tile=1, kv_tile=1), Split(chunks=2)
    found, large = few_enough([tiny, small], workload, about_ops(tiny, workload) - 1)
    assert found == [small]
    assert [one.split for one in large] == [tiny]
    assert "search.most_ops" in large[0].reason
    assert few_enough([tiny, small], workload, about_ops(tiny, workload)) == ([tiny, small], [])
    assert len({one.rule for one in [*large, Rejected(tiny, "query_tile=1 does not divide the 5 tokens")]}) == 2


# -- what comes with the package -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize(
    "bucket", [Bucket(query=2048), Bucket(batch=8, query=1024), Bucket("decode", 32, 1, 2048)], ids=str
)
def test_shipped_spaces_have_splits_for_every_kind_of_bucket(name: str, bucket: Bucket) -> None:
    found, _ = enumerate_space(space_of(name), Workload(LLAMA_8B, bucket))
    assert len(found) >= 5
    assert len({one.chunks for one in found}) > 1


def test_the_wide_space_varies_every_axis() -> None:
    """But for graphs, which only ever cost, and masked blocks, which nobody wants to compute."""
    space = space_of("wide")
    assert {name for name in AXES if len(getattr(space, name)) > 1} == set(AXES) - {"masked_blocks", "layers_per_graph"}
    found, _ = enumerate_space(space, Workload(LLAMA_8B, Bucket(batch=8, query=1024)))
    assert len(found) > 2000
    for field in fields(Split):
        varied = {getattr(one, field.name) for one in found}
        assert len(varied) > 1 or field.name == "layers_per_graph"


def test_the_default_space_stays_small() -> None:
    """A sweep of it is a matter of minutes on a device that is timed, where each split is screened for a second."""
    for bucket in (Bucket(query=2048), Bucket(batch=8, query=1024)):
        assert len(enumerate_space(space_of("default"), Workload(LLAMA_8B, bucket))[0]) <= 40

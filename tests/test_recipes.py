"""Recipes of the field: those that come with the package, a user's own, and files that are wrong."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.errors import ConfigError
from overlap.search.candidate import Candidate
from overlap.search.config import SpaceConfig
from overlap.search.recipes import ALL, Recipe, load_recipes, recipe_candidates, recipes_left_out
from overlap.split import Split, canonical, violations
from overlap.workload import Bucket, ModelShape, Workload
from tests.strategies import workloads

LLAMA_8B = ModelShape("llama-8b", 4096, 32, 8, 128, 14336, 32)
PREFILL = Workload(LLAMA_8B, Bucket(batch=8, query=4096))
SINGLE = Workload(LLAMA_8B, Bucket(query=4096))
DECODE = Workload(LLAMA_8B, Bucket("decode", 32, 1, 2048))
NAMES = [
    "attn_batch_split",
    "causal_skip",
    "fused_slices",
    "query_tiles",
    "split_projections",
    "stack",
    "stack_decode",
    "token_slices",
    "two_batch_overlap",
    "unsplit",
]
EVERY = SpaceConfig(recipes=[ALL])
GOOD = "name: mine\nmeaning: m\nsource: s\nsplit: {chunks: [2, 4], lag: 1}\n"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A user's own recipe."""
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return path


# -- those of the package --------------------------------------------------------------------------------------------


def test_shipped_recipes_are_called_as_their_files() -> None:
    assert [one.name for one in load_recipes([ALL])] == NAMES
    assert [load_recipes([name])[0].name for name in NAMES] == NAMES
    files = (resources.files("overlap.conf") / "recipe").iterdir()
    assert sorted(one.name for one in files if one.name.endswith(".yaml")) == [f"{name}.yaml" for name in NAMES]


def test_every_shipped_recipe_runs_somewhere_and_says_whose_it_is() -> None:
    found = {name for one in (PREFILL, SINGLE, DECODE) for name in recipe_candidates(EVERY, one, True)}
    assert found == set(NAMES)
    assert all(len(one.meaning) > 10 and len(one.source) > 10 for one in load_recipes([ALL]))


def points(name: str, workload: Workload, fused: bool = True) -> list[Split]:
    """Splits of a shipped recipe."""
    return [one.split for one in recipe_candidates(EVERY, workload, fused)[name]]


def test_shipped_recipes_are_what_they_are_named_after() -> None:
    """The points that the field knows, by hand."""
    assert points("unsplit", SINGLE) == [Split()]
    assert points("stack", SINGLE) == [
        Split(fused_sdpa=True, masked_blocks="skip"),
        Split(fused_sdpa=True, masked_blocks="skip", layers_per_graph=1),
    ]
    assert Split(chunks=4, chunk_axis="batch", turn="block") in points("attn_batch_split", PREFILL)
    assert Split(chunks=2, chunk_axis="batch", turn="block") in points("attn_batch_split", DECODE)
    assert Split(chunks=4, attend="whole") in points("token_slices", SINGLE)
    assert Split(chunks=8, chunk_axis="batch", attend="whole") in points("token_slices", PREFILL)
    assert Split(chunks=2, lag=3, masked_blocks="skip") in points("two_batch_overlap", SINGLE)
    assert Split(chunks=2, chunk_axis="batch", lag=1) in points("two_batch_overlap", PREFILL)
    assert Split(query_tile=1024, kv_tile=1024, fused_sdpa=True, masked_blocks="skip") in points("fused_slices", SINGLE)
    assert Split(query_tile=512, masked_blocks="skip") in points("causal_skip", SINGLE)
    assert Split(projections="split") in points("split_projections", SINGLE)
    assert points("stack_decode", DECODE) == [Split(), Split(layers_per_graph=1)]


def test_a_batch_that_three_do_not_divide_is_cut_by_two_and_four_only() -> None:
    assert {one.chunks for one in points("attn_batch_split", PREFILL)} == {2, 4}
    twelve = Workload(LLAMA_8B, Bucket(batch=12, query=512))
    assert {one.chunks for one in points("attn_batch_split", twelve)} == {2, 3, 4}


@settings(max_examples=40)
@given(workloads(), st.booleans())
def test_candidates_can_run_and_the_rest_has_a_reason(workload: Workload, fused: bool) -> None:
    """On any workload: a recipe has points, which keep the rules and are told once, or a reason why it has none."""
    found, left_out = recipe_candidates(EVERY, workload, fused), recipes_left_out(EVERY, workload, fused)
    assert sorted([*found, *left_out]) == NAMES
    for candidates in found.values():
        assert candidates
        assert len(set(candidates)) == len(candidates)
        for one in candidates:
            assert violations(one.split, workload) == []
            assert canonical(one.split, workload) == one.split
            assert fused or not one.split.fused_sdpa


def test_reasons_name_the_rule() -> None:
    found = recipes_left_out(EVERY, SINGLE, False)
    assert found == {
        "attn_batch_split": "chunks=2 does not divide the batch dimension of 1",
        "fused_slices": "the device has no fused attention of its own",
        "query_tiles": "the device has no fused attention of its own",
        "stack": "the device has no fused attention of its own",
        "stack_decode": "it is for decode",
    }
    assert recipe_candidates(SpaceConfig(recipes=[]), SINGLE, True) == {}


def test_tiles_that_cut_nothing_are_no_point_of_a_recipe() -> None:
    """Else the stack would run under two more names."""
    short = Workload(LLAMA_8B, Bucket(query=1024))
    found = recipes_left_out(EVERY, short, True)
    assert found["fused_slices"].startswith("query_tile=2048 does not divide the 1024 query tokens")
    assert found["query_tiles"].startswith("query_tile=2048 does not divide the 1024 query tokens")
    assert Recipe(name="n", meaning="m", source="s", split={"query_tile": 1024}).obstacle(short, True) == (
        "query_tile=1024 leaves nothing to cut"
    )
    assert {one.query_tile for one in points("causal_skip", short)} == {128, 256, 512}
    twice = Workload(LLAMA_8B, Bucket(query=2048))
    assert points("fused_slices", twice) == [
        Split(query_tile=1024, kv_tile=1024, fused_sdpa=True, masked_blocks="skip")
    ]
    # Behind a context there is something to slice for a single tile.
    behind = Workload(LLAMA_8B, Bucket(query=2048, context=2048))
    assert {(one.query_tile, one.kv_tile) for one in points("fused_slices", behind)} == {
        (1024, 1024),
        (1024, 2048),
        # 4096, of which the longest part before a diagonal is left.
        (1024, 3072),
        (0, 1024),
        (0, 2048),
    }


# -- a user's own ----------------------------------------------------------------------------------------------------


def test_one_small_file_is_a_recipe(written: Path) -> None:
    """All combinations of its values, in the order that it names."""
    space = SpaceConfig(recipes=["stack", str(written)])
    assert recipe_candidates(space, SINGLE, False) == {
        "mine": [Candidate(Split(chunks=2, lag=1)), Candidate(Split(chunks=4, lag=1))]
    }
    written.write_text(GOOD + "order: list\nphases: [decode]\n", encoding="utf-8")
    assert recipe_candidates(space, SINGLE, True).keys() == {"stack"}
    decode = Workload(LLAMA_8B, Bucket("decode", 4, 1, 64))
    written.write_text(GOOD.replace("lag: 1", "chunk_axis: batch") + "order: list\n", encoding="utf-8")
    assert [one.order for one in recipe_candidates(space, decode, True)["mine"]] == ["list", "list"]


def test_naming_a_recipe_twice_is_one_recipe(written: Path) -> None:
    names = [ALL, "stack", str(written), str(written)]
    assert [one.name for one in load_recipes(names)] == [*NAMES, "mine"]


def test_two_recipes_of_one_name_are_refused(written: Path) -> None:
    written.write_text(GOOD.replace("mine", "stack"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"two recipes are called 'stack' \(rename the one in .*mine\.yaml\)"):
        load_recipes([ALL, str(written)])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("stak", "there is no recipe 'stak' (did you mean stack"),
        ("xyzzy", "there is no recipe 'xyzzy' (one of attn_batch_split, causal_skip"),
        ("", "there is no recipe ''"),
        ("mine.json", "there is no recipe 'mine.json'"),
        ("nowhere/mine.yaml", "cannot read the recipe 'nowhere/mine.yaml': No such file or directory"),
        ("mi\0ne.yaml", "cannot read the recipe 'mi\\x00ne.yaml': "),
        ("~nobody-has-this-name/mine.yaml", "cannot read the recipe '~nobody-has-this-name/mine.yaml': "),
    ],
)
def test_a_recipe_that_is_not_there_is_named(name: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipes([name])
    assert str(caught.value).startswith(told)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"cannot read the recipe .*: Is a directory"):
        load_recipes([str(tmp_path / "folder.yaml")])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "wrong: Expected `object`, got `null`"),
        ("[1, 2]", "wrong: Expected `object`, got `array`"),
        ("name: [", "wrong: while parsing a flow node did not find"),
        ("\xff", "wrong: "),
        ("meaning: m\nsource: s\nsplit: {}", "missing required field `name`"),
        (GOOD.replace("mine", "''"), "has an empty name"),
        (GOOD.replace("mine", "1"), "Expected `str`, got `int` - at `$.name`"),
        (GOOD + "lag: 2", "unknown field `lag`"),
        (GOOD + "order: searched", "has order 'searched' (program or list)"),
        (GOOD + "phases: []", "has phases [] (of prefill, decode)"),
        (GOOD + "phases: [training]", "has phases ['training'] (of prefill, decode)"),
        (GOOD.replace("lag", "lagg"), "has an axis 'lagg', which does not exist (did you mean lag"),
        (GOOD.replace("lag: 1", "lag: '1'"), "has the value '1' (values of lag are of type int)"),
        (GOOD.replace("lag: 1", "lag: 1.5"), "has the value 1.5"),
        (GOOD.replace("lag: 1", "lag: true"), "has the value True"),
        (GOOD.replace("lag: 1", "lag: "), "has the value None"),
        (GOOD.replace("lag: 1", "lag: [[1]]"), "has the value [1]"),
        (GOOD.replace("lag: 1", "lag: []"), "is empty (give at least one value)"),
        (GOOD.replace("lag: 1", "turn: layer"), "has the value 'layer' (there are: stage, block)"),
        (GOOD.replace("lag: 1", "fused_sdpa: 1"), "has the value 1 (values of fused_sdpa are of type bool)"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_field(written: Path, text: str, told: str) -> None:
    written.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_recipes([str(written)])
    assert told in str(caught.value)
    assert str(written) in str(caught.value)
    assert "\n" not in str(caught.value)
    for field in ("lag", "turn", "fused_sdpa"):
        assert f"{field}: " not in text or "has the value" not in told or f"split.{field}" in str(caught.value)


def test_points_are_all_combinations() -> None:
    recipe = Recipe(name="n", meaning="m", source="s", split={"chunks": [1, 2], "lag": 1, "query_tile": [0, 8, 16]})
    assert len(set(recipe.points())) == 6
    assert {one.lag for one in recipe.points()} == {1}

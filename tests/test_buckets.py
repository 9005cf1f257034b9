"""Lists of buckets: grids spaced as stacks space them, files read as a whole or refused line by line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.bucket_file import read_buckets
from overlap.buckets import (
    MOST_BUCKETS,
    MOST_PAGES,
    BucketsConfig,
    DecodeGrid,
    Dimension,
    PrefillGrid,
    bucket_order,
    buckets_of,
    details_of,
    exponential,
    linear,
    usual_limit,
    within_limits,
)
from overlap.errors import ConfigError
from overlap.workload import Bucket

FILE = BucketsConfig(strategy="file", file="x", max_model_len=32768, max_num_batched_tokens=32768)
GRID = BucketsConfig(
    strategy="exponential", prefill=PrefillGrid(Dimension(), Dimension(128, 128, 8192), Dimension(0, 128, 8064))
)


def read(folder: Path, text: str, name: str = "buckets.txt", config: BucketsConfig = FILE) -> list[Bucket]:
    path = folder / name
    path.write_text(text)
    return read_buckets(path, config)


def refused(folder: Path, text: str, name: str = "buckets.txt", config: BucketsConfig = FILE) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, name, config)
    return str(caught.value)


# The examples that vLLM on Gaudi gives for its own formulas.
def test_exponential_as_vllm_spaces_it() -> None:
    assert exponential(Dimension(128, 128, 2048), 10) == [128, 256, 384, 512, 640, 896, 1152, 1536, 2048]


def test_linear_as_vllm_spaces_it() -> None:
    assert linear(Dimension(2, 32, 64)) == [2, 4, 8, 16, 32, 64]
    assert linear(Dimension(0, 128, 384)) == [0, 128, 256, 384]


def test_whole_powers_are_not_rounded_up() -> None:
    assert exponential(Dimension(128, 128, 8192), 7) == [128 << power for power in range(7)]
    assert exponential(Dimension(0, 128, 8192), 7) == [0, *(128 << power for power in range(7))]
    assert exponential(Dimension(1, 2, 64), 6) == [1, 2, 4, 8, 16, 32, 64]


def test_one_value_and_limit_one() -> None:
    assert exponential(Dimension(128, 128, 1024), 1) == [1024]
    assert exponential(Dimension(1, 8, 4), 3) == [1, 4]


DIMENSIONS = st.builds(
    lambda least, step, more: Dimension(least, step, least + more),
    *(st.integers(0, 300), st.integers(1, 128), st.integers(1, 3000)),
)


@given(DIMENSIONS, st.integers(2, 16))
def test_values_ascend_within_their_ends(dimension: Dimension, limit: int) -> None:
    for values in (linear(dimension), exponential(dimension, limit)):
        assert values == sorted(set(values))
        assert values[-1] == dimension.max
        assert values[0] >= dimension.min
        inner = [one for one in values[1:-1] if one >= dimension.step]
        assert all(one % dimension.step == 0 for one in inner)
    assert linear(dimension)[0] == dimension.min
    assert len(exponential(dimension, limit)) <= limit + 1


@given(st.integers(1, 500), st.integers(1, 64), st.integers(1, 3000))
def test_linear_leaves_no_gap_wider_than_a_step(least: int, step: int, more: int) -> None:
    values = linear(Dimension(least, step, least + more))
    gaps = [(a, b) for a, b in pairwise(values) if b > max(a + step, 2 * a)]
    assert gaps == []


def test_the_usual_limit_counts_powers_of_two() -> None:
    assert usual_limit("query", Dimension(128, 128, 8192)) == 13
    assert usual_limit("context", Dimension(0, 128, 8064)) == math.ceil(math.log2(63)) + 1
    assert usual_limit("batch", Dimension(1, 2, 64)) == 7
    assert usual_limit("batch", Dimension(1, 2, 64, limit=3)) == 3


def test_a_grid_is_sorted_and_within_its_limits() -> None:
    found = buckets_of(GRID, Bucket())
    assert found == sorted(set(found), key=bucket_order)
    assert all(within_limits(one, GRID) == "" for one in found)
    assert Bucket("prefill", 1, 8192, 0) in found
    assert Bucket("prefill", 1, 128, 8064) in found
    assert Bucket("prefill", 1, 256, 8064) not in found, "8320 tokens in a sequence of 8192"
    assert {one.phase for one in found} == {"prefill"}


def test_the_phase_is_the_workloads_unless_phases_are_given() -> None:
    decode = Bucket("decode", 1, 1, 128)
    assert {one.phase for one in buckets_of(GRID, decode)} == {"decode"}
    both = buckets_of(replace(GRID, phases=["decode", "prefill"]), decode)
    assert {one.phase for one in both} == {"prefill", "decode"}
    assert both == sorted(both, key=bucket_order)


def test_a_few_buckets_get_pages_of_their_own() -> None:
    counts = (1, MOST_PAGES, MOST_PAGES + 1)
    assert [details_of(BucketsConfig(), count) for count in counts] == ["full", "full", "light"]
    for details in ("full", "light"):
        assert {details_of(BucketsConfig(details=details), count) for count in (1, 4096)} == {details}


def test_single_is_the_workloads_own() -> None:
    assert buckets_of(BucketsConfig(), Bucket("prefill", 3, 7, 5)) == [Bucket("prefill", 3, 7, 5)]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"strategy": "lin"}, "strategy"),
        ({"details": "some"}, "details"),
        ({"phases": ["train"]}, "phases"),
        ({"jobs": -1}, "jobs"),
        ({"block_size": 0}, "block_size"),
        ({"strategy": "file"}, "file"),
        ({"strategy": "linear", "file": "x"}, "file"),
        ({"prefill": PrefillGrid(query=Dimension(0, 1, 4))}, "prefill.query.min"),
        ({"prefill": PrefillGrid(context=Dimension(-1, 1, 4))}, "prefill.context.min"),
        ({"decode": DecodeGrid(context=Dimension(0, 1, 4))}, "decode.context.min"),
        ({"decode": DecodeGrid(batch=Dimension(4, 1, 2))}, "decode.batch"),
        ({"decode": DecodeGrid(batch=Dimension(1, 0, 2))}, "decode.batch"),
    ],
)
def test_values_that_make_no_list_are_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"buckets.{named}"):
        BucketsConfig(**values)


def test_grids_that_are_empty_or_endless_are_refused() -> None:
    with pytest.raises(ConfigError, match="no bucket within max_model_len=64"):
        buckets_of(replace(GRID, max_model_len=64), Bucket())
    fine = PrefillGrid(query=Dimension(1, 1, 8192))
    with pytest.raises(ConfigError, match=f"at most {MOST_BUCKETS:,}"):
        buckets_of(replace(GRID, strategy="linear", prefill=fine), Bucket())
    square = PrefillGrid(Dimension(1, 1, 100), Dimension(1, 1, 100))
    with pytest.raises(ConfigError, match="10,000 buckets"):
        buckets_of(replace(GRID, strategy="linear", prefill=square), Bucket())


def test_a_file_of_tuples(tmp_path: Path) -> None:
    text = "# prompts\n\n(1, [128, 256], 0)\n  (2, 1024, range(4, 12, 4)),\n(4, 1, 64)\n(3, 1, 4)\n"
    assert read(tmp_path, text) == [
        Bucket("prefill", 1, 128, 0),
        Bucket("prefill", 1, 256, 0),
        Bucket("prefill", 2, 1024, 512),
        Bucket("prefill", 2, 1024, 1024),
        # Blocks of all sequences together: 64 of 128 tokens over 4 sequences, 4 over 3 rounded up.
        Bucket("decode", 4, 1, 2048),
        Bucket("decode", 3, 1, 171),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("(1, 128)", "not a tuple"),
        ("(1, 128, 0, 0)", "not a tuple"),
        ("[1, 128, 0]", "not a tuple"),
        ("(1, 128, 0", "not a tuple"),
        ("import os", "not a tuple"),
        ("\x00", "not a tuple"),
        ("(1, x, 0)", "x is no whole number"),
        ("(1, 128.0, 0)", "128.0 is no whole number"),
        ("(True, 128, 0)", "True is no whole number"),
        ("(1, '128', 0)", "is no whole number"),
        ("(1, 2**7, 0)", "is no whole number"),
        ("(1, open('x'), 0)", "is no whole number"),
        ("(1, [], 0)", "an empty list"),
        ("(1, [[1]], 0)", "is no whole number"),
        ("(1, range(0), 0)", "a range of 0 values"),
        ("(1, range(1, 10, 0), 0)", "not 0"),
        ("(1, range(stop=3), 0)", "range takes"),
        ("(1, range(100000), 0)", "a range of 100,000 values"),
        ("(1, range(2, 5000), 0)", "4,998 buckets"),
        ("(0, 128, 0)", "batch and query must be"),
        ("(-1, 128, 0)", "batch -1"),
        ("(1, 0, 0)", "query 0"),
        ("(1, 128, -1)", "context"),
        ("(4, 1, 3)", "4 sequences with 3 blocks"),
        ("(1, 1, 0)", "1 sequences with 0 blocks"),
        ("(1, 65536, 0)", "max_model_len is 32768"),
        ("(64, 1024, 0)", "max_num_batched_tokens is 32768"),
        ("(1, [128, 128], 0)", "prefill 1x128+0 twice"),
        ("(2, 256, 0)", "line 1 already"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_with_its_reason(tmp_path: Path, line: str, reason: str) -> None:
    message = refused(tmp_path, f"(2, 256, 0)\n# fine\n{line}\n")
    assert "1 of 2 lines" in message
    assert "line 3: " in message
    assert reason in message or reason.replace("batch and query must be", "batch 0") in message


def test_every_bad_line_is_named_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, "(1, 128, 0)\nnonsense\n(1, 256, 0)\n(1, 128, 0)\n(0, 1, 1)\n")
    assert "3 of 5 lines" in message
    assert [part for part in message.replace("; ", ": ").split(": ") if part.startswith("line ")] == [
        "line 2",
        "line 4",
        "line 5",
    ]
    assert "line 1 already" in message


def test_a_file_as_a_list_in_yaml_and_json(tmp_path: Path) -> None:
    entries = [
        {"phase": "prefill", "batch": 1, "query": 100},
        {"phase": "prefill", "batch": 1, "query": 100, "context": 7},
        {"phase": "decode", "batch": 2, "context": 9},
    ]
    expected = [Bucket("prefill", 1, 100, 0), Bucket("prefill", 1, 100, 7), Bucket("decode", 2, 1, 9)]
    assert read(tmp_path, json.dumps(entries), "b.json") == expected
    lines = "".join(f"- {json.dumps(entry)}\n" for entry in entries)
    assert read(tmp_path, lines, "b.yaml") == expected


def test_bad_entries_of_a_list_are_named_by_their_lines(tmp_path: Path) -> None:
    text = (
        "# mine\n- {phase: prefill, batch: 1, query: 128}\n- {phase: prefill, batch: 1}\n- 5\n"
        "- {phase: prefill, batch: 1, query: 128, kontext: 1}\n- phase: train\n  batch: 1\n  query: 2\n"
        "- {phase: decode, batch: 1, context: 2.5}\n- {phase: prefill, batch: 1, query: 128, context: 0}\n"
    )
    message = refused(tmp_path, text, "b.yaml")
    assert "6 of 7 lines" in message
    for part in (
        "line 3: query missing",
        "line 4: not a mapping",
        "line 5: there is no 'kontext'",
        "line 6: bucket phase 'train'",
        "line 9: context is 2.5",
        "line 10: prefill 1x128+0 is in line 2 already",
    ):
        assert part in message


@pytest.mark.parametrize(
    "text", ["{a: 1}", "", "[", "- {a: ", "\t- x", "--- \n...\n--- 1\n", "- !!python/name:os.system"]
)
def test_what_is_no_list_is_refused(tmp_path: Path, text: str) -> None:
    assert "b.yaml" in refused(tmp_path, text, "b.yaml")


def test_files_that_cannot_be_read_or_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the bucket file"):
        read_buckets(tmp_path / "none.txt", FILE)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not text"):
        read_buckets(tmp_path / "binary", FILE)
    assert "has no buckets" in refused(tmp_path, "# nothing\n\n")
    assert f"at most {MOST_BUCKETS:,}" in refused(tmp_path, "(1, range(2, 3002), 0)\n(2, range(2, 3002), 0)\n")


@given(text=st.text(alphabet="(),[]range0123456789- #x\n\"'", max_size=60))
def test_any_text_is_read_or_refused(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text(text)
    try:
        found = read_buckets(path, FILE)
    except ConfigError:
        return
    assert len(set(found)) == len(found)
    assert all(within_limits(one, FILE) == "" for one in found)


def test_a_bad_file_ends_the_command_on_one_line(cli, tmp_path: Path) -> None:
    (tmp_path / "my buckets.txt").write_text("(1, 128, 0)\n(1, 128, 0)\n(1, 2)\n")
    answer = cli("sweep", "buckets=file", f"buckets.file={tmp_path / 'my buckets.txt'}")
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert "line 2: prefill 1x128+0 is in line 1 already; line 3: " in answer.lines[0]


@pytest.mark.parametrize("option", ["single", "linear", "exponential"])
def test_the_options_that_come_with_it_compose(cli, option: str) -> None:
    assert cli("sweep", f"buckets={option}", "--cfg", "job").code == 0

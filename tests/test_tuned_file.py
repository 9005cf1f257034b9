"""Tuned configs as files: strict, with the line of every fault; whole or not at all."""

from __future__ import annotations

import json
import os
import re
import string
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overlap.errors import RunDirError, TunedError
from overlap.serve import tuned_file
from overlap.serve.tuned import SCHEMA, Entry, Spread, Tuned, merge
from overlap.serve.tuned_file import convert, load, loads, save, save_json
from overlap.split import Split
from overlap.workload import Bucket
from tests.tuned_configs import CHUNKS, UNCUT, alternative, entry, table64, tuned, tuned_configs, verified

TABLE = table64()
SMALL = TABLE.with_entries(TABLE.entries[:3])
TEXT = msgspec.yaml.encode(SMALL).decode()


def line_of(text: str, what: str, number: int = 1) -> int:
    """The line on which `what` comes for the `number`-th time."""
    return [index for index, line in enumerate(text.splitlines(), start=1) if re.search(what, line)][number - 1]


def refused(text: str) -> str:
    with pytest.raises(TunedError) as caught:
        loads(text, "t.yaml")
    assert caught.value.hint
    return caught.value.message


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tuned_configs())
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, config: Tuned) -> None:
    folder = tmp_path_factory.mktemp("round")
    save(config, folder / "t.yaml")
    save_json(config, folder / "t.json")
    assert load(folder / "t.yaml") == load(folder / "t.json") == config


def test_the_open_end_of_an_interval_survives(tmp_path: Path) -> None:
    open_end = msgspec.structs.replace(
        SMALL.entries[0], speedup=Spread(median=SMALL.entries[0].speedup.median, low=0.0, high=float("inf"))
    )
    config = SMALL.with_entries([open_end])
    save_json(config, tmp_path / "t.json")
    assert '"high": null' in (tmp_path / "t.json").read_text()
    save(config, tmp_path / "t.yaml")
    assert load(tmp_path / "t.json") == load(tmp_path / "t.yaml") == config


RICH = tuned(
    [
        entry(Bucket(), alternatives=(alternative(CHUNKS, recipe="token_slices"),), verified=verified()),
        entry(Bucket("decode", 4, 1, 128), UNCUT),
    ]
)
RICH_TEXT = msgspec.yaml.encode(RICH).decode()


@pytest.mark.parametrize("indent", [None, 0, 1, "\t"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_of_other_programs(indent: Any, ascii_only: bool) -> None:
    """Escaped halves of characters, tabs, short forms of numbers: all of it is JSON, and not all of it is YAML."""
    raw = msgspec.to_builtins(RICH)
    raw["device"]["name"] = "\U0001f600 \\ud83d \x7f"
    raw["model"]["norm_eps"] = 1e-05
    text = json.dumps(raw, indent=indent, ensure_ascii=ascii_only).replace("/", "\\/")
    if ascii_only:
        assert loads(text, "t.json") == loads(text.replace("\n", "\r\n"), "t.json") == convert(raw, "raw")
    else:
        assert loads(text.replace("\x7f", ""), "t.json").device.name == "\U0001f600 \\ud83d "


# -- faults and their lines --------------------------------------------------------------------------------------------


def named(text: str) -> Iterator[tuple[int, int, str, str]]:
    """Index, indentation, name and value of every line that has a field of a struct and its value."""
    for index, line in enumerate(text.splitlines()):
        lead, name, value = re.fullmatch(r"([ -]*)([\w]+):(.*)", line).groups()  # type: ignore[union-attr]
        if value:
            yield index, len(lead), name, value.strip()


def owner(lines: list[str], index: int, indent: int) -> int:
    """Line of the part that a field is in: its name, or its dash."""
    leads = [(at, re.match(r"( *)(- )?", lines[at])) for at in range(index - 1, -1, -1)]
    found = (at for at, lead in leads if lead and len(lead[1]) < indent)
    return next(found, 0) + 1


OPTIONAL = {"alternatives", "verified", "recipe", "overlap"}
FREE = set(RICH.device.software)


def test_missing_fields_name_the_line_of_their_struct() -> None:
    tried = set()
    for index, indent, name, _ in named(RICH_TEXT):
        lines = RICH_TEXT.splitlines()
        if "- " in lines[index] or name in OPTIONAL | FREE:
            continue
        at = owner(lines, index, indent)
        del lines[index]
        told = refused("\n".join(lines))
        assert f"t.yaml line {at}, " in told, (name, told)
        assert name in told
        tried.add(name)
    assert len(tried) > 60


def test_unknown_fields_name_their_line() -> None:
    for index, indent, name, _ in named(RICH_TEXT):
        lines = RICH_TEXT.splitlines()
        if "- " not in lines[index] and name not in FREE:
            lines.insert(index, " " * indent + "extra: 1")
            told = refused("\n".join(lines))
            assert re.match(rf"t\.yaml line {index + 1}, (.*\.)?extra: ", told), told


@pytest.mark.parametrize("value", ["[1]", "{}", "2026-01-02", "!!binary aGk="])
def test_wrong_types_name_their_line(value: str) -> None:
    for index, _, name, _ in named(RICH_TEXT):
        lines = RICH_TEXT.splitlines()
        lines[index] = lines[index].partition(":")[0] + f": {value}"
        told = refused("\n".join(lines))
        assert f"t.yaml line {index + 1}, " in told, (name, told)
        assert name in told


CHANGES: list[tuple[str, str, str]] = [
    ("tensor_parallel: .*", "tensor_parallel: two", "tensor_parallel: Expected `int`, got `str`"),
    ("hidden: .*", "hidden: -1", "model: model .*: hidden is -1"),
    ("kv_heads: .*", "kv_heads: 3", "model: model .* heads over 3 kv_heads"),
    ("phase: .*", "phase: train", r"entries\[0\]\.bucket: bucket phase 'train'"),
    ("query_tile: .*", "query_tile: 7", r"entries\[0\]\.split: query_tile=7 does not divide"),
    ("chunk_axis: .*", "chunk_axis: head", r"entries\[0\]\.split: chunk_axis=head is not one of"),
    ("order: .*", "order: mine", r"entries\[0\]\.order: 'mine' is not one of"),
    ("bound_us: (.*)", "bound_us: 0.001", r"entries\[0\]\.gap: .*a unit is wrong, or a number was edited"),
    ("gap: .*", "gap: 0.9", r"entries\[0\]\.gap: 0\.9, but"),
    ("mme: .*", "mme: 50.0", r"entries\[0\]\.busy\.mme: 50\.0 is no fraction"),
    ("both: .*", "both: 0.9", r"entries\[0\]\.busy\.both: 0\.9 is more than"),
    ("samples: .*", "samples: 0", r"entries\[0\]\.samples: 0 samples"),
    ("peak_bytes: .*", "peak_bytes: -5", r"entries\[0\]\.peak_bytes: -5 is negative"),
    ("rel_l2: .*", "rel_l2: .nan", r"entries\[0\]\.error\.rel_l2: nan is no error"),
    ("rel_l2: .*", "rel_l2: .inf", r"entries\[0\]\.error\.rel_l2: inf is no error"),
    ("evidence: .*", "evidence: hearsay", r"device\.evidence: 'hearsay'"),
    ("norm_eps: .*", "norm_eps: .inf", r"model\.norm_eps: inf is no number"),
    ("tiling: .*", "tiling: .nan", r"entries\[0\]\.attribution\.tiling: nan is no factor"),
    ("tensor_parallel: .*", "tensor_parallel: 0", r", tensor_parallel: tensor_parallel 0 for 32 heads"),
    ("window_layers: .*", "window_layers: 17", r", window_layers: window of 17 layers in a model of 16"),
    ("verdict: .*", "verdict: fine", r"entries\[0\]\.verified\.verdict: 'fine' is not one of gain"),
    ("rounds: .*", "rounds: 0", r"entries\[0\]\.verified\.rounds: 0 rounds"),
]


@pytest.mark.parametrize(("what", "by", "says"), CHANGES)
def test_nonsense_names_its_line(what: str, by: str, says: str) -> None:
    at = line_of(RICH_TEXT, rf"^\s*(- )?{what}")
    lines = RICH_TEXT.splitlines()
    lines[at - 1] = re.sub(what, by, lines[at - 1])
    told = refused("\n".join(lines))
    assert re.search(says, told), told
    # Rules that tie values together name the value or the part; types name the very line.
    line = int(re.search(r"line (\d+)", told)[1])  # type: ignore[index]
    assert abs(line - at) < 25


def scaled(entry: Entry, name: str, factor: float) -> Entry:
    spread: Spread = getattr(entry, name)
    values = {field: getattr(spread, field) * factor for field in spread.__struct_fields__}
    return msgspec.structs.replace(entry, **{name: Spread(**values)})


@pytest.mark.parametrize("name", ["latency_us", "baseline_latency_us"])
@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_times_in_another_unit(name: str, factor: float) -> None:
    wrong = SMALL.with_entries([scaled(one, name, factor) for one in SMALL.entries])
    assert "a unit is wrong" in refused(msgspec.yaml.encode(wrong).decode())


def test_an_interval_out_of_order() -> None:
    one = SMALL.entries[0]
    wrong = msgspec.structs.replace(one, speedup=Spread(median=one.speedup.median, low=5.0, high=6.0))
    told = refused(msgspec.yaml.encode(SMALL.with_entries([wrong])).decode())
    assert re.search(r"entries\[0\]\.speedup: low 5\.0, median .* are not in order", told)


def test_a_pass_through_that_splits() -> None:
    split = next(one for one in TABLE.entries if one.split.changed() and not one.pass_through)
    wrong = msgspec.structs.replace(split, pass_through=True)
    assert "in an entry that passes through" in refused(msgspec.yaml.encode(TABLE.with_entries([wrong])).decode())


def test_two_entries_for_a_bucket() -> None:
    twice = SMALL.with_entries([*SMALL.entries, SMALL.entries[0]])
    said = refused(msgspec.yaml.encode(twice).decode())
    assert re.search(r"entries\[1\]\.bucket: .* is there twice, first as entry 0", said)


def test_a_key_that_comes_twice() -> None:
    at = line_of(TEXT, "tensor_parallel:")
    assert refused(TEXT.replace("tensor_parallel: 1", "tensor_parallel: 1\ntensor_parallel: 2")) == (
        f"t.yaml line {at + 1}: tensor_parallel is there twice"
    )


def test_anchors_are_refused_at_once() -> None:
    assert "an anchor is used" in refused("schema: &a overlap.tuned/1\nmodel: *a\n")
    # Resolved, it would have 2 ** 52 items: this test would not end.
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise(string.ascii_letters))
    assert "an anchor is used" in refused(bomb)


@pytest.mark.parametrize("text", ["", "\n", "[]", "3", "null", "- schema: overlap.tuned/1", "words", "\t"])
def test_no_config_at_all(text: str) -> None:
    assert re.search("not a tuned config|not YAML", refused(text))


def test_places_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00s\x00c")
    for name, says in (("", "cannot read"), ("nothing.yaml", "cannot read"), ("binary.yaml", "is not text: byte 0")):
        with pytest.raises(TunedError, match=says):
            load(tmp_path / name)


def test_a_mark_of_utf_8_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert load(tmp_path / "t.yaml") == SMALL


def test_a_file_that_was_cut_off_within_a_line() -> None:
    for text in (RICH_TEXT, json.dumps(msgspec.to_builtins(RICH), indent=1)):
        for end in range(0, len(text) - 1, 5):
            if text[:end].rstrip(" ")[-1:] != "\n" or text[0] == "{":
                refused(text[:end])


def test_a_file_that_was_cut_off_between_lines() -> None:
    """It may look whole only where an entry or an optional part of one ends; nothing in the file says how many."""
    lines = RICH_TEXT.splitlines(keepends=True)
    whole = []
    for end in range(len(lines)):
        try:
            found = loads("".join(lines[:end]), "t.yaml")
        except TunedError:
            continue
        whole.append(lines[end].split(":")[0].strip())
        assert [one.bucket for one in found.entries] == [one.bucket for one in RICH.entries][: len(found.entries)]
    assert set(whole) <= {*OPTIONAL, "verdict", "- bucket"}


STRANGE = ["? [a, b]\n: 1", "? {a: b}\n: 1", "5: 1", "~: 1", "<<: {samples: 13}", "on: 1", "date: !!timestamp x"]
STRANGE += ["a: !!bool x", "a: !!int ''", "a: !!float x", "a: !!python/object:os.system x", "a: !!set {b}", "a: *b"]
STRANGE += ["a: " + "[" * 100_000, "a: " + "{b: " * 100_000, "- " * 100_000, "a: " + "9" * 5000, "--- 1", "a: \ud83d"]


@pytest.mark.parametrize("line", STRANGE, ids=range(len(STRANGE)))
def test_what_only_yaml_can_say(line: str) -> None:
    refused(f"{TEXT}{line}\n")
    refused(f"{line}\n{TEXT}")


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, len(TEXT) - 1),
    st.sampled_from([*string.punctuation, *"0e \n\t\r\0\x85", ""]) | st.characters(codec="utf-8"),
    st.booleans(),
)
def test_any_edit_is_answered(at: int, by: str, instead: bool) -> None:
    with suppress(TunedError):
        loads(TEXT[:at] + by + TEXT[at + instead :], "t.yaml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=100)
@given(VALUES)
def test_any_value_is_answered(raw: Any) -> None:
    for value in (raw, {"schema": SCHEMA, "entries": raw, "model": raw}):
        with pytest.raises(TunedError):
            convert(value, "record")


def test_every_axis_must_be_there() -> None:
    for field in fields(Split):
        raw = msgspec.to_builtins(SMALL)
        del raw["entries"][0]["split"][field.name]
        with pytest.raises(TunedError, match=rf"entries\[0\]\.split: {field.name} is missing"):
            convert(raw, "record")


# -- migration, merging, saving ----------------------------------------------------------------------------------------


def old(raw: dict[str, Any]) -> dict[str, Any]:
    """A schema that never was: `tp` for `tensor_parallel`."""
    raw = dict(raw, schema="overlap.tuned/0")
    raw["tp"] = raw.pop("tensor_parallel")
    return raw


def test_older_schemas_are_brought_up_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "overlap.tuned/-1": lambda raw: {**raw, "schema": "overlap.tuned/0"},
        "overlap.tuned/0": lambda raw: {
            **{name: value for name, value in raw.items() if name != "tp"},
            "schema": SCHEMA,
            "tensor_parallel": raw["tp"],
        },
    }
    monkeypatch.setattr(tuned_file, "MIGRATIONS", steps)
    raw = old(msgspec.to_builtins(SMALL))
    assert convert(raw, "old") == SMALL
    assert convert({**raw, "schema": "overlap.tuned/-1"}, "older") == SMALL
    with pytest.raises(TunedError, match=r"'overlap\.tuned/2' is unknown; this version reads overlap\.tuned/1"):
        convert({**raw, "schema": "overlap.tuned/2"}, "newer")


def test_a_migration_that_leads_nowhere_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned_file, "MIGRATIONS", {"overlap.tuned/0": lambda raw: raw})
    with pytest.raises(TunedError, match="unknown"):
        convert(old(msgspec.to_builtins(SMALL)), "old")
    turn: dict[str, Any] = {"a": lambda raw: {**raw, "schema": "b"}, "b": lambda raw: {**raw, "schema": "a"}}
    monkeypatch.setattr(tuned_file, "MIGRATIONS", turn)
    with pytest.raises(TunedError, match="'a' is unknown"):
        convert({"schema": "a"}, "old")
    monkeypatch.setattr(tuned_file, "MIGRATIONS", {"a": lambda _: None})
    with pytest.raises(TunedError, match="no schema"):
        convert({"schema": "a"}, "old")


def test_a_migration_that_fails_is_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned_file, "MIGRATIONS", {"overlap.tuned/0": lambda raw: raw["not there"]})
    with pytest.raises(TunedError, match="cannot be migrated"):
        convert(old(msgspec.to_builtins(SMALL)), "old")


def test_merging_takes_the_newer_of_a_bucket() -> None:
    newer = msgspec.structs.replace(TABLE.entries[1], samples=77)
    merged = merge(SMALL, TABLE.with_entries([newer, TABLE.entries[5]]))
    expected = [TABLE.entries[0], newer, TABLE.entries[2], TABLE.entries[5]]
    assert {one.bucket: one for one in merged.entries} == {one.bucket: one for one in expected}
    assert [one.place for one in merged.entries] == sorted(one.place for one in merged.entries)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", replace(SMALL.model, name="another")),
        ("tensor_parallel", 2),
        ("window_layers", 3),
        ("device", msgspec.structs.replace(SMALL.device, software={})),
    ],
)
def test_merging_refuses_what_cannot_be_compared(name: str, value: object) -> None:
    with pytest.raises(TunedError, match=f"differ in {name}"):
        merge(SMALL, msgspec.structs.replace(SMALL, **{name: value}))


@pytest.mark.parametrize("write", [save, save_json])
def test_saving_is_whole_or_not_at_all(
    write: Callable[[Tuned, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.yaml"
    write(SMALL, path)
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunDirError, match="No space left"):
        write(TABLE, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]

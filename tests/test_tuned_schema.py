"""The JSON Schema of tuned configs: as committed, and of the same opinion as the loader about what one value may be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from overlap.errors import TunedError
from overlap.serve.tuned import Tuned
from overlap.serve.tuned_file import convert, save_json
from overlap.serve.tuned_schema import FILE, schema, write
from overlap.workload import Bucket
from tests.tuned_configs import CHUNKS, UNCUT, alternative, entry, table64, tuned, tuned_configs, verified

CHECK = jsonschema.Draft202012Validator(schema())
Raw = dict[str, Any]


def plain(config: Tuned, folder: Path) -> Raw:
    """What other programs see: the JSON file."""
    save_json(config, folder / "tuned.json")
    found: Raw = json.loads((folder / "tuned.json").read_text())
    return found


def some() -> Tuned:
    return tuned(
        [
            entry(Bucket(), alternatives=(alternative(CHUNKS, 130.0, "list", "token_slices"),), verified=verified()),
            entry(Bucket("decode", 4, 1, 128), UNCUT),
        ]
    )


def test_the_committed_file_is_the_one_that_is_made() -> None:
    made = json.dumps(schema(), indent=1) + "\n"
    assert FILE.read_text() == made, "make it again: python -m overlap.serve.tuned_schema"


def test_the_module_writes_it(tmp_path: Path) -> None:
    assert write(tmp_path / "made.json").read_text() == FILE.read_text()
    command = [sys.executable, "-m", "overlap.serve.tuned_schema", str(tmp_path / "again.json")]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    assert said.stdout.strip() == command[-1]
    assert (tmp_path / "again.json").read_text() == FILE.read_text()


def test_it_is_a_schema_without_loose_ends() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    for name, one in schema()["$defs"].items():
        assert one["additionalProperties"] is False, name
        assert one["description"], name
        assert "\n" not in one["description"], name


def test_configs_validate(tmp_path: Path) -> None:
    for config in (some(), table64(), tuned()):
        CHECK.validate(plain(config, tmp_path))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tuned_configs())
def test_whatever_the_loader_takes_validates(config: Tuned) -> None:
    CHECK.validate(json.loads(msgspec.json.encode(config)))


def fields(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths of all fields of all structs; names of software are free."""
    found = []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        found += [(*path, key)] if isinstance(value, dict) and path[-1:] != ("software",) else []
        if isinstance(inner, (dict, list)):
            found += fields(inner, (*path, key))
    return found


def at(raw: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        raw = raw[key]
    return raw


def loads(raw: Raw) -> bool:
    try:
        convert(raw, "here")
    except TunedError:
        return False
    return True


def test_missing_fields_are_missing_to_both(tmp_path: Path) -> None:
    """Also those that have a default stay optional in both."""
    text = json.dumps(plain(some(), tmp_path))
    optional = set()
    for path in fields(json.loads(text)):
        raw = json.loads(text)
        del at(raw, path[:-1])[path[-1]]
        valid = CHECK.is_valid(raw)
        assert valid == loads(raw), path
        optional |= {path[-1]} if valid else set()
    assert optional == {"alternatives", "verified", "recipe", "overlap"}


def test_unknown_fields_are_unknown_to_both(tmp_path: Path) -> None:
    text = json.dumps(plain(some(), tmp_path))
    for path in {path[:-1] for path in fields(json.loads(text))}:
        raw = json.loads(text)
        at(raw, path)["extra"] = 1
        assert not CHECK.is_valid(raw), path
        assert not loads(raw), path


WORDS = ("phase", "dtype", "evidence", "chunk_axis", "turn", "attend", "masked_blocks", "softmax", "verdict")


@pytest.mark.parametrize("damage", [[], {}, "surely not this", -1, 1e99, True, None])
def test_what_the_schema_refuses_the_loader_refuses(damage: Any, tmp_path: Path) -> None:
    """One field at a time; the loader knows more, so it may refuse what the schema takes."""
    text = json.dumps(plain(some(), tmp_path))
    refused = 0
    for path in fields(json.loads(text)):
        raw = json.loads(text)
        at(raw, path[:-1])[path[-1]] = damage
        if not CHECK.is_valid(raw):
            refused += 1
            assert not loads(raw), path
        else:
            assert path[-1] not in WORDS, path
    assert refused > 50


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.update(schema="overlap.tuned/2"),
        lambda raw: raw.update(tensor_parallel=0),
        lambda raw: raw["model"].update(dtype="int4"),
        lambda raw: raw["model"].update(rope_theta=0),
        lambda raw: raw["device"]["software"].update(torch=2.9),
        lambda raw: raw["device"].update(evidence="guessed"),
        lambda raw: raw["entries"][0]["bucket"].update(phase="warmup"),
        lambda raw: raw["entries"][0]["bucket"].update(query=0),
        lambda raw: raw["entries"][0]["split"].update(chunks=0),
        lambda raw: raw["entries"][0]["split"].update(turn="layer"),
        lambda raw: raw["entries"][0]["split"].pop("lag"),
        lambda raw: raw["entries"][0]["busy"].update(mme=50.0),
        lambda raw: raw["entries"][0]["latency_us"].update(median=0),
        lambda raw: raw["entries"][0]["latency_us"].update(low=None),
        lambda raw: raw["entries"][0].update(order="fastest"),
        lambda raw: raw["entries"][0].update(bound_ms=0.05),
        lambda raw: raw["entries"][0]["verified"].update(verdict="fine"),
        lambda raw: raw["entries"][0]["verified"].update(rounds=0),
        lambda raw: raw["entries"][0]["verified"].update(evidence="guessed"),
        lambda raw: raw.update(entries={}),
    ],
)
def test_damaged_configs_do_not_validate(change: Callable[[Raw], object], tmp_path: Path) -> None:
    raw = plain(some(), tmp_path)
    change(raw)
    assert not CHECK.is_valid(raw)
    assert not loads(raw)


def test_only_the_upper_end_of_an_interval_may_be_open(tmp_path: Path) -> None:
    raw = plain(some(), tmp_path)
    raw["entries"][0]["latency_us"] |= {"low": 0, "high": None}
    CHECK.validate(raw)
    assert loads(raw)

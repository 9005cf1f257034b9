"""Reading and writing tuned configs, strictly: what is wrong with a file is told with its line.

Terms
    node: a value of the file with the place where it stands; YAML's reader finds it in JSON too.
    path: where a value is: `entries[0].latency_us.median`.
    migration: a step from one schema to the next, on plain values. There has been one schema so far.

Contract: `load` gives a config that obeys every rule of `tuned_rules`, or raises with file, line and path. What `save`
or `save_json` write, `load` reads back equal. Anchors and double keys are refused: a file in which two values are one,
or of which a part is ignored, is not what its reader thinks it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml  # type: ignore[import-untyped]

from overlap.errors import OverlapError, TunedError
from overlap.files import write_atomic
from overlap.serve.tuned import SCHEMA, Tuned
from overlap.serve.tuned_rules import faults
from overlap.split import Split
from overlap.workload import Bucket, ModelShape

HINT = "it is written by `overlap sweep` and `overlap collect`; take the number from a run, not by hand"
# From a schema to the next one; `load` applies as many as it takes to arrive at SCHEMA.
MIGRATIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(\w+)`")
SPREAD = {"median", "low", "high"}
# Halves of characters that JSON writes as two escapes; YAML has no such escapes.
_HALF = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_TEXT = "tag:yaml.org,2002:str"
# What YAML's constructors raise at values that are not what their tag says.
_UNREADABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
# A config nests 6 deep; composing is recursive, and a file of brackets only would end the process.
DEEPEST = 64


class _Wrong(Exception):
    """A fault with the path to it."""

    def __init__(self, path: str, sentence: str) -> None:
        super().__init__(sentence)
        self.path = path
        self.sentence = sentence


def save(tuned: Tuned, path: Path) -> None:
    """Write YAML, atomically.

    Raises:
        RunDirError: the file cannot be written; one that was there before stays as it was.
    """
    write_atomic(path, msgspec.yaml.encode(tuned))


def save_json(tuned: Tuned, path: Path) -> None:
    """Write JSON, atomically; the open end of an interval is null, for JSON has no infinity."""
    text = json.dumps(_closed(msgspec.to_builtins(tuned)), indent=1, allow_nan=False)
    write_atomic(path, text.encode())


def load(path: Path) -> Tuned:
    """Read and check a file, YAML or JSON.

    Raises:
        TunedError: it is not there, or not a tuned config; names the line and the field.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TunedError(f"cannot read {path}: {error.strerror}", "give the path of a tuned.yaml") from error
    except UnicodeDecodeError as error:
        raise TunedError(f"{path} is not text: byte {error.start}", "give the path of a tuned.yaml") from error
    return loads(text, str(path))


def loads(text: str, name: str) -> Tuned:
    """`load` for text that is called `name` in errors."""
    node, raw = _parse(text, name)
    try:
        tuned = _checked(raw)
        if not node.flow_style and not text.endswith(("\n", "\r")):
            raise TunedError(f"{name} ends in the middle of a line: it was cut off", "copy the file again")
        return tuned
    except _Wrong as wrong:
        line = _line(node, wrong.path)
        where = wrong.path.lstrip(".") or "the file"
        raise TunedError(f"{name} line {line}, {where}: {wrong.sentence}", HINT) from None


def convert(raw: Any, name: str) -> Tuned:
    """A tuned config from plain values, such as a record's; `name` says where they are from.

    Raises:
        TunedError: they are none; names the field.
    """
    try:
        return _checked(raw)
    except _Wrong as wrong:
        raise TunedError(f"{name}, {wrong.path.lstrip('.') or 'all of it'}: {wrong.sentence}", HINT) from None


def _parse(text: str, name: str) -> tuple[Any, Any]:
    """The root node, and the plain value of it."""
    try:
        has_json = text.lstrip().startswith("{")
        _refuse_deep(places := _HALF.sub(r"\\ufffd", text) if has_json else text, name)
        loader = _LOADER(places)
        try:
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise TunedError(f"{name} is not a tuned config", f"a mapping that begins with schema: {SCHEMA}")
            _refuse_ambiguous(node, name)
            # YAML reads 1e-06, as JSON writes it, as a word.
            return node, json.loads(text) if has_json else loader.construct_document(node)
        finally:
            loader.dispose()
    except _UNREADABLE as error:
        mark = getattr(error, "problem_mark", None)
        at = f" line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or (str(error) or type(error).__name__).splitlines()[0]
        raise TunedError(f"{name}{at} is not YAML, or was cut off: {what}", "copy the file again") from error


def _refuse_deep(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise TunedError(f"{name} line {event.start_mark.line + 1} is nested too deep", f"at most {DEEPEST} levels")


def _refuse_ambiguous(root: Any, name: str) -> None:
    """Raise for values that are used twice, keys that come twice, and keys that are no text, such as YAML's merge."""
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            raise TunedError(f"{name} line {node.start_mark.line + 1}: an anchor is used", "write the value out")
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                line = key.start_mark.line + 1
                if key.tag != _TEXT:
                    raise TunedError(f"{name} line {line}: a key that is not text", "take it out, or put it in quotes")
                if key.value in keys:
                    raise TunedError(f"{name} line {line}: {key.value} is there twice", "remove the one that is wrong")
                keys.add(key.value)
                waiting.append(value)


def _checked(raw: Any) -> Tuned:
    raw = _migrated(raw)
    _opened(raw)
    _complete(raw)
    try:
        tuned = msgspec.convert(raw, Tuned)
    except msgspec.ValidationError as error:
        sentence, _, path = str(error).partition(" - at `$")
        path = path.rstrip("`")
        unknown = _UNKNOWN.match(sentence)
        raise _Wrong(f"{path}.{unknown[1]}" if unknown else path, sentence) from None
    except OverlapError as error:
        raise _Wrong(_culprit(raw), str(error)) from None
    for path, sentence in faults(tuned):
        raise _Wrong(path, sentence)
    return tuned


def _migrated(raw: Any) -> dict[str, Any]:
    """Plain values in the present schema."""
    found = _with_schema(raw)
    passed: set[str] = set()
    while (schema := found["schema"]) != SCHEMA:
        # A step that leads back would go on for ever.
        if schema not in MIGRATIONS or schema in passed:
            raise _Wrong(".schema", f"{schema!r} is unknown; this version reads {SCHEMA}")
        passed.add(schema)
        try:
            found = _with_schema(MIGRATIONS[schema](found))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise _Wrong("", f"it cannot be migrated from {schema!r}: {error!r}") from None
    return found


def _with_schema(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict) or not isinstance(raw.get("schema"), str):
        raise _Wrong("", f"no schema; this version reads {SCHEMA}")
    return raw


def _complete(raw: Mapping[str, Any]) -> None:
    """Raise unless dataclasses, whose fields have defaults, have all of them and no others.

    Versions are looked at here too: `torch: 2.9` is a number to YAML, and msgspec would not say which one it was.
    """
    device = raw.get("device")
    software = device.get("software") if isinstance(device, dict) else None
    for name, version in software.items() if isinstance(software, dict) else ():
        if not isinstance(version, str):
            raise _Wrong(f".device.software.{name}", f"{version!r} is no text: put it in quotes")
    for path, value, kind in _parts(raw):
        if not isinstance(value, dict) or not is_dataclass(kind):
            continue
        names = [one.name for one in fields(kind)]
        if missing := [name for name in names if name not in value]:
            raise _Wrong(path, f"{missing[0]} is missing")
        if unknown := [str(name) for name in value if name not in names]:
            raise _Wrong(f"{path}.{unknown[0]}", f"there is no {unknown[0]!r} in a {kind.__name__}")


def _parts(raw: Mapping[str, Any]) -> list[tuple[str, Any, type]]:
    """Path, value and type of everything that is a dataclass in `Tuned`."""
    found: list[tuple[str, Any, type]] = [(".model", raw.get("model"), ModelShape)]
    entries = raw.get("entries")
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        if not isinstance(entry, dict):
            continue
        at = f".entries[{number}]"
        found += [(f"{at}.bucket", entry.get("bucket"), Bucket), (f"{at}.split", entry.get("split"), Split)]
        others = entry.get("alternatives")
        for other, one in enumerate(others if isinstance(others, list) else []):
            found += [(f"{at}.alternatives[{other}].split", one.get("split"), Split)] if isinstance(one, dict) else []
    return found


def _culprit(raw: Mapping[str, Any]) -> str:
    """Path of the part that its own class refuses."""
    for path, value, kind in _parts(raw):
        try:
            msgspec.convert(value, kind)
        except OverlapError:
            return path
    return ""


def _line(node: Any, path: str) -> int:
    """Where the value at `path` begins with its name, or the last one on the way to it that there is."""
    place = node
    for name, number in _STEP.findall(path):
        if name and isinstance(node, yaml.MappingNode):
            start, inner = next((pair for pair in node.value if pair[0].value == name), (None, None))
        else:
            items = node.value if number and isinstance(node, yaml.SequenceNode) else []
            start = inner = items[int(number)] if number and int(number) < len(items) else None
        if inner is None:
            break
        place, node = start, inner
    line: int = place.start_mark.line + 1
    return line


def _opened(value: Any) -> None:
    """Make the open ends of intervals infinite, in place."""
    if isinstance(value, dict):
        if value.keys() == SPREAD and value["high"] is None:
            value["high"] = math.inf
        for inner in value.values():
            _opened(inner)
    elif isinstance(value, list):
        for inner in value:
            _opened(inner)


def _closed(value: Any) -> Any:
    """The inverse: infinite numbers as None."""
    if isinstance(value, dict):
        return {name: _closed(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_closed(inner) for inner in value]
    return None if isinstance(value, float) and math.isinf(value) else value

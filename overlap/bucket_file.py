"""Buckets out of a file: the bucket file of vLLM on Gaudi, or a list in YAML or JSON.

vLLM's file has one tuple per line, `(batch, query, context)`. An item is a whole number, a list of them, or
`range(a, b, c)`; a line stands for all combinations. A query of 1 means decode. Contexts are counted in blocks: of one
sequence in prefill, of all sequences together in decode, which here becomes the tokens of each. Empty lines and lines
that begin with `#` are skipped.

A list in YAML or JSON (told by the file's suffix) has mappings with `phase`, `batch`, `query` and `context`, in tokens.
`query` may be left out in decode, `context` in prefill.

Contract: a file is used as a whole or not at all. Every line that cannot be used is named, with the reason; vLLM itself
stops at the first one without saying which.
"""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from overlap.buckets import MOST_BUCKETS, BucketsConfig, refuse_too_many, within_limits
from overlap.errors import ConfigError, WorkloadError
from overlap.workload import Bucket

LIST_SUFFIXES = (".yaml", ".yml", ".json")
# vLLM's own limit.
MOST_IN_RANGE = 10_000
FIELDS = tuple(one.name for one in fields(Bucket))
HOW = "a tuple (batch, query, context) of whole numbers, lists of them, or range(a, b, c)"


class _Refused(Exception):  # Not an error of the user yet: lines are collected first.
    """Why a line cannot be used."""


@dataclass
class _Lines:
    """What was read so far: buckets with the line that brought them, and reasons by line."""

    config: BucketsConfig
    found: dict[Bucket, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, number: int, read: Callable[[], Sequence[Bucket]]) -> None:
        """Take the buckets of one line; all of them, or none and the reason."""
        self.count += 1
        try:
            fresh = read()
            for at, bucket in enumerate(fresh):
                self._refuse_double(bucket, fresh[:at])
                if reason := within_limits(bucket, self.config):
                    raise _Refused(f"{bucket} has {reason}")
        except (_Refused, WorkloadError) as error:
            reason = error.message if isinstance(error, WorkloadError) else str(error)
            self.faults.append(f"line {number}: {reason}")
        else:
            self.found.update(dict.fromkeys(fresh, number))

    def _refuse_double(self, bucket: Bucket, before: Sequence[Bucket]) -> None:
        if bucket in self.found:
            raise _Refused(f"{bucket} is in line {self.found[bucket]} already")
        if bucket in before:
            raise _Refused(f"{bucket} twice")


def read_buckets(path: Path, config: BucketsConfig) -> list[Bucket]:
    """The buckets of the file at `path`, as they stand there.

    Raises:
        ConfigError: it cannot be read, holds none or too many, or has lines that cannot be used; all of them are named.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"cannot read the bucket file {path}: {reason}", "buckets.file=<path>") from error
    lines = _Lines(config)
    for number, read in (_listed if path.suffix in LIST_SUFFIXES else _tuples)(text, path, config):
        lines.add(number, read)
    if lines.faults:
        what = f"{len(lines.faults)} of {lines.count} lines of {path} cannot be used"
        raise ConfigError(f"{what}: {'; '.join(lines.faults)}", "correct or remove them")
    if not lines.found:
        raise ConfigError(f"{path} has no buckets", HOW)
    refuse_too_many(len(lines.found), str(path))
    return list(lines.found)


Reads = Iterator[tuple[int, Callable[[], Sequence[Bucket]]]]


def _tuples(text: str, path: Path, config: BucketsConfig) -> Reads:
    """One reader per line of a file in vLLM's form."""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line and not line.startswith("#"):
            yield number, partial(_of_tuple, line, config.block_size)


def _of_tuple(line: str, block_size: int) -> list[Bucket]:
    try:
        tree = ast.parse(line.rstrip(","), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _Refused(f"not {HOW}") from None
    if not isinstance(tree, ast.Tuple) or len(tree.elts) != 3:
        raise _Refused(f"not {HOW}")
    batches, queries, contexts = (_numbers(node) for node in tree.elts)
    count = len(batches) * len(queries) * len(contexts)
    if count > MOST_BUCKETS:
        raise _Refused(f"{count:,} buckets, more than {MOST_BUCKETS:,}")
    return [_of_blocks(*point, block_size) for point in itertools.product(batches, queries, contexts)]


def _numbers(node: ast.expr) -> Sequence[int]:
    """The values of one item."""
    if isinstance(node, ast.List):
        if not node.elts:
            raise _Refused("an empty list")
        return [_number(one) for one in node.elts]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        bounds = [_number(one) for one in node.args]
        if node.keywords or not 1 <= len(bounds) <= 3 or (len(bounds) == 3 and bounds[2] == 0):
            raise _Refused("range takes a start, an end and a step that is not 0")
        found = range(*bounds)
        if not 1 <= len(found) <= MOST_IN_RANGE:
            raise _Refused(f"a range of {len(found):,} values; 1 to {MOST_IN_RANGE:,} are read")
        return found
    return [_number(node)]


def _number(node: ast.expr) -> int:
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    inner = node.operand if isinstance(node, ast.UnaryOp) and negative else node
    if not isinstance(inner, ast.Constant) or type(inner.value) is not int:
        raise _Refused(f"{ast.unparse(node)} is no whole number")
    return -inner.value if negative else inner.value


def _of_blocks(batch: int, query: int, blocks: int, block_size: int) -> Bucket:
    if query != 1:
        return Bucket("prefill", batch, query, blocks * block_size)
    if batch >= 1 and blocks < batch:
        raise _Refused(f"decode of {batch} sequences with {blocks} blocks: every sequence needs one at least")
    return Bucket("decode", batch, 1, math.ceil(blocks * block_size / max(1, batch)))


def _listed(text: str, path: Path, config: BucketsConfig) -> Reads:
    """One reader per entry of a list in YAML, of which JSON is a part."""
    import yaml  # type: ignore[import-untyped]

    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.SequenceNode):
            raise ConfigError(f"{path} holds no list", "a list of {phase, batch, query, context}")
        entries = [(one.start_mark.line + 1, loader.construct_document(one)) for one in node.value]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{at} is not YAML: {getattr(error, 'problem', None) or error}", "a list") from error
    finally:
        loader.dispose()
    for number, entry in entries:
        yield number, partial(_of_mapping, entry)


def _of_mapping(entry: Any) -> list[Bucket]:
    if not isinstance(entry, dict) or not all(isinstance(name, str) for name in entry):
        raise _Refused(f"not a mapping of {', '.join(FIELDS)}")
    if unknown := [name for name in entry if name not in FIELDS]:
        raise _Refused(f"there is no {unknown[0]!r} in a bucket; there are {', '.join(FIELDS)}")
    filled = {**({"query": 1} if entry.get("phase") == "decode" else {"context": 0}), **entry}
    if missing := [name for name in FIELDS if name not in filled]:
        raise _Refused(f"{' and '.join(missing)} missing")
    for name in FIELDS[1:]:
        if type(filled[name]) is not int:
            raise _Refused(f"{name} is {filled[name]!r}, no whole number")
    return [Bucket(**filled)]

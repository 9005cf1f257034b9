"""Lines of a bucket file as vLLM on Gaudi reads them, which stops at the first bad one without saying which.

Terms
    line: a tuple `(batch, query, context)`; every item is a whole number, a list of them, or `range(a, b, c)`. Contexts
        are blocks, a query of 1 means decode. Empty lines and lines that begin with `#` are skipped.
    left out: buckets that are beyond a limit of the server. They are no error, and nothing runs in them.

`overlap.bucket_file` reads the same files for a sweep and is stricter: it also refuses buckets that come twice.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from overlap.bucket_file import HOW, MOST_IN_RANGE

Items = tuple[Sequence[int], Sequence[int], Sequence[int]]


class _Refused(Exception):  # Not an error of the user yet: lines are collected first.
    """Why a line cannot be used."""


@dataclass(frozen=True)
class Limits:
    """What the server would run, as far as it is known; `contiguous` says how the KV cache is read."""

    block: int
    model_len: int | None = None
    tokens: int | None = None
    contiguous: bool | None = None


def check_lines(lines: Iterable[str], limits: Limits) -> Iterator[tuple[bool, str]]:
    """Whether it is an error, and what is wrong with which line."""
    used = 0
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        used += 1
        try:
            if reason := _left_out(_items(line), limits):
                yield False, f"line {number}: {reason}: no request gets these buckets"
        except _Refused as error:
            yield True, f"line {number}: {error}, and vLLM stops at the start: correct or remove the line"
    if not used:
        yield False, "has no buckets: every shape is compiled when it first comes"


def _items(line: str) -> Items:
    try:
        tree = ast.parse(line, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _Refused(f"this is not {HOW}") from None
    if not isinstance(tree, ast.Tuple) or len(tree.elts) != 3:
        raise _Refused(f"this is not {HOW}")
    batch, query, context = (_numbers(node) for node in tree.elts)
    if min(batch) < 1 or min(query) < 1 or min(context) < 0:
        raise _Refused("batch and query are 1 or more, contexts 0 or more")
    return batch, query, context


def _numbers(node: ast.expr) -> Sequence[int]:
    if isinstance(node, ast.List):
        found: Sequence[int] = [_number(one) for one in node.elts]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        bounds = [_number(one) for one in node.args]
        if node.keywords or not 1 <= len(bounds) <= 3 or (len(bounds) == 3 and bounds[2] == 0):
            raise _Refused("range takes a start, an end and a step that is not 0")
        found = range(*bounds)
    else:
        found = [_number(node)]
    if not 1 <= len(found[: MOST_IN_RANGE + 1]) <= MOST_IN_RANGE:
        raise _Refused(f"a list or range has 1 to {MOST_IN_RANGE:,} values")
    return found


def _number(node: ast.expr) -> int:
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    inner = node.operand if isinstance(node, ast.UnaryOp) and negative else node
    if not isinstance(inner, ast.Constant) or type(inner.value) is not int:
        raise _Refused("an item is no whole number")
    return -inner.value if negative else inner.value


def _left_out(items: Items, limits: Limits) -> str:
    """Why some buckets of a line are left out; empty if none is."""
    batch, query, context = items
    prompts = [one for one in query if one != 1]
    longest = limits.model_len
    if longest is not None and max(query) > longest:
        return f"query {max(query)} is above --max-model-len {longest}"
    if longest is not None and prompts and max(context) > (most := -(-(longest - 1) // limits.block)):
        return f"context {max(context)} is above the {most} blocks of --max-model-len {longest}"
    if limits.tokens is not None and prompts and max(batch) * max(prompts) > limits.tokens:
        return f"{max(batch)} times {max(prompts)} tokens are above --max-num-batched-tokens {limits.tokens}"
    if 1 in query and limits.contiguous is False and max(batch) > min(context):
        return f"decode of {max(batch)} sequences with {min(context)} blocks, and every sequence needs one"
    return ""

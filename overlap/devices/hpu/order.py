"""Whether the card did what was asked: matrix nodes of a trace against the matrix calls of a program.

A graph compiler may merge the chunks of a split back into one GEMM, cut one GEMM into slices, or run nodes in an order
of its own. A trace tells: it has a row per launch, named after the node of the graph. Nodes are numbered in the order
in which they were created, which is the order that was asked for; numbers that grow with time mean that it was kept.

Terms
    node: launches of one name; slices of a node carry `op_...` behind the node's path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from overlap.capture.kernelize import MATRIX, base_name
from overlap.program import Engine, Program

SLICE = re.compile(r"/op_[\d_]+$")
NUMBER = re.compile(r"[/_](\d+)$")
BATCHED = ("batchgemm", "batch_gemm", "bgemm")


@dataclass(frozen=True)
class Obeyed:
    """What a trace says of an order; `kept` is None where it does not tell."""

    asked: int
    found: int
    kept: bool | None
    text: str

    @property
    def merged(self) -> bool:
        """Fewer matrix nodes than asked for."""
        return self.found < self.asked


def obeyed(events: pl.DataFrame, program: Program, order: Sequence[int]) -> Obeyed:
    """Compare the MME rows of one run with the matrix calls of `program` in `order`."""
    asked = [kind for index in order for kind in _calls(program, index)]
    nodes = _nodes(events)
    if not nodes:
        return Obeyed(len(asked), 0, None, "cannot tell: no matrix rows in the trace")
    if any(program.ops[index].kernel.kind == "fused_attention" for index in order):
        return Obeyed(
            len(asked), max(len(nodes), len(asked)), None, "cannot tell: fused attention has nodes of its own"
        )
    numbers = [int(found.group(1)) if (found := NUMBER.search(node)) else -1 for node in nodes]
    if len(set(numbers)) == len(numbers) and min(numbers) >= 0:
        late = sum(number < max(numbers[:place], default=-1) for place, number in enumerate(numbers))
        return Obeyed(len(asked), len(nodes), not late, _said(late, len(nodes)))
    if len(nodes) != len(asked):
        return Obeyed(len(asked), len(nodes), None, "cannot tell: nodes carry no numbers and their count differs")
    wrong = sum(_is_batched(node) != (kind == "bgemm") for node, kind in zip(nodes, asked, strict=True))
    return Obeyed(len(asked), len(nodes), not wrong, _said(wrong, len(nodes)))


def _said(late: int, nodes: int) -> str:
    return f"changed: {late} of {nodes} nodes out of place" if late else "kept"


def _calls(program: Program, index: int) -> list[str]:
    """Kinds of the matrix calls of one op."""
    op = program.ops[index]
    return [
        MATRIX[name] for call in op.kernel.calls if op.engine is Engine.MME and (name := base_name(call.func)) in MATRIX
    ]


def _nodes(events: pl.DataFrame) -> list[str]:
    """Names of the matrix nodes in the order in which they began; unnamed launches are nodes of their own."""
    rows = events.filter(pl.col("engine") == "MME").sort("start_ns").select("name", "kind", "op_id")
    found: dict[str, None] = {}
    for name, kind, launch in rows.iter_rows():
        node = SLICE.sub("", name)
        found.setdefault(node if "/" in node or NUMBER.search(node) else f"{node or kind}#{launch}", None)
    return list(found)


def _is_batched(node: str) -> bool:
    return any(sign in node.lower() for sign in BATCHED)

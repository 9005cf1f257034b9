"""Whether the card did what was asked: matrix nodes of a trace against the matrix calls of a program.

A graph compiler may merge the chunks of a split back into one GEMM, cut one GEMM into slices, or run nodes in an order
of its own. A trace tells: it has a row per launch, named after the node of the graph. Nodes of a recipe are numbered in
the order in which they were created, which is the order that was asked for; numbers that grow with time mean that it
was kept.

Terms
    node: launches of one name; slices of a node carry `op_...` behind the node's path.
    launch of a recipe: all its nodes once. No two overlap, so a name that comes again begins the next one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from overlap.capture.kernelize import MATRIX, base_name
from overlap.devices.hpu.segments import segments
from overlap.program import Engine, Program

SLICE = re.compile(r"/op_[\d_]+$")
NUMBER = re.compile(r"[/_](\d+)$")
UNKNOWN = "cannot tell: "


@dataclass(frozen=True)
class Obeyed:
    """What a trace says of an order; `kept` is None where it does not tell."""

    asked: int
    found: int
    kept: bool | None
    text: str

    @property
    def merged(self) -> bool:
        """Fewer matrix nodes than asked for; not where nodes cannot be told apart."""
        return self.kept is not None and self.found < self.asked


def obeyed(events: pl.DataFrame, program: Program, order: Sequence[int]) -> Obeyed:
    """Compare the MME rows of one run with the matrix calls of `program` in `order`, recipe by recipe."""
    counts = [sum(_calls(program, index) for index in segment.ops) for segment in segments(program, order)]
    asked = [count for count in counts if count]
    launches = _launches(events)
    total, found = sum(asked), sum(map(len, launches))
    if any(program.ops[index].kernel.kind == "fused_attention" for index in order):
        return Obeyed(total, max(found, total), None, f"{UNKNOWN}fused attention has nodes of its own")
    if len(launches) != len(asked):
        return Obeyed(total, found, None, f"{UNKNOWN}{len(launches)} launches for {len(asked)} graphs")
    late = [_late(nodes) for nodes in launches]
    known = [one for one in late if one is not None]
    if len(known) < len(late):
        return Obeyed(total, found, None, f"{UNKNOWN}nodes carry no numbers of their own")
    text = f"changed: {sum(known)} of {found} nodes out of place" if any(known) else "kept"
    return Obeyed(total, found, not any(known), text)


def _calls(program: Program, index: int) -> int:
    """Matrix calls of one op."""
    op = program.ops[index]
    return sum(base_name(call.func) in MATRIX for call in op.kernel.calls) if op.engine is Engine.MME else 0


def _launches(events: pl.DataFrame) -> list[list[str]]:
    """Names of the matrix nodes of every launch of a recipe, in the order in which they began."""
    rows = events.filter(pl.col("engine") == "MME").sort("start_ns").select("name", "kind", "op_id")
    found: list[dict[str, None]] = []
    seen: dict[str, int] = {}
    for name, kind, op in rows.iter_rows():
        full = name or kind
        if not found or seen.get(full, op) != op:
            found.append({})
            seen = {}
        seen[full] = op
        found[-1].setdefault(SLICE.sub("", full), None)
    return [list(nodes) for nodes in found]


def _late(nodes: Sequence[str]) -> int | None:
    """Nodes that began behind one of a higher number; None if numbers do not tell the nodes apart."""
    numbers = [int(found.group(1)) for node in nodes if (found := NUMBER.search(node))]
    if len(set(numbers)) < len(nodes):
        return None
    return sum(number < max(numbers[:place], default=-1) for place, number in enumerate(numbers))

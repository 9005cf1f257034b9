"""Compiled graphs (`prof-data/post-graph/*.json` of an `.hltv`): nodes with shapes and types.

Contract: `graph_nodes` gives a row per node of every graph, with texts such as `[[128, 64], [64, 64]]` for its tensors'
shapes, slowest dimension first (the file has the fastest first). `completed` adds what the analysed nodes do not say; a
node is known by its id and by its name without the ` iter 2` that the analyser adds, for ids repeat between graphs.
"""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from overlap.traces.readers.nodes import NODES
from overlap.traces.trace import Tally

_ADDED = {"graph": pl.String(), "recipe_id": pl.Int64(), "context_id": pl.Int64(), "working_engines": pl.Int64()}
_FROM_GRAPH = ("op_type", "input_shapes", "input_dtype", "output_shapes", "output_dtype")
GRAPH_NODES = pl.Schema({**NODES, **_ADDED})


def graph_nodes(document: Any, source: str, tally: Tally) -> pl.DataFrame:
    """Nodes of a file of graphs."""
    graphs = document.get("graphs") if isinstance(document, dict) else document
    if not isinstance(graphs, list):
        tally.warn(f"1 member cannot be read: {source} has no list of graphs")
        return pl.DataFrame(schema=GRAPH_NODES)
    rows = []
    for graph in graphs:
        nodes = graph.get("nodes") if isinstance(graph, dict) else None
        if not isinstance(nodes, list):
            tally.drop("graph without nodes")
            continue
        tensors = _tensors(graph.get("tensors"))
        usable = [node for node in nodes if isinstance(node, dict) and node.get("name") is not None]
        tally.drop("graph node without a name", len(nodes) - len(usable))
        rows += [_row(graph, node, tensors) for node in usable if not node.get("is_logical")]
    return pl.DataFrame(
        {name: pl.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in GRAPH_NODES.items()}
    )


def completed(analysed: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """Analysed nodes, with the graphs' word where the analyser is silent; its own rows and order stay."""
    if found.is_empty():
        return analysed
    base = pl.col("name").str.replace(r" iter \d+$", "").alias("_base")
    known = found.filter(pl.col("node_id").is_not_null()).with_columns(base).unique(["node_id", "_base"], keep="first")
    known = known.select("node_id", "_base", *_ADDED, *(pl.col(name).alias(f"_{name}") for name in _FROM_GRAPH))
    analysed = analysed.drop([name for name in _ADDED if name in analysed.columns])
    joined = analysed.with_columns(base).join(known, on=["node_id", "_base"], how="left", maintain_order="left")
    filled = joined.with_columns(pl.coalesce(name, f"_{name}").alias(name) for name in _FROM_GRAPH)
    return filled.drop("_base", *(f"_{name}" for name in _FROM_GRAPH))


def _row(graph: dict[str, Any], node: dict[str, Any], tensors: dict[str, dict[str, Any]]) -> dict[str, Any]:
    inputs = _of_node(node.get("input_tensors"), tensors)
    outputs = _of_node(node.get("output_tensors"), tensors)
    return {
        "unit": _text(node.get("engine")),
        "node_id": _integer(node.get("id")),
        "name": str(node["name"]),
        "op_type": _text(node.get("guid")),
        "input_shapes": _shapes(inputs),
        "input_dtype": _dtype(inputs),
        "output_shapes": _shapes(outputs),
        "output_dtype": _dtype(outputs),
        "graph": _text(graph.get("name")),
        "recipe_id": _integer(graph.get("recipe_debug_id")),
        "context_id": _integer(node.get("context_id")),
        "working_engines": _integer(node.get("tpc_working_engines")),
    }


def _tensors(listed: Any) -> dict[str, dict[str, Any]]:
    """Tensors by name, by id and by position."""
    found: dict[str, dict[str, Any]] = {}
    for position, tensor in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(tensor, dict):
            found[f"#{position}"] = tensor
            for key in ("id", "name"):
                if tensor.get(key) is not None:
                    found[str(tensor[key])] = tensor
    return found


def _of_node(listed: Any, tensors: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """A node's tensors, which it names, numbers or holds."""
    found = []
    for one in listed if isinstance(listed, list) else ():
        inside = one if isinstance(one, dict) else {}
        name = str(inside.get("name", inside.get("id"))) if inside else str(one)
        tensor = tensors.get(name) or tensors.get(f"#{name}") or inside
        if tensor:
            found.append(tensor)
    return found


def _shapes(tensors: list[dict[str, Any]]) -> str | None:
    shapes = [tensor.get("max_shape") for tensor in tensors]
    listed = [list(reversed(shape)) for shape in shapes if isinstance(shape, list)]
    return json.dumps(listed) if listed else None


def _dtype(tensors: list[dict[str, Any]]) -> str | None:
    return next((str(tensor["dtype"]) for tensor in tensors if tensor.get("dtype") is not None), None)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _integer(value: Any) -> int | None:
    try:
        found = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if abs(found) < 1 << 63 else None

"""Analysed nodes, the vendor's table of one row per executed graph node, as CSV or as its JSON twin → a trace.

Terms
    unit: the engine that a node ran on, as the vendor writes it (`MME`, `TPC`).
    duration: from the node's first start to its last end; active: how much of it at least one lane was busy.

Contract: `Trace.nodes` has all columns of `NODES`, null where the file knows nothing (`nan`, `[]`, `[Error]`, an empty
cell, an absent column); other columns of the file follow as text. Releases spell their columns differently, so they are
known by plain name. `Trace.events` has one row per node on a lane called like its unit: good for a partition by node,
but idle time within a node is hidden in it, which a warning puts into numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import polars as pl

from overlap.errors import TraceError
from overlap.traces.readers import hpu
from overlap.traces.readers.table import micros_as_ns, plain, present, read_text_csv, wrapped
from overlap.traces.schema import filled
from overlap.traces.trace import About, Tally, Trace

_TEXT, _INTEGER, _NUMBER, _TIME = "text", "integer", "number", "time"
_TYPES = {_TEXT: pl.String(), _INTEGER: pl.Int64(), _NUMBER: pl.Float64(), _TIME: pl.Int64()}

# Our column: kind of cell, and the vendor's names without case and punctuation (`usec` is read as `us`).
_KNOWN: dict[str, tuple[str, tuple[str, ...]]] = {
    "unit": (_TEXT, ("unit", "engine")),
    "node_id": (_INTEGER, ("uniquenodeid", "nodeid")),
    "name": (_TEXT, ("nodename", "name")),
    "op_type": (_TEXT, ("optype", "op", "operation")),
    "start_ns": (_TIME, ("starttimeofnode", "starttimeofnodeus", "starttime", "starttimeus", "startus")),
    "end_ns": (_TIME, ("endtimeofnode", "endtimeofnodeus", "endtime", "endtimeus", "endus")),
    "duration_ns": (_TIME, ("durationus",)),
    "active_ns": (_TIME, ("activeus",)),
    "min_engine_ns": (_TIME, ("minsingleengineus",)),
    "max_engine_ns": (_TIME, ("maxsingleengineus",)),
    "diff_engine_ns": (_TIME, ("diffmaxminsingleengineus",)),
    "avg_engine_ns": (_TIME, ("avgsingleengineus",)),
    "avg_engine_active_ns": (_TIME, ("avgsingleengineactiveus",)),
    "variance_engine_us2": (_NUMBER, ("variancesingleengineus²", "variancesingleengineus2", "variancesingleengineus")),
    "bundle": (_TEXT, ("bundleindex", "bundle")),
    "num_activations": (_INTEGER, ("numactivations",)),
    "parallel_engines": (_INTEGER, ("parallelengines",)),
    "tpc_input_bandwidth_percent": (_NUMBER, ("tpcinputbwutilization%",)),
    "tpc_output_bandwidth_percent": (_NUMBER, ("tpcoutputbwutilization%",)),
    "input_vector_ratio": (_NUMBER, ("inputvectorutilizationratio", "inputvectorutil")),
    "inputs_in_sram": (_TEXT, ("allinputsinsram",)),
    "input_shapes": (_TEXT, ("inputshapes",)),
    "input_dtype": (_TEXT, ("inputdatatype", "inputdtype")),
    "input_placement": (_TEXT, ("inputplacement",)),
    "output_shapes": (_TEXT, ("outputshapes",)),
    "output_dtype": (_TEXT, ("outputdatatype", "outputdtype")),
    "output_placement": (_TEXT, ("outputplacement",)),
    "input_tensors": (_TEXT, ("inputtensors",)),
    "output_tensors": (_TEXT, ("outputtensors",)),
    "input_cache": (_TEXT, ("inputcacheallocation",)),
    "output_cache": (_TEXT, ("outputcacheallocation",)),
    "output_reduction": (_TEXT, ("outputtensorreduction",)),
    "exposed_tpc_ns": (_TIME, ("exposedtpcus",)),
    "unexposed_tpc_ns": (_TIME, ("unexposedtpcus",)),
    "exposed_mme_ns": (_TIME, ("exposedmmeus",)),
    "unexposed_mme_ns": (_TIME, ("unexposedmmeus",)),
    "exposed_dma_ns": (_TIME, ("exposeddmaus",)),
    "mme_utilization_percent": (_NUMBER, ("mmeutil%", "mmeutilization%")),
    "mme_compute_utilization_percent": (_NUMBER, ("mmecomputeutilization%",)),
    "mme_expected_vs_actual_percent": (_NUMBER, ("mmeexpectedvsactual%",)),
    "mme_origin_node": (_TEXT, ("mmeoriginnode",)),
    "mme_origin_expected_us": (_NUMBER, ("mmeoriginexpectedus",)),
    "mme_expected_us": (_NUMBER, ("mmeexpectedcomputeus",)),
    "mme_expected_cycles": (_NUMBER, ("mmeexpectedcomputecycles",)),
    "mme_strategy": (_TEXT, ("mmenodestrategy",)),
    "mme_compute_ns": (_TIME, ("mmecomputetimeus",)),
    "mme_read_only_ns": (_TIME, ("mmereadonlytimeus",)),
    "mme_write_only_ns": (_TIME, ("mmewriteonlytimeus",)),
    "unsliced_mme_duration_ns": (_TIME, ("unslicedmmedurationus",)),
    "unsliced_mme_active_ns": (_TIME, ("unslicedmmeactivetimeus",)),
    "bundle_duration_ns": (_TIME, ("bundledurationus",)),
    "until_write_ns": (_TIME, ("tpcdurationuntilmsgwriteus",)),
    "cost_model": (_TEXT, ("costmodel",)),
    "mme_parallel_percent": (_NUMBER, ("mmeparallelexecution%",)),
    "tpc_parallel_percent": (_NUMBER, ("tpcparallelexecution%",)),
}
NODES = pl.Schema({name: _TYPES[kind] for name, (kind, _) in _KNOWN.items()})
_HINT = "write it with --trace-analyzer on, and --trace-analyzer-csv on for the CSV"


def read_nodes_csv(data: bytes, source: str, tally: Tally) -> Trace:
    """The table of `*_analyzed_nodes.csv`.

    Raises:
        TraceError: where there is no node in it.
    """
    return nodes_trace(read_text_csv(data, source, tally), source, tally)


def read_nodes_json(data: bytes, source: str, tally: Tally) -> Trace:
    """The same table as `{"analyzer_metadata": [{column: cell}, …]}`, or the bare list.

    Raises:
        TraceError: where there is no node in it.
    """
    return nodes_trace(_json_table(data, source, tally), source, tally)


def nodes_trace(table: pl.DataFrame, source: str, tally: Tally) -> Trace:
    """The trace of a table of text whose columns have their plain names."""
    nodes = normalised(table)
    named = nodes.filter(pl.col("name").is_not_null())
    tally.drop("node without a name", nodes.height - named.height)
    if named.is_empty():
        raise TraceError(f"{source} holds no nodes", _HINT)
    placed = _placed(named, tally)
    _warn(placed, named.height, tally)
    about = About(
        source=source,
        format="gaudi analysed nodes",
        rows=table.height,
    )
    return Trace(filled(placed), about, nodes=named)


def normalised(table: pl.DataFrame) -> pl.DataFrame:
    """A table of text with the columns and types of `NODES`; columns that are not known follow as text."""
    theirs: dict[str, str] = {}
    for name in table.columns:
        theirs.setdefault(plain(name).replace("usec", "us"), name)
    columns, used = [], set()
    for ours, (kind, names) in _KNOWN.items():
        found = next((theirs[name] for name in names if name in theirs), None)
        cells = present(table[found]) if found else pl.Series([None] * table.height, dtype=pl.String)
        used.add(found)
        columns.append(_cells(cells, kind).alias(ours))
    others = [present(table[name]).alias(name) for name in table.columns if name not in used and name not in NODES]
    return pl.DataFrame([*columns, *others])


def _cells(text: pl.Series, kind: str) -> pl.Series:
    if kind == _TEXT:
        return text
    if kind == _INTEGER:
        return wrapped(text)
    if kind == _TIME:
        return micros_as_ns(text)
    # `41%` and `41` are both in use.
    number: pl.Series = text.str.strip_chars("% ").cast(pl.Float64, strict=False)
    return number.to_frame("number").select(pl.when(pl.col("number").is_finite()).then("number")).to_series()


def _json_table(data: bytes, source: str, tally: Tally) -> pl.DataFrame:
    """Cells as text: numbers keep the digits that the file has."""
    try:
        document = json.loads(data.decode("utf-8-sig", "replace"), strict=False, parse_float=str)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{source} is no whole JSON file: {error}", "check that it was copied whole") from error
    rows = document.get("analyzer_metadata") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise TraceError(f"{source} has no list of nodes under analyzer_metadata", _HINT)
    usable = [{plain(str(key)): _text(cell) for key, cell in row.items()} for row in rows if isinstance(row, dict)]
    tally.drop("node that is no object", len(rows) - len(usable))
    names = {name: None for row in usable for name in row}
    return pl.DataFrame(
        {name: [row.get(name) for row in usable] for name in names}, schema=dict.fromkeys(names, pl.String)
    )


def _text(cell: Any) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell
    return json.dumps(cell) if isinstance(cell, (list, dict)) else str(cell)


def _placed(nodes: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """Nodes with a place in time, as rows of events; `duration_ns` and `active_ns` are kept."""
    end = pl.coalesce("end_ns", pl.col("start_ns") + pl.col("duration_ns"))
    rows = nodes.with_columns(end.alias("end_ns"), pl.col("unit").fill_null("").alias("lane"))
    known = rows.filter(pl.col("start_ns").is_not_null() & pl.col("end_ns").is_not_null())
    tally.drop("node without a time", rows.height - known.height)
    sound = known.filter(pl.col("end_ns") >= pl.col("start_ns"))
    tally.drop("node that ends before it starts", known.height - sound.height)
    engines = _engines(sound["lane"].unique().to_list())
    return (
        sound.select(
            pl.col("lane").replace_strict(engines, default="OTHER", return_dtype=pl.String).alias("engine"),
            *("lane", "name", "start_ns", "end_ns", "active_ns"),
            pl.col("op_type").alias("kind"),
            pl.col("until_write_ns").add(pl.col("start_ns")).clip(lower_bound=pl.col("end_ns")).alias("tail_ns"),
        )
        .sort("start_ns", "end_ns", maintain_order=True)
        .with_columns(op_id=pl.int_range(pl.len(), dtype=pl.Int64))
    )


def _engines(lanes: Iterable[str]) -> dict[str, str]:
    return {lane: hpu.lane_engine("", lane, None, "") for lane in lanes}


def _warn(placed: pl.DataFrame, nodes: int, tally: Tally) -> None:
    """Say how much of what looks busy may be idle."""
    if placed.is_empty():
        tally.warn(f"none of {nodes} nodes has a place in time: there is a table of nodes, but no timeline")
        return
    length = pl.col("end_ns") - pl.col("start_ns")
    both = placed.filter(pl.col("active_ns").is_not_null()).select(pl.col("active_ns").sum(), length.sum().alias("all"))
    active, duration = both.row(0)
    figure = (
        f"active are {active:,} of {duration:,} ns ({active / duration:.1%})" if duration else "how much is unknown"
    )
    tally.warn(
        f"{placed.height} rows are whole nodes, not activity of lanes; idle time within a node is hidden: {figure}"
    )

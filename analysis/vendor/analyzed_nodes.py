"""The vendor's table of analysed nodes, recomputed from the activations that it was made of.

Terms
    activation: one row of the event table, from a reader of the hardware profiler's CSV.
    node: activations of one unit and name. A node that runs again is cut: at the first moment at which nothing of it
        runs and the number of its ended activations is a multiple of 8. Later parts are called ` iter 2`, ` iter 3`.
    active: length of the union of a node's activations.
    exposed: the part of active in which the other engine, any node of it, does not run (TPC for MME, MME for TPC).

Contract: columns are called as in the vendor's file and hold µs; a cell is null where the file has `nan`. Statistics
are taken of int64 ns, while the vendor has ps: a cell can differ by 1 in its third digit. None does on the one public
pair of files (an average of 168.5 ns, 168.49875 with ps, agrees because ties go to the even ns). Percentages are cut
off, not rounded. What needs the compiled graph (bandwidths, expected times, shapes) is missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from overlap.errors import TraceError

Ints = npt.NDArray[np.int64]

CUT_EVERY = 8
UNITS = ("DMA", "MME", "TPC")
# Half of the last digit that the vendor's file has.
TOLERANCE_US = 0.0005
_ROW = ["device", "engine", "name", "_part"]
_OTHER = {"MME": "TPC", "TPC": "MME"}
_IN_US = {
    "Start time of node": "start",
    "End time of node": "end",
    "Duration (us)": "duration",
    "Active (us)": "active",
    "Min single engine (us)": "min",
    "Max single engine (us)": "max",
    "Diff max min single engine (us)": "diff",
    "Avg single engine (us)": "avg",
    "Avg single engine active (us)": "avg",
}


def analyzed_nodes(events: pl.DataFrame) -> pl.DataFrame:
    """A row per node and unit, sorted by unit and start, with the vendor's names of columns.

    Args:
        events: an event table (`overlap.traces.schema`); rows of other engines than MME, TPC and DMA do not count.
    """
    rows = events.filter(pl.col("engine").is_in(UNITS))
    parts = _numbered_parts(rows)
    nodes = parts.group_by(_ROW, maintain_order=True).agg(
        pl.col("kind").first(),
        pl.col("start_ns").min().alias("start"),
        pl.col("end_ns").max().alias("end"),
        pl.len().cast(pl.Int64).alias("activations"),
        pl.col("lane").n_unique().cast(pl.Int64).alias("lanes"),
        pl.col("length").min().alias("min"),
        pl.col("length").max().alias("max"),
        _mean(pl.col("length")).alias("avg"),
        pl.col("length").var(ddof=0).fill_null(0.0).alias("variance"),
    )
    nodes = nodes.join(_active(parts), on=_ROW, how="left", maintain_order="left")
    nodes = nodes.with_columns(duration=pl.col("end") - pl.col("start"), diff=pl.col("max") - pl.col("min"))
    return _as_vendor(nodes.sort("engine", "start", "end", "name"))


def compare(ours: pl.DataFrame, theirs: pl.DataFrame) -> pl.DataFrame:
    """Cells that agree, per column that both tables have.

    Args:
        ours: what `analyzed_nodes` gives.
        theirs: the vendor's file, its own names of columns, cells as text or as numbers.

    Returns:
        `column, matches, mismatches, only_ours, only_theirs, first_mismatch`. The last but one count nodes that the
        other table does not have, the last is a text such as `g_1_conv_0: 0.168 / 0.169` or empty.

    Raises:
        TraceError: `theirs` does not name its nodes.
    """
    key = ["Unit", "Node Name"]
    if not set(key) <= set(theirs.columns):
        raise TraceError("the vendor's table has no Unit or no Node Name", "give a *_analyzed_nodes.csv")
    common = [name for name in ours.columns if name in theirs.columns and name not in key]
    both = ours.select(*key, *common).join(theirs.select(*key, *common), on=key, how="inner", suffix=" theirs")
    missing = [a.join(b, on=key, how="anti").height for a, b in ((ours, theirs), (theirs, ours))]
    rows = []
    for name in common:
        equal = _equal(both[name], both[f"{name} theirs"])
        wrong = both.filter(~equal).select("Node Name", name, f"{name} theirs")
        first = "{}: {} / {}".format(*wrong.row(0)) if wrong.height else ""
        rows.append((name, int(equal.sum()), wrong.height, *missing, first))
    schema = {"column": pl.String, "matches": pl.Int64, "mismatches": pl.Int64}
    return pl.DataFrame(
        rows,
        schema={**schema, "only_ours": pl.Int64, "only_theirs": pl.Int64, "first_mismatch": pl.String},
        orient="row",
    )


def _equal(ours: pl.Series, theirs: pl.Series) -> pl.Series:
    """Cell by cell; every way to write `missing` equals every other."""
    if ours.dtype == pl.String:
        same: pl.Series = ours.fill_null("") == theirs.cast(pl.String).fill_null("")
        return same
    mine, other = (one.cast(pl.Float64, strict=False).fill_null(float("nan")) for one in (ours, theirs))
    equal: pl.Series = (mine.is_nan() & other.is_nan()) | ((mine - other).abs() < TOLERANCE_US)
    return equal


def _numbered_parts(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` with `length` and `_part`: how many cuts of its node lie before an activation.

    Between an activation and the next one of its node is idle time where the latest end so far lies before the next
    start; all that began has ended there, so the number of ended activations is the number of those before.
    """
    node = ["device", "engine", "name"]
    rows = rows.sort(*node, "start_ns", "end_ns", maintain_order=True)
    latest = pl.col("end_ns").cum_max().shift(1).over(node)
    before = pl.int_range(pl.len(), dtype=pl.Int64).over(node)
    cut = (latest < pl.col("start_ns")) & (before % CUT_EVERY == 0)
    return rows.with_columns(
        length=pl.col("end_ns") - pl.col("start_ns"), _cut=cut.fill_null(False).cast(pl.Int64)
    ).with_columns(_part=pl.col("_cut").cum_sum().over(node))


def _active(parts: pl.DataFrame) -> pl.DataFrame:
    """`active` and `shared` (with the other engine) of each row of nodes, in ns."""
    pieces = _pieces(parts, _ROW)
    busy = _pieces(parts, ["device", "engine"])
    shared = np.zeros(pieces.height, np.int64)
    for device, engine in pieces.select("device", "engine").unique().iter_rows():
        other = busy.filter((pl.col("device") == device) & (pl.col("engine") == _OTHER.get(engine, "")))
        mine = ((pieces["device"] == device) & (pieces["engine"] == engine)).to_numpy()
        starts, ends = pieces["from_ns"].to_numpy()[mine], pieces["end_ns"].to_numpy()[mine]
        shared[mine] = _busy_until(ends, other) - _busy_until(starts, other)
    return (
        pieces.with_columns(shared=pl.Series(shared, dtype=pl.Int64), active=pl.col("end_ns") - pl.col("from_ns"))
        .group_by(_ROW)
        .agg(pl.col("active", "shared").sum())
    )


def _pieces(rows: pl.DataFrame, group: list[str]) -> pl.DataFrame:
    """Each row's part [from_ns, end_ns) that no earlier row of its group covers; their union is the group's."""
    rows = rows.sort(*group, "start_ns", "end_ns", maintain_order=True)
    latest = pl.col("end_ns").cum_max().shift(1).over(group)
    rows = rows.with_columns(from_ns=pl.max_horizontal("start_ns", latest))
    # A row inside an earlier one adds nothing.
    return rows.with_columns(from_ns=pl.min_horizontal("from_ns", "end_ns"))


def _busy_until(times: Ints, pieces: pl.DataFrame) -> Ints:
    """How long before each of `times` something of `pieces` ran."""
    pieces = pieces.filter(pl.col("end_ns") > pl.col("from_ns")).sort("from_ns")
    if pieces.is_empty():
        return np.zeros(len(times), np.int64)
    starts, ends = pieces["from_ns"].to_numpy(), pieces["end_ns"].to_numpy()
    total = np.r_[0, np.cumsum(ends - starts)]
    index = np.searchsorted(starts, times, side="right")
    inside = np.maximum(index - 1, 0)
    unfinished = np.maximum(ends[inside] - times, 0)
    return np.where(index > 0, total[index] - unfinished, 0).astype(np.int64)


def _as_vendor(nodes: pl.DataFrame) -> pl.DataFrame:
    part = pl.col("_part") + 1
    name = pl.when(part > 1).then(pl.format("{} iter {}", "name", part)).otherwise("name")
    columns: dict[str, Any] = {"Unit": pl.col("engine"), "Node Name": name, "Op Type": pl.col("kind")}
    columns |= {theirs: _us(pl.col(ours)) for theirs, ours in _IN_US.items()}
    columns["Variance single engine (us²)"] = (pl.col("variance") / 1e6).round(3)
    columns |= {"Num activations": pl.col("activations"), "Parallel Engines": pl.col("lanes")}
    percent = (pl.when(pl.col("duration") > 0).then(100 * pl.col("active") // pl.col("duration"))).fill_null(0)
    for unit in ("TPC", "MME"):
        own = pl.when(pl.col("engine") == unit)
        columns[f"Unexposed {unit.lower()} (us)"] = own.then(_us(pl.col("shared")))
        columns[f"Exposed {unit.lower()} (us)"] = own.then(_us(pl.col("active") - pl.col("shared")))
    for unit in ("MME", "TPC"):
        columns[f"{unit} Parallel Execution (%)"] = pl.when(pl.col("engine") == unit).then(percent).otherwise(0)
    return nodes.select(expression.alias(title) for title, expression in columns.items())


def _us(ns: pl.Expr) -> pl.Expr:
    # Polars multiplies by 0.001 instead; this gives the double nearest to the decimal number.
    return (ns / 1000).round(3)


def _mean(ns: pl.Expr) -> pl.Expr:
    """Mean in whole ns, without doubles in between; of two that are equally near the even one."""
    total, count = ns.sum(), pl.len().cast(pl.Int64)
    down, twice = total // count, 2 * (total % count)
    return down + ((twice > count) | ((twice == count) & (down % 2 == 1))).cast(pl.Int64)

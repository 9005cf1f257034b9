"""CSV of the Gaudi hardware profiler (`*_hw_prof_accel0_001.csv`): one row per event of a monitor → a trace.

Terms
    activation: from a BEGIN to its END on one lane; TPC: until the scalar unit halts, MME: until the last write-back.
    write: the moment at which a TPC activation's last write has left; it ends `tail_ns`.
    mark: a row of a monitor that only tells a moment (`STM_*` of a NIC, a start whose end was not recorded).
    monitor: `HW Event description`. Gaudi2 and Gaudi3 name theirs differently, both sets are known here.

Contract: times stay those of the file, rounded to ns; order is decided on the file's ps. Activations of length zero
stay rows. Marks, rows of monitors that neither start nor end an activation, and rows without partner are counted as
dropped. `about.extra` has what no table takes: starts of recipes (rows of the software), moments by monitor, oddities.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from overlap.errors import TraceError
from overlap.traces.readers import hpu
from overlap.traces.readers.launches import launch_ids
from overlap.traces.readers.pairing import EARLY, OPEN, Pairs, fifo_pairs
from overlap.traces.readers.table import micros, ns_of, read_text_csv, wrapped
from overlap.traces.schema import COUNTERS, EVENTS, empty, filled
from overlap.traces.trace import About, Tally, Trace

# Our name: the file's, as `table.plain` writes it.
_COLUMNS = {
    "name": "name",
    "origin": "tracesource",
    "lane": "engine",
    "type": "eventtype",
    "time": "timestampusec",
    "handle": "recipehandle",
    "recipe": "recipeid",
    "recipe_name": "recipename",
    "context": "contextid",
    "device_name": "device",
    "kind": "operation",
    "monitor": "hweventdescription",
    "node": "uniquenodeid",
}
_REQUIRED = ("lane", "type", "time")
_COUNTER_VALUES = {"spmuvalue": "", "bmonmin": " min", "bmonavg": " avg", "bmonmax": " max", "bmonmatches": " matches"}
# Monitors that start and end an activation; lanes that have none of them are paired by whatever they have.
_STARTS = ("TPC_SPU_START", "SB0_START_EVT", "START_EVENT", "DBG_DMA_TRC_RD_FRST_ADDR_PUSH")
_ENDS = (
    *("TPC_SPU_START_TO_SPU_HALT", "WB0_END", "DBG_DMA_TRC_WR_DATA_LAST"),
    *("MMEH_WB0_MON_TS_BIT1", "MMEH_WB1_MON_TS_BIT1"),
)
_WRITE = "TPC_END_OF_KERNEL_MESSAGE_WRITE"
_KEY = ("device", "lane", "recipe", "context", "node")
_ORDER = ("whole_us", "rest_ps")
_OP = ("recipe", "handle", "context", "node", "name")
MARK, OTHER_MONITOR, EARLY_WRITE = "start-only mark", "row of another monitor", "write without activation"


def read_hw_csv(data: bytes, source: str, tally: Tally) -> Trace:
    """Activations and counters of one file.

    Raises:
        TraceError: where the file has no row of either.
    """
    rows = _rows(read_text_csv(data, source, tally), source)
    looked_at = rows.height
    rows, extra = _timed(rows, tally), dict[str, Any]()
    software = (pl.col("origin") == "SW") | pl.col("lane").str.starts_with("ENG ARC")
    extra["recipe_starts"] = _counted(rows.filter(software), "name")
    rows = rows.filter(software.not_())
    is_counter = pl.col("type") == "COUNTER"
    counters = _counters(rows.filter(is_counter), tally)
    rows = rows.filter(is_counter.not_())
    extra["moments"] = _counted(rows.filter(pl.col("type") == "INSTANT"), "monitor")
    extra["data_types"] = _counted(rows.filter(pl.col("type") == "BEGIN"), "datatype")
    events = _events(rows, tally)
    if events.is_empty() and counters.is_empty():
        reasons = ", ".join(f"{count} x {reason}" for reason, count in tally.dropped.items()) or "no rows at all"
        raise TraceError(f"{source} holds no activity: {reasons}", "profile again with --hw-trace on")
    extra["zero_length"] = events.filter(pl.col("start_ns") == pl.col("end_ns")).height
    _warn(events, counters, tally)
    return Trace(events, _about(source, looked_at, rows, counters, extra), counters=counters)


def _rows(table: pl.DataFrame, source: str) -> pl.DataFrame:
    """The columns that matter under our names, null where the file has none of that name."""
    absent = [_COLUMNS[name] for name in _REQUIRED if _COLUMNS[name] not in table.columns]
    if absent:
        hint = "a hardware profiler CSV has Engine, Event type and Timestamp[usec]; write it with --invoc csv"
        raise TraceError(f"{source} has no column for {', '.join(absent)}", hint)
    wanted = {**_COLUMNS, **{name: name for name in (*_COUNTER_VALUES, "datatype")}}
    found = [
        (pl.col(theirs).str.strip_chars() if theirs in table.columns else pl.lit(None, dtype=pl.String)).alias(ours)
        for ours, theirs in wanted.items()
    ]
    return table.select(found)


def _timed(rows: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """Rows with a time and a lane, with the index of their device and the engine of their lane."""
    rows = rows.hstack(micros(rows["time"]).with_columns(time_ns=ns_of()))
    usable = rows.filter(pl.col("time_ns").is_not_null() & pl.col("lane").is_not_null())
    tally.drop("row without a time or an engine", rows.height - usable.height)
    engines = {lane: hpu.lane_engine("", lane, None, "") for lane in usable["lane"].unique().to_list()}
    device = pl.col("device_name").str.extract(r"(\d+)$").cast(pl.Int32, strict=False).fill_null(0)
    return usable.with_columns(
        pl.col("type").str.to_uppercase().fill_null(""),
        device.alias("device"),
        pl.col("lane").replace_strict(engines, default="OTHER", return_dtype=pl.String).alias("engine"),
    )


def _events(rows: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    moves = _moves(rows.filter(pl.col("type").is_in(["BEGIN", "END"])), tally)
    pairs = fifo_pairs(moves, _KEY, _ORDER)
    _count_unmatched(pairs, tally)
    if pairs.begins.is_empty():
        return empty(EVENTS)
    ends = pairs.ends.select(
        pl.col("time_ns").alias("end_ns"), *(pl.col(c).alias(f"{c}_end") for c in ("name", "kind"))
    )
    events = pairs.begins.rename({"time_ns": "start_ns"}).hstack(ends)
    # BEGINs of contexts without a name have none, their ENDs may.
    events = events.with_columns(pl.coalesce("kind", "kind_end").alias("kind"))
    events = events.with_columns(pl.coalesce("name", "name_end", "kind").alias("name"))
    events = _with_tails(events, rows.filter(pl.col("monitor") == _WRITE), tally)
    events = events.sort(*_ORDER, "lane", maintain_order=True)
    return filled(events.with_columns(launch_ids(events, _OP)))


def _moves(rows: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """BEGIN and END rows of activations."""
    monitor = pl.col("monitor").fill_null("")
    marks = monitor.str.contains(r"^STM_|_STM_|^NIC_STM") | pl.col("lane").str.contains(r"^STM_[01]_(RX|TX|QPC|QMAN)")
    rows = rows.with_columns(_mark=marks, begins=pl.col("type") == "BEGIN", _known=monitor.is_in(_STARTS + _ENDS))
    # Monitors of the write-back or of a bus may run beside those that bound an activation.
    rows = rows.with_columns(_known=pl.col("_known") | pl.col("_known").any().over("lane").not_())
    tally.drop(MARK, rows.filter("_mark").height)
    tally.drop(OTHER_MONITOR, rows.filter(pl.col("_known").not_() & pl.col("_mark").not_()).height)
    return rows.filter(pl.col("_known") & pl.col("_mark").not_()).drop("_known", "_mark")


def _count_unmatched(pairs: Pairs, tally: Tally) -> None:
    """BEGINs of a lane that has no END at all are marks: the profiler was told to record starts only."""
    ended = set(pairs.ends["lane"].unique().to_list()) | set(pairs.early["lane"].unique().to_list())
    marks = pairs.open.filter(pl.col("lane").is_in(list(ended)).not_())
    tally.drop(MARK, marks.height)
    tally.drop(OPEN, pairs.open.height - marks.height)
    tally.drop(EARLY, pairs.early.height)


def _with_tails(events: pl.DataFrame, writes: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """With `tail_ns` where a write belongs to the activation: the n-th of a key to its n-th that has begun."""
    if writes.is_empty():
        return events.with_columns(tail_ns=pl.lit(-1, dtype=pl.Int64))
    events = events.with_row_index("_row")
    both = (*_KEY, *_ORDER, "time_ns", "begins", "_row")
    starts = events.filter(pl.col("engine") == "TPC").with_columns(begins=pl.lit(True), time_ns=pl.col("start_ns"))
    no_row = pl.lit(None, dtype=pl.UInt32).alias("_row")
    moves = pl.concat([starts.select(both), writes.with_columns(no_row, begins=pl.lit(False)).select(both)])
    pairs = fifo_pairs(moves, _KEY, _ORDER)
    tally.drop(EARLY_WRITE, pairs.early.height)
    tails = pairs.begins.select("_row").hstack(pairs.ends.select(pl.col("time_ns").alias("tail_ns")))
    events = events.join(tails, on="_row", how="left", maintain_order="left").drop("_row")
    return events.with_columns(pl.max_horizontal("tail_ns", pl.when(pl.col("tail_ns").is_not_null()).then("end_ns")))


def _counters(rows: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """A row per sample and value; a bus monitor has several."""
    parts = []
    sampled = pl.Series([False] * 0, dtype=pl.Boolean) if rows.is_empty() else rows["time_ns"].is_null()
    for column, suffix in _COUNTER_VALUES.items():
        value = wrapped(rows[column]).alias("value")
        sampled = sampled | value.is_not_null()
        named = rows.select("device", "lane", (pl.col("name").fill_null("") + suffix).alias("name"), "time_ns")
        parts.append(named.hstack([value]).filter(pl.col("value").is_not_null()))
    tally.drop("counter without a value", rows.height - int(sampled.sum()))
    return filled(pl.concat(parts).sort("time_ns", "lane", "name", maintain_order=True), COUNTERS)


def _counted(rows: pl.DataFrame, column: str) -> dict[str, int]:
    """How many rows have which text, the most frequent first."""
    known = rows.filter(pl.col(column).is_not_null())
    counts = known.group_by(column).len().sort("len", column, descending=[True, False])
    return {str(text): int(count) for text, count in counts.iter_rows()}


def _warn(events: pl.DataFrame, counters: pl.DataFrame, tally: Tally) -> None:
    if events.is_empty():
        tally.warn(f"0 activations, only {counters.height} counter samples: nothing tells when an engine was busy")
    negative = counters.filter(pl.col("value") < 0).height
    if negative:
        tally.warn(f"{negative} of {counters.height} counter samples are negative: leave them out of sums")
    tails = events.filter(pl.col("tail_ns") > pl.col("end_ns"))
    if not tails.is_empty():
        mean = tails.select((pl.col("tail_ns") - pl.col("end_ns")).mean()).item()
        tally.warn(
            f"{tails.height} TPC rows end when the scalar unit halts; their writes end {mean:.0f} ns later (mean)"
        )


def _about(source: str, looked_at: int, rows: pl.DataFrame, counters: pl.DataFrame, extra: dict[str, Any]) -> About:
    names = rows.select("device", "device_name").unique().drop_nulls().sort("device").iter_rows()
    devices = {int(index): str(name) for index, name in names} or {int(i): "" for i in counters["device"].unique()}
    return About(
        source=source,
        format="gaudi hw csv",
        devices=devices,
        rows=looked_at,
        extra={key: value for key, value in extra.items() if value},
    )

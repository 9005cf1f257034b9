"""Rows of the Chrome trace format as JSON text, shared by the writers for Perfetto and for the TensorBoard plug-in.

Rows are made column by column: a trace of a million rows is written in seconds. Times become µs with three decimals
out of integers, so no ns is lost at any magnitude.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import polars as pl

from overlap.traces.slots import LaneKey
from overlap.traces.sweep import active_steps

Pids = Mapping[tuple[int, str], int]  # process by (device, engine)


def micros(time_ns: pl.Expr) -> pl.Expr:
    """Ns (not negative) as the text of a JSON number of µs with three decimals: 1234567 → 1234.567."""
    rest = (time_ns % 1000).cast(pl.String).str.zfill(3)
    return pl.concat_str((time_ns // 1000).cast(pl.String), pl.lit("."), rest)


def members(*columns: str | pl.Expr) -> pl.Expr:
    """Columns as the members of a JSON object, without its braces."""
    return pl.struct(*columns).struct.json_encode().str.slice(1).str.strip_suffix("}")


def lines(*parts: str | pl.Expr) -> pl.Expr:
    """Text out of literals and expressions."""
    return pl.concat_str([pl.lit(part) if isinstance(part, str) else part for part in parts])


def name_rows(processes: Mapping[int, str], threads: Mapping[tuple[int, int], str]) -> list[str]:
    """`M` rows that name processes and threads (pid, tid) and keep them in order of their numbers."""
    rows = []
    for (pid, tid), name, what, index in (
        *(((pid, 0), name, "process", pid) for pid, name in sorted(processes.items())),
        *((key, name, "thread", key[1]) for key, name in sorted(threads.items())),
    ):
        common = {"ph": "M", "pid": pid, "tid": tid}
        rows.append({**common, "name": f"{what}_name", "args": {"name": name}})
        rows.append({**common, "name": f"{what}_sort_index", "args": {"sort_index": index}})
    return [text_of(row) for row in rows]


def text_of(row: Mapping[str, Any]) -> str:
    """One row as JSON."""
    return msgspec.json.encode(row).decode()


def counter_rows(events: pl.DataFrame, pids: Pids, origin_ns: int) -> Iterable[pl.Series]:
    """`C` rows `<engine> busy` (rows that run) and `MME&TPC both` (0 or 1) as step functions: changes only."""
    for device in sorted({device for device, _ in pids}):
        steps = active_steps(events.filter(pl.col("device") == device))
        engines = [engine for one, engine in pids if one == device]
        for engine in engines:
            column = steps.select("time_ns", value=engine)
            yield _counter(column, f"{engine} busy", "rows", pids[device, engine], origin_ns)
        if {"MME", "TPC"} <= set(engines):
            both = ((pl.col("MME") > 0) & (pl.col("TPC") > 0)).cast(pl.Int64)
            yield _counter(steps.select("time_ns", value=both), "MME&TPC both", "both", pids[device, "MME"], origin_ns)


def _counter(steps: pl.DataFrame, name: str, key: str, pid: int, origin_ns: int) -> pl.Series:
    changes = steps.filter((pl.col("value") != pl.col("value").shift(1)).fill_null(True))
    start = f'{{"ph":"C","name":"{name}","pid":{pid},"ts":'
    times, value = micros(pl.col("time_ns") - origin_ns), pl.col("value").cast(pl.String)
    return changes.select(lines(start, times, f',"args":{{"{key}":', value, "}}")).to_series()


def sample_rows(samples: pl.DataFrame, pid: int, origin_ns: int) -> pl.Series:
    """`C` rows of sampled counters, one track per lane and counter.

    A sample is about the time since the one before it, a `C` row about the time until the next one; so a value is
    written where its time began, and a zero where the last one's ended.
    """
    track = ["device", "lane", "name"]
    ordered = samples.sort(*track, "time_ns", maintain_order=True)
    began = pl.col("time_ns").shift(1).over(track).fill_null(origin_ns)
    values = ordered.with_columns(began.alias("time_ns"))
    ends = ordered.group_by(track, maintain_order=True).agg(pl.col("time_ns").max(), pl.lit(0, pl.Int64).alias("value"))
    many = samples["device"].n_unique() > 1
    device = pl.concat_str(pl.lit("device "), pl.col("device").cast(pl.String), pl.lit(" ")) if many else pl.lit("")
    title = pl.concat_str(device, "lane", pl.lit(" "), "name").alias("name")
    where = members(title, pl.lit(pid).alias("pid"))
    rows = pl.concat([values.select(*track, "time_ns", "value"), ends.select(*track, "time_ns", "value")])
    value = pl.col("value").cast(pl.String)
    time = micros(pl.col("time_ns") - origin_ns)
    return rows.select(lines('{"ph":"C",', where, ',"ts":', time, ',"args":{"value":', value, "}}")).to_series()


def flow_rows(placed: pl.DataFrame, pids: Pids, flows: Iterable[tuple[int, int]], origin_ns: int) -> list[str]:
    """Arrows `s` → `f` between ops, from the last ns of the first to the start of the second.

    Pairs of op_id that have no row, no length or the wrong order in time are left out: a viewer would bind them to
    some other slice.
    """
    pairs = list(flows)
    wanted = placed.filter(
        pl.col("op_id").is_in({op for pair in pairs for op in pair}), pl.col("end_ns") > pl.col("start_ns")
    )
    rows = {row["op_id"]: row for row in wanted.iter_rows(named=True)}
    found = []
    for number, (source, target) in enumerate(pairs, 1):
        if source not in rows or target not in rows:
            continue
        tail, head = rows[source], rows[target]
        if head["start_ns"] < tail["end_ns"]:
            continue
        common = {"name": "chunk", "cat": "flow", "id": number}
        for ph, row, time_ns in (("s", tail, tail["end_ns"] - 1), ("f", head, head["start_ns"])):
            bind = {"bp": "e"} if ph == "f" else {}
            where = {"ph": ph, "pid": pids[row["device"], row["engine"]], "tid": row["tid"]}
            found.append(text_of({**where, "ts": micros_text(time_ns - origin_ns), **bind, **common}))
    return found


def micros_text(time_ns: int) -> msgspec.Raw:
    """One time as `micros` makes them."""
    whole, rest = divmod(abs(time_ns), 1000)
    return msgspec.Raw(f"{'-' if time_ns < 0 else ''}{whole}.{rest:03d}".encode())


def thread_names(names: Mapping[LaneKey, str], pids: Pids) -> dict[tuple[int, int], str]:
    """Names of `place` by (pid, tid)."""
    return {(pids[device, engine], tid): name for (device, engine, tid), name in names.items()}

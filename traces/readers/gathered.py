"""What is kept of the rows of a Chrome trace until its end: codes, numbers and names.

Device rows are told by category, or by what only device rows carry: on HPU, DMA work has the category `Runtime`, so a
row counts as the device's when it says which hardware event it is or lies in a lane of the device. Names of processes
and threads may come at any place in the file, so what a lane is remains open until then.
"""

from __future__ import annotations

from itertools import islice
from operator import attrgetter
from typing import Any

import numpy as np

from overlap.traces.readers import hpu
from overlap.traces.readers.columns import Codes, Columns, Ints, coded, integer, integers, sound, times_of
from overlap.traces.readers.decode import NO_ARGS, Batch, Row
from overlap.traces.readers.pairing import EARLY, OPEN
from overlap.traces.readers.times import doubles_to_ns
from overlap.traces.schema import MODULE
from overlap.traces.trace import Tally

DEVICE = {"kernel", "gpu_memcpy", "gpu_memset", "memcpy", "memset", "hpu_op", "mtia_ccp_events", "concurrent_kernel"}
# On an HPU lane these are DMA and other device work; elsewhere they are calls on the host.
RUNTIME = {"runtime", "privateuse1_runtime", "gpu_runtime"}
HOST = {
    *("cpu_op", "operator", "user_annotation", "gpu_user_annotation", "cuda_runtime", "cuda_driver", "overhead"),
    *("mtia_runtime", "xpu_runtime", "hip_runtime", "cuda_sync"),
}
# Known, and of no use here: arrows, marks of the profiler about itself.
LEFT_OUT = {"trace", "ac2g", "async", "async_cpu_to_gpu", "async_gpu", "fwdbwd", "cpu_instant_event", "enqueue"}
# Operators whose shapes give the flops of the kernels that they launch.
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::_scaled_mm"}

_WORK = ("X", "B", "E")
_SKIP, _DEVICE, _HOST, _RUNTIME, _PYTHON, _NAMES, _STRANGE = range(7)
_CAT, _PH, _NODE = attrgetter("cat"), attrgetter("ph"), attrgetter("args.node", "args.recipe")
_NOWHERE = (None, None, None)
# How columns are taken from rows: attributes that are numbers, and those that together become a code. What tells rows
# apart for the tables is one code, for it repeats: a million rows have a few hundred of them.
_NUMBERS = {"correlation": "args.correlation"}
_CODES = {"call": ("name", "cat", "pid", "tid")}
_DEVICE_NUMBERS = {**_NUMBERS, "device": "args.device", "bytes": "args.bytes"}
_DEVICE_CODES = {
    "work": ("name", "cat", "pid", "tid", "args.event"),
    "node": ("args.node", "args.recipe", "args.recipe_name"),
}


class _Kinds(dict[str, int]):
    """Category as written → what to do with the row."""

    def __missing__(self, cat: str) -> int:
        low = cat.lower()
        kinds = ((DEVICE, _DEVICE), (RUNTIME, _RUNTIME), (HOST, _HOST), (LEFT_OUT, _SKIP))
        special = {"python_function": _PYTHON, "": _NAMES}
        self[cat] = kind = special.get(low) or next((kind for cats, kind in kinds if low in cats), _STRANGE)
        return kind


_KINDS = _Kinds()


class Gathered:
    """Columns of device rows and of host rows, the tables of their codes, and the names of threads and processes."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.rows = 0
        self.codes = {name: Codes() for name in (*_CODES, *_DEVICE_CODES)}
        self.device = Columns()
        self.host = Columns()
        self.threads: dict[tuple[Any, Any], str] = {}
        self.processes: dict[Any, str] = {}
        self.halves: list[tuple[str, Row, int]] = []  # rows that only begin or end, with their time in ns
        self.products: dict[int, tuple[bytes, bytes]] = {}  # external id: JSON of shapes and types
        self._product_codes: list[int] = []
        self._looked_at = 0

    def add(self, batch: Batch) -> None:
        """Take what is needed from a batch."""
        try:
            self._add(batch)
        except AttributeError:  # args: null
            self._add(batch.with_args(NO_ARGS))

    def _add(self, batch: Batch) -> None:
        device: list[Row] = []
        host: list[Row] = []
        strangers: dict[str, int] = {}
        for row, kind in zip(batch.rows, map(_KINDS.__getitem__, map(_CAT, batch.rows)), strict=True):
            if kind == _HOST:
                host.append(row)
            elif kind == _DEVICE:
                device.append(row)
            elif kind:
                self._other(row, kind, device, host, strangers)
        halves: list[tuple[str, Row, int]] = []
        tally = Tally()
        for cat, count in strangers.items():
            tally.drop(f"row of the unknown category `{cat}`" if cat else "row without a category", count)
        found = []
        for rows, columns, what in ((device, self.device, "device row"), (host, self.host, "host row")):
            rows = _whole(rows, batch, halves)
            times = times_of(rows, batch)
            if times is None:
                return self._add(batch.made_exact())
            rows, starts, ends = sound(rows, *times, tally, what)
            found.append((columns, rows, {"start_ns": starts, "end_ns": ends, **self._taken(rows, columns)}))
        # Nothing is kept before all of the batch is known to be readable.
        self.rows += len(batch.rows)
        self.tally.add(tally)
        self.halves += halves
        for columns, rows, taken in found:
            if rows:
                columns.add(len(rows), taken)
        self._keep_products(found[-1][1], found[-1][2]["call"])
        return None

    def _keep_products(self, host: list[Row], calls: Ints) -> None:
        """Shapes of matrix products, by external id; which codes are products is looked up once per code."""
        table = self.codes["call"]
        new = islice(table.items(), self._looked_at, None)
        self._product_codes += [code for (name, *_), code in new if name in PRODUCTS]
        self._looked_at = len(table)
        if self._product_codes:
            for place in np.flatnonzero(np.isin(calls, self._product_codes)):
                args: Any = host[place].args
                if dims := bytes(args.dims):
                    self.products[integer(args.external)] = dims, bytes(args.types)

    def absorb(self, other: Gathered) -> None:
        """Append what another process has gathered from the part of the file behind this one's."""
        self.rows += other.rows
        self.tally.add(other.tally)
        self.halves += other.halves
        self.threads.update(other.threads)
        self.processes.update(other.processes)
        self.products.update(other.products)
        for mine, its in ((self.device, other.device), (self.host, other.host)):
            columns = its.done()
            for name, codes in other.codes.items():
                if name in columns:
                    table = np.fromiter((self.codes[name][key] for key in codes), np.int64, len(codes))
                    columns[name] = table[columns[name]]
            mine.add(its.rows, columns)

    def _taken(self, rows: list[Row], columns: Columns) -> dict[str, Ints]:
        device = columns is self.device
        numbers, texts = (_DEVICE_NUMBERS, _DEVICE_CODES) if device else (_NUMBERS, _CODES)
        external = integers(rows, "args.external")
        if (external < 0).any():
            external = np.where(external < 0, integers(rows, "args.external_old"), external)
        found = {"external": external, **{name: integers(rows, attribute) for name, attribute in numbers.items()}}
        for name, attributes in texts.items():
            if name == "node" and set(map(_NODE, rows)) == {_NOWHERE[:2]}:
                # Graph nodes are the Gaudi's; other traces need not pay for them.
                found[name] = np.full(len(rows), self.codes[name][_NOWHERE])
            else:
                found[name] = coded(rows, self.codes[name], *attributes)
        return found

    def _other(self, row: Row, kind: int, device: list[Row], host: list[Row], strangers: dict[str, int]) -> None:
        """A row whose category alone does not say where it belongs; `strangers` counts those that belong nowhere."""
        args = NO_ARGS if row.args is None else row.args
        if kind == _RUNTIME:
            (device if args.event is not None or hpu.is_lane(row.pid, row.tid) else host).append(row)
        elif kind == _PYTHON and row.name.startswith(MODULE):
            host.append(row)
        elif row.ph == "M" and args.name is not None:
            if row.name == "process_name":
                self.processes[row.pid] = str(args.name)
            elif row.name == "thread_name":
                self.threads[row.pid, row.tid] = str(args.name)
        elif kind in (_STRANGE, _NAMES) and row.ph in _WORK:
            strangers[row.cat] = strangers.get(row.cat, 0) + 1


def _whole(rows: list[Row], batch: Batch, halves: list[tuple[str, Row, int]]) -> list[Row]:
    """Rows that say when they end; the others begin or end at another row, and wait in `halves` until all are known."""
    if set(map(_PH, rows)) <= {"X"}:
        return rows
    for row in rows:
        if row.ph in ("B", "E"):
            time: Any = row.ts if batch.exact else int(doubles_to_ns(np.array([row.ts]))[0])
            halves.append((row.ph, row, -1 if time is None else time))
    return [row for row in rows if row.ph == "X"]


def pair_halves(found: Gathered) -> None:
    """Add the rows that begin and end at different places: as brackets, per thread (the bridge's `Runtime` rows)."""
    order = sorted(range(len(found.halves)), key=lambda number: found.halves[number][2])
    open_rows: dict[tuple[Any, Any], list[tuple[Row, int]]] = {}
    pairs: list[tuple[Row, int, int]] = []
    for number in order:
        ph, row, time = found.halves[number]
        stack = open_rows.setdefault((row.pid, row.tid), [])
        if ph == "B":
            stack.append((row, time))
        elif stack:
            begun, start = stack.pop()
            pairs.append((begun, start, time))
        else:
            found.tally.drop(EARLY)
    found.tally.drop(OPEN, sum(map(len, open_rows.values())))
    found.halves = []
    if pairs:
        starts = np.array([start for _, start, _ in pairs], np.int64)
        ends = np.array([end for *_, end in pairs], np.int64)
        rows = [row for row, *_ in pairs]
        found.host.add(len(rows), {"start_ns": starts, "end_ns": ends, **found._taken(rows, found.host)})

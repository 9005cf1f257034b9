"""Rows of lanes → launches: the 24 rows of a kernel on 24 vector cores are one op, its next execution is another.

Terms
    key: what all rows of one graph node share (recipe, context, name); it says nothing about how often the node ran.
    stage: the rows of one engine of one device; its queue is in order, so ops of a stage follow one another.

Contract: a row belongs to the launch of its key's rows before it unless a row of another key of its stage began since
those ended: between their latest end (inclusive) and its own start (exclusive). A node that runs twice in a row is
therefore one op, one that comes again after other nodes is two. Ids count from 0 in order of time and depend on nothing
but the rows; O(n log n).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from overlap.traces.codes import dense

Ints = npt.NDArray[np.int64]


def launch_ids(frame: pl.DataFrame, key_columns: Sequence[str]) -> pl.Series:
    """Int64 id of the launch of each row, in the order of `frame`.

    Args:
        frame: rows with `device`, `engine`, `start_ns`, `end_ns` and the columns of the key.
        key_columns: names of the columns that tell the nodes of a stage apart.
    """
    if frame.is_empty():
        return pl.Series("op_id", [], dtype=pl.Int64)
    stage = _numbered(frame, ["device", "engine"])
    key = _numbered(frame, ["device", "engine", *key_columns])
    starts, ends = frame["start_ns"].to_numpy(), frame["end_ns"].to_numpy()
    order = np.lexsort((starts, key))
    first = np.r_[True, key[order][1:] != key[order][:-1]]
    # The first row of a key waits for nothing: no time passes between its start and its start.
    free_from = _latest_end_before(ends[order], first, key[order], starts[order])
    # Places among all moments instead of ns: a pair (group, moment) then fits one integer.
    moments = np.sort(np.concatenate((starts, free_from)))
    since, until = np.searchsorted(moments, free_from), np.searchsorted(moments, starts[order])
    others = _began(stage[order], since, until) - _began(key[order], since, until)
    launch = np.empty(len(key), np.int64)
    launch[order] = np.cumsum(first | (others > 0)) - 1
    return pl.Series("op_id", _by_time(launch, starts), dtype=pl.Int64)


def _numbered(frame: pl.DataFrame, columns: Sequence[str]) -> Ints:
    """A number without holes per combination of `columns`; null is a value like any other."""
    numbers = np.zeros(frame.height, np.int64)
    for name in columns:
        column = frame[name].cast(pl.Categorical).to_physical() if frame[name].dtype == pl.String else frame[name]
        values = column.cast(pl.Int64).fill_null(-1).to_numpy()
        values = dense(values - values.min())
        numbers = dense(numbers * (int(values.max()) + 1) + values)
    return numbers


def _latest_end_before(ends: Ints, first: npt.NDArray[np.bool_], key: Ints, starts: Ints) -> Ints:
    """Of each row the latest end among earlier rows of its key; its own start where it is the key's first."""
    latest = pl.DataFrame({"key": key, "end": ends}).select(pl.col("end").cum_max().shift(1).over("key"))
    known: Ints = latest.to_series().fill_null(0).to_numpy()
    return np.where(first, starts, known)


def _began(group: Ints, since: Ints, until: Ints) -> Ints:
    """How many rows of its own group start in [since, until), of each row; `until` is its own start."""
    scale = int(max(since.max(), until.max())) + 1
    starts = np.sort(group * scale + until)
    low, high = (np.searchsorted(starts, group * scale + bound) for bound in (since, until))
    count: Ints = np.maximum(high - low, 0).astype(np.int64)
    return count


def _by_time(launch: Ints, starts: Ints) -> Ints:
    """The same launches, numbered in order of their first rows."""
    order = np.argsort(starts, kind="stable")
    first = np.zeros(int(launch.max()) + 1, np.int64)
    # Of equal places the last assignment stays, so going backwards leaves the first row of each launch.
    first[launch[order][::-1]] = np.arange(len(launch) - 1, -1, -1)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[launch]

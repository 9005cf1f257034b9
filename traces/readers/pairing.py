"""Rows that say `it begins` and `it ends` → intervals, first in first out.

Terms
    key: what a BEGIN and its END have in common (lane, recipe, context, node). Names are never part of it: the two
        rows of one activation may carry different ones.
    open: begun and not ended yet. Several may be open at once per key, an engine takes its next descriptor early.
    early end: an END while nothing of its key is open; its BEGIN was before the window.

Contract: an END closes the oldest open BEGIN of its key. Early ends are left out before anything is counted, so they
shift no later pair; at the window's other edge a BEGIN may stay open. Rows at one time count in the order of the file:
where one activation ends as the next begins, taking the BEGIN first would close every activation as it opens.

How: with +1 for a BEGIN and -1 for an END, the running sum of a key reaches a new minimum below zero exactly at the
early ends. Of what is left, the n-th END belongs to the n-th BEGIN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from overlap.traces.trace import Tally

OPEN, EARLY = "begin without end", "end without begin"


@dataclass(frozen=True)
class Pairs:
    """What became of the rows.

    Args:
        begins: rows of the BEGINs that have an END.
        ends: rows of their ENDs, in the same order.
        open: rows of the BEGINs that are still open at the end.
        early: rows of the ENDs that had nothing to close.
    """

    begins: pl.DataFrame
    ends: pl.DataFrame
    open: pl.DataFrame
    early: pl.DataFrame

    def count_unmatched(self, tally: Tally) -> None:
        """Count the rows that are in no pair as dropped."""
        tally.drop(OPEN, self.open.height)
        tally.drop(EARLY, self.early.height)


def fifo_pairs(rows: pl.DataFrame, key: Sequence[str], order: Sequence[str], begins: str = "begins") -> Pairs:
    """Pair rows by `key`, in the order of the columns `order` (of time); then as they lie.

    Args:
        rows: BEGIN and END rows in any order; null is a value of a key like any other.
        key: names of the key's columns, at least one.
        order: names of the columns that tell the time, the coarsest first.
        begins: name of the boolean column that tells a BEGIN from an END.
    """
    if rows.is_empty():
        return Pairs(rows, rows, rows, rows)
    rows = rows.sort(*key, *order, maintain_order=True)
    rows = rows.with_columns(_floor=_step(begins).cum_sum().cum_min().clip(upper_bound=0).over(key))
    early = pl.col("_floor") < pl.col("_floor").shift(1, fill_value=0).over(key)
    rows = rows.with_columns(_early=early)
    matched = rows.filter(pl.col("_early").not_()).drop("_early", "_floor")
    # Rows are sorted by key, so pairs stay side by side once everything without a partner is gone.
    number = pl.col(begins).cast(pl.Int64).cum_sum().over(key)
    closed = pl.col(begins).not_().sum().over(key)
    starts = matched.with_columns(_open=number > closed).filter(begins)
    return Pairs(
        starts.filter(pl.col("_open").not_()).drop("_open"),
        matched.filter(pl.col(begins).not_()),
        starts.filter("_open").drop("_open"),
        rows.filter("_early").drop("_early", "_floor"),
    )


def _step(begins: str) -> pl.Expr:
    return pl.when(begins).then(1).otherwise(-1)

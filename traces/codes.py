"""Texts as numbers: rows that share their texts get the same number, so that work on texts is done once for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]


def coded(frame: pl.DataFrame, columns: Sequence[str]) -> tuple[Ints, pl.DataFrame]:
    """Number of every row's combination of texts, and the combinations themselves, row i being number i.

    Numbers have no holes; which combination gets which number is arbitrary.
    """
    codes = np.zeros(frame.height, dtype=np.int64)
    for name in columns:
        text = dense(frame[name].cast(pl.Categorical).to_physical().to_numpy().astype(np.int64))
        codes = dense(codes * (int(text.max(initial=0)) + 1) + text)
    first = np.zeros(int(codes.max(initial=-1)) + 1, dtype=np.int64)
    # Of equal places the last assignment stays, so going backwards leaves the first row of each number.
    first[codes[::-1]] = np.arange(frame.height - 1, -1, -1)
    return codes, frame.select(columns)[first]


def dense(codes: Ints) -> Ints:
    """The same numbers without holes."""
    top = int(codes.max(initial=0))
    if top > 4 * len(codes) + 65536:
        # Too sparse for a table.
        keys = pl.DataFrame({"key": codes})
        places = keys.unique(maintain_order=True).with_row_index("place")
        joined = keys.join(places, on="key", how="left", maintain_order="left")
        return joined["place"].to_numpy().astype(np.int64)
    used = np.zeros(top + 1, dtype=np.int64)
    used[codes] = 1
    return (np.cumsum(used) - 1)[codes]

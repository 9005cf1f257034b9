"""The vendor's table of analysed nodes, recomputed from a raw profile, and compared with the vendor's own beside it."""

from __future__ import annotations

from typing import Any

import polars as pl

from overlap.analysis.vendor.analyzed_nodes import analyzed_nodes, compare
from overlap.commands.analyze_run import Source
from overlap.errors import TraceError

HW_CSV = "gaudi hw csv"
SUFFIX = "_analyzed_nodes.csv"


def as_vendor_csv(events: pl.DataFrame) -> bytes:
    """The table under the vendor's names of columns, times in us with six digits as the vendor prints them."""
    return analyzed_nodes(events).write_csv(float_precision=6, null_value="nan").encode()


def beside_vendor(source: Source) -> dict[str, Any] | None:
    """How many cells agree with the vendor's table; None where there is none beside the raw profile."""
    path = source.path.with_name(source.path.name.removesuffix(".csv") + SUFFIX)
    if source.trace.about.format != HW_CSV or not path.is_file():
        return None
    try:
        theirs = pl.read_csv(path, infer_schema=False)
        found = compare(analyzed_nodes(source.trace.events), theirs)
    except (pl.exceptions.PolarsError, OSError, TraceError) as error:
        return {"file": path.name, "error": str(error).splitlines()[0]}
    return {
        "file": path.name,
        "columns": found.height,
        "matches": int(found["matches"].sum()),
        "mismatches": int(found["mismatches"].sum()),
        "first_mismatches": [text for text in found["first_mismatch"] if text],
    }

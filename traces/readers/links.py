"""Device rows ↔ host rows: where in the model a kernel was launched, and how much arithmetic it does.

Terms
    scope: the host row that encloses a launch: a module (`nn.Module: …`, recorded `with_stack` or `with_modules`) or an
        operator (`aten::mm`).
    path: modules from the outside in, then the operator, joined by `/`.

A kernel finds its operator by Kineto's `External id`, and its launch, for the modules around it, by `correlation`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import msgspec
import polars as pl

from overlap.traces.schema import MODULE

_LAUNCHES = ("cuda_runtime", "cuda_driver", "runtime", "hip_runtime", "mtia_runtime", "privateuse1_runtime")
_OPERATORS = ("cpu_op", "operator")
_ITEM_BYTES = {
    **{"double": 8, "float": 4, "int": 4, "c10::half": 2, "c10::bfloat16": 2, "signed char": 1},
    **dict.fromkeys(("c10::float8_e4m3fn", "c10::float8_e5m2", "c10::float8_e4m3fnuz", "c10::float8_e5m2fnuz"), 1),
}


def with_links(events: pl.DataFrame, host: pl.DataFrame, products: Mapping[int, tuple[bytes, bytes]]) -> pl.DataFrame:
    """`events` with `path`, `flops` and `bytes`.

    Args:
        events: device rows with `correlation` and `external` (-1 where unknown).
        host: a `HOST` table.
        products: JSON of `Input Dims` and `Input type` by external id, for operators that are matrix products.
    """
    if host.is_empty():
        return events
    events = _with_scopes(events, host)
    named = host.filter(pl.col("kind").is_in(_OPERATORS) & (pl.col("external") >= 0))
    operators = named.select("external", pl.col("name").alias("operator")).unique("external", keep="last")
    direct = events.join(operators, on="external", how="left", maintain_order="left")
    operator = pl.coalesce("operator", "scope_operator")
    path = pl.concat_str([pl.col("modules"), operator], separator="/", ignore_nulls=True)
    external = pl.when(pl.col("external") >= 0).then("external").otherwise(pl.col("scope_external").fill_null(-1))
    return _with_work(direct.with_columns(path=path, external=external), products)


def _with_scopes(events: pl.DataFrame, host: pl.DataFrame) -> pl.DataFrame:
    """`events` with `scope_operator, scope_external, modules` of their launches, where anybody will ask for them."""
    modules = _modules(host)
    if modules.is_empty() and events.select((pl.col("external") >= 0).all()).item():
        nothing = {"scope_operator": pl.String, "scope_external": pl.Int64, "modules": pl.String}
        return events.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in nothing.items())
    return events.join(_launch_scopes(host, modules), on="correlation", how="left", maintain_order="left")


def _launch_scopes(host: pl.DataFrame, modules: pl.DataFrame) -> pl.DataFrame:
    """`correlation, scope_operator, scope_external, modules` of every launch."""
    launches = host.filter(pl.col("kind").is_in(_LAUNCHES) & (pl.col("correlation") >= 0))
    launches = launches.unique("correlation", keep="first").select("correlation", "thread", "start_ns").sort("start_ns")
    operators = host.filter(pl.col("kind").is_in(_OPERATORS)).sort("start_ns", "end_ns", descending=[False, True])
    inside = operators.select(
        *("thread", "start_ns", "end_ns"),
        pl.col("name").alias("scope_operator"),
        pl.col("external").alias("scope_external"),
    )
    found = launches.join_asof(inside, on="start_ns", by="thread", check_sortedness=False)
    over = pl.col("end_ns").is_null() | (pl.col("end_ns") < pl.col("start_ns"))
    found = found.with_columns(
        pl.when(~over).then(name).alias(name) for name in ("scope_operator", "scope_external")
    ).drop("end_ns")
    if modules.is_empty():
        return found.select("correlation", "scope_operator", "scope_external", pl.lit(None, pl.String).alias("modules"))
    rest = found.join_asof(modules, on="start_ns", by="thread", check_sortedness=False)
    # The module that began last may be over; then the ones around it are asked, from the inside out.
    parents = modules.select(
        pl.col("module").alias("parent"),
        pl.col("end_ns").alias("up_end"),
        pl.col("modules").alias("up_path"),
        pl.col("parent").alias("up_parent"),
    )
    for _ in range(int(modules["depth"].max() or 0) + 1):  # type: ignore[arg-type]
        past = pl.col("end_ns") < pl.col("start_ns")
        if not rest.select(past.any()).item():
            break
        rest = (
            rest.join(parents, on="parent", how="left", maintain_order="left")
            .with_columns(
                end_ns=pl.when(past).then(pl.coalesce("up_end", pl.lit((1 << 63) - 1))).otherwise("end_ns"),
                modules=pl.when(past).then("up_path").otherwise("modules"),
                parent=pl.when(past).then("up_parent").otherwise("parent"),
            )
            .drop("up_end", "up_path", "up_parent")
        )
    return rest.select("correlation", "scope_operator", "scope_external", "modules")


def _modules(host: pl.DataFrame) -> pl.DataFrame:
    """`thread, start_ns, end_ns, module, parent, depth, modules` of the module calls, in order of start."""
    rows = host.filter(pl.col("name").str.starts_with(MODULE)).sort("start_ns", "end_ns", descending=[False, True])
    stacks: dict[str, list[tuple[int, int, str]]] = {}
    parents, depths, paths = [], [], []
    calls = rows.select("name", "thread", "start_ns", "end_ns").iter_rows()
    for number, (name, thread, start, end) in enumerate(calls):
        stack = stacks.setdefault(thread, [])
        while stack and stack[-1][1] <= start:
            stack.pop()
        around = stack[-1] if stack else (-1, 0, "")
        path = f"{around[2]}/{name[len(MODULE) :]}".lstrip("/")
        parents.append(around[0])
        depths.append(len(stack))
        paths.append(path)
        stack.append((number, end, path))
    return rows.select("thread", "start_ns", "end_ns").with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("module"),
        pl.Series("parent", parents, dtype=pl.Int64),
        pl.Series("depth", depths, dtype=pl.Int64),
        pl.Series("modules", paths, dtype=pl.String),
    )


def _with_work(events: pl.DataFrame, products: Mapping[int, tuple[bytes, bytes]]) -> pl.DataFrame:
    """Flops and bytes of a product go to the longest of the matrix kernels that it launched."""
    known = [
        (external, *work)
        for external, texts in products.items()
        if external >= 0 and (work := product_work(*texts)) is not None
    ]
    if not known:
        return events
    schema = {"external": pl.Int64, "flops": pl.Int64, "work_bytes": pl.Int64}
    table = pl.DataFrame(known, schema=schema, orient="row")
    rows = events.with_row_index("row").filter(pl.col("engine") == "MME")
    longest = rows.sort(pl.col("end_ns") - pl.col("start_ns"), descending=True).unique("external", keep="first")
    given = longest.join(table, on="external").select("row", "flops", "work_bytes")
    joined = events.with_row_index("row").join(given, on="row", how="left", maintain_order="left")
    return joined.with_columns(bytes=pl.coalesce("work_bytes", "bytes")).drop("row", "work_bytes")


def product_work(dims: bytes, types: bytes) -> tuple[int, int] | None:
    """(flops, bytes) of a matrix product from its operands' shapes and types; None if they do not say.

    The operands are the first two that fit, so neither a bias before them nor scales behind them count. Flops are
    2 b m n k for [b, m, k] x [b, k, n]; bytes are those of both operands and the result, -1 if a type is not known.
    """
    try:
        listed = zip(
            msgspec.json.decode(dims, type=list), [*msgspec.json.decode(types, type=list[str]), *[""] * 8], strict=False
        )
        operands = [(shape, kind.lower()) for shape, kind in listed if isinstance(shape, list) and len(shape) in (2, 3)]
        (left, left_type), (right, right_type) = next(
            pair for pair in pairwise(operands) if pair[0][0][-1] == pair[1][0][-2]
        )
        batch = left[0] if len(left) == 3 else 1
        m, k, n = left[-2], left[-1], right[-1]
        if min(batch, m, k, n) <= 0 or batch * m * n * k > 1 << 60:
            return None
    except (msgspec.DecodeError, ValueError, TypeError, IndexError, StopIteration):
        return None
    sizes = [_ITEM_BYTES.get(one) for one in (left_type, right_type)]
    if None in sizes:
        return 2 * math.prod((batch, m, n, k)), -1
    # The result has two bytes at least: products of fp8 are stored in a wider type.
    items = sizes[0] * m * k + sizes[1] * k * n + max(2, *sizes) * m * n  # type: ignore[type-var]
    return 2 * math.prod((batch, m, n, k)), batch * items

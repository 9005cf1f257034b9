"""Names of ops without what changes from one compilation or iteration to the next.

Terms
    normal name: a name after the rules of `normal_name`; two traces of the same model share it even where compilers
        numbered their kernels anew.

Contract: the rules look at one name at a time, never at the others of its trace, so an op has the same normal name
wherever it turns up; a name to which no rule applies stays as it is.
"""

from __future__ import annotations

import polars as pl

from overlap.traces.kernels import short_kernel

# (what it finds, what it becomes, why). In this order.
RULES = (
    # Gaudi's fuser: a hash of the kernel, then the order in which it was compiled.
    (r"^(fused_kernel_0x[0-9A-Fa-f]+)_[0-9A-Fa-f]+_", "${1}_"),
    # Inductor numbers its kernels in the order in which it wrote them.
    (r"^(triton_\w*?[A-Za-z])(?:_\d+)+$", "${1}"),
    # Node paths of the graph compiler: number of the bundle, index of the slice.
    (r"bundle_\d+", "bundle"),
    (r"/\d+\b", "/*"),
    (r"\bop(?:_\d+)+\b", "op"),
    # The graph compiler numbers what it fuses and splits: `fusedTPCNode_8_0`, `gemm_n1234__0`, `g_3_conv_0`.
    (r"^(fusedTPCNode)(?:_\d+)+", "${1}"),
    (r"_n\d+__\d+\b", ""),
    (r"^g_\d+_", "g_*_"),
    # Layers and chunks do the same work; annotations count iterations.
    (r"(?i)\b(layers?|chunk|tile)([._]?)\d+\b", "${1}${2}*"),
    (r"(?i)\biter(?:ation)?[ _#]*\d+\b", "iter N"),
    (r"#\d+\b", "#N"),
    # C++: what every kernel has in front.
    (r"^void +", ""),
    (r"\(anonymous namespace\)::|\bat::native::", ""),
)


def normal_name(name: pl.Expr) -> pl.Expr:
    """`name` after all rules.

    Rules: `fused_kernel_0xHASH_5_f32` loses the order of its compilation, `triton_poi_fused_add_3` its number; indices
    of bundles, slices, layers, chunks and iterations become `*` or `N`; C++ names become short
    (`overlap.traces.kernels`): kernels that differ only in their functor stay apart, those that differ in the numbers
    of their template do not.
    """
    return name.map_batches(_normal, return_dtype=pl.String)


def _normal(names: pl.Series) -> pl.Series:
    """Each distinct name is looked at once; all others cost a look into a table."""
    distinct = names.unique()
    found = distinct
    for pattern, becomes in RULES:
        found = found.str.replace_all(pattern, becomes)
    table = pl.DataFrame({"name": distinct, "normal": _without_templates(found)})
    joined = names.rename("name").to_frame().join(table, on="name", how="left", maintain_order="left", nulls_equal=True)
    return joined["normal"]


def _without_templates(names: pl.Series) -> pl.Series:
    """Shorten the C++ names of a column; each distinct one is looked at once, all others cost nothing."""
    long = names.filter(names.str.contains(r"[<(]").fill_null(False)).unique()
    if long.is_empty():
        return names
    short: pl.Series = names.replace(long.to_list(), [short_kernel(name) for name in long.to_list()])
    return short

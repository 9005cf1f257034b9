"""Ops by what they are part of: the layer of the model and the phase of attention.

Terms
    phase of attention: one of `overlap.traces.names.PHASES` (qk, softmax, pv, attention for fused kernels, projection,
        rope, norm, mlp, embedding, collective, copy, other). The column `phase` of our own programs is coarser (qkv,
        attn, out, mlp), so this one is `attention_phase`, by the same rules.

Contract: all ops are in every table, so each table's sums are those of the op table; hidden_ns + exposed_ns =
duration_ns per row. Durations of ops that run at once both count, so sums may exceed busy times.
"""

from __future__ import annotations

import polars as pl

from overlap.traces.names import OTHER, PHASES, NameRules, distinct_texts, name_rules, phases_of

TIMES = ("duration_ns", "exposed_ns", "hidden_ns")


def with_attention_phase(ops: pl.DataFrame, rules: NameRules | None = None) -> pl.DataFrame:
    """`ops` with a column `attention_phase`.

    An op table has no paths, so where name and kind say nothing, a phase that was filled by `names.with_names`, which
    sees the path, decides.

    Args:
        ops: an `op_table`, or anything with `name, kind, phase` and perhaps `path`.
        rules: those of the project where it is None.
    """
    codes, texts = distinct_texts(ops)
    by_name = phases_of(texts, rules or name_rules()).gather(codes)
    # `mlp` is also a phase of our own programs, whose norms and residuals have names that say more.
    given = pl.col("phase").is_in(PHASES)
    certain = given & (pl.col("phase") != "mlp")
    chosen = pl.when(certain).then("phase").when((pl.col("attention_phase") == OTHER) & given).then("phase")
    return ops.with_columns(by_name.alias("attention_phase")).with_columns(
        chosen.otherwise("attention_phase").alias("attention_phase")
    )


def by_attention_phase(ops: pl.DataFrame) -> pl.DataFrame:
    """Sums per phase of attention and engine, most time first.

    Args:
        ops: an `op_table`; its `attention_phase` is found by the project's rules where it has none.

    Returns:
        `attention_phase, engine, ops, duration_ns, exposed_ns, hidden_ns`.
    """
    known = ops if "attention_phase" in ops.columns else with_attention_phase(ops)
    keys = ["attention_phase", "engine"]
    return _sums(known, keys).sort("duration_ns", *keys, descending=[True, False, False])


def by_layer(ops: pl.DataFrame) -> pl.DataFrame:
    """Sums per layer and engine, in order of layers: `layer, engine, ops` and the times; layer -1 is unknown."""
    return _sums(ops, ["layer", "engine"]).sort("layer", "engine")


def _sums(ops: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    return ops.group_by(keys).agg(pl.len().cast(pl.Int64).alias("ops"), pl.col(*TIMES).sum())

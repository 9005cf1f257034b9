"""Sums by layer and phase of attention."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.analysis.ops import op_table
from overlap.analysis.phases import by_attention_phase, by_layer, with_attention_phase
from overlap.traces.names import PHASES, name_rules, with_names
from tests.timelines import ROWS, Row, table

NAMES = ["layer0.chunk1.attn.softmax", "layer1.chunk0.mlp.down", "matmul_qk", "zzz", "h.3.mlp"]


@settings(max_examples=30)
@given(ROWS, st.lists(st.sampled_from(NAMES), min_size=20, max_size=20))
def test_sums_are_those_of_the_ops(rows: list[Row], names: list[str]) -> None:
    ops = op_table(with_names(table(rows, name=names[: len(rows)]), name_rules()))
    for found in (by_layer(ops), by_attention_phase(ops)):
        assert (found["exposed_ns"] + found["hidden_ns"]).equals(found["duration_ns"].rename("exposed_ns"))
        assert found["ops"].sum() == ops.height
        for column in ("duration_ns", "exposed_ns", "hidden_ns"):
            assert found[column].sum() == ops[column].sum()
    assert set(by_attention_phase(ops)["attention_phase"]) <= set(PHASES)


def test_by_layer_and_phase() -> None:
    rows = [("MME", 0, "bgemm", 0, 10), ("TPC", 0, "vector", 5, 10), ("TPC", 0, "vector", 20, 7)]
    names = ["layer0.chunk0.attn.qk", "layer0.chunk0.attn.softmax", "layer1.chunk0.attn.softmax"]
    ops = op_table(with_names(table(rows, name=names, phase="attn"), name_rules()))
    assert by_layer(ops).rows() == [(0, "MME", 1, 10, 5, 5), (0, "TPC", 1, 10, 5, 5), (1, "TPC", 1, 7, 7, 0)]
    assert by_attention_phase(ops).rows() == [("softmax", "TPC", 2, 17, 12, 5), ("qk", "MME", 1, 10, 5, 5)]


@pytest.mark.parametrize(
    ("name", "phase", "expected"),
    [
        ("layer0.chunk0.mlp.norm", "mlp", "norm"),
        ("layer0.chunk0.qkv.rope_k", "qkv", "rope"),
        ("sm80_gemm", "projection", "projection"),
        ("sm80_gemm", "mlp", "mlp"),
        ("sm80_gemm", "attn", "other"),
        ("softmax_of_the_router", "collective", "collective"),
    ],
)
def test_a_given_phase_decides_unless_the_name_says_more(name: str, phase: str, expected: str) -> None:
    ops = op_table(table([("TPC", 0, "kernel", 0, 1)], name=name, phase=phase))
    assert with_attention_phase(ops)["attention_phase"].to_list() == [expected]


def test_paths_count_where_there_are_any() -> None:
    ops = op_table(table([("TPC", 0, "kernel", 0, 1)], name="x"))
    assert with_attention_phase(ops.with_columns(path=pl.lit("layers/0/mlp")))["attention_phase"].to_list() == ["mlp"]

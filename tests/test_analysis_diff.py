"""The diff of two traces conserves time, and normal names survive a recompilation."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.analysis.diff import by_name, diff, summary
from overlap.analysis.names import normal_name
from overlap.analysis.partition import Partition
from overlap.traces.kernels import short_kernel

NAMES = {
    "fused_kernel_0x88805A4E_C_f32": "fused_kernel_0x88805A4E_f32",
    "triton_poi_fused_add_3": "triton_poi_fused_add",
    "triton_red_fused_mul_sum_0": "triton_red_fused_mul_sum",
    "triton_3": "triton_3",
    "lb_bundle_32/0/attn/matmul_qk/batch_gemm/144/op_0_0_0_1_0": "lb_bundle/*/attn/matmul_qk/batch_gemm/*/op",
    "layer1.chunk0.attn.softmax": "layer*.chunk*.attn.softmax",
    "model.layers.31.mlp": "model.layers.*.mlp",
    "iter 17": "iter N",
    "ProfilerStep#4": "ProfilerStep#N",
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, std::array<char*, 3ul> >"
    "(int, at::native::CUDAFunctor_add<float>, std::array<char*, 3ul>)": (
        "vectorized_elementwise_kernel<CUDAFunctor_add>"
    ),
    "void (anonymous namespace)::softmax_warp_forward<float, 10>(float*, int)": "softmax_warp_forward",
    "softmax_fwd_bf16": "softmax_fwd_bf16",
    "Memcpy HtoD (Pageable -> Device)": "Memcpy HtoD (Pageable -> Device)",
    "Memset (Device)": "Memset (Device)",
    "operator<": "operator",
    "a > b": "a > b",
    "(all)": "(all)",
    "": "",
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_normal_names(name: str, expected: str) -> None:
    assert normal_of([name]) == [expected]


def test_names_are_looked_at_one_by_one() -> None:
    assert normal_of(list(NAMES)) == list(NAMES.values())
    assert normal_of([None, "f<a<b>>()", None]) == [None, "f", None]


def normal_of(names: list[str | None]) -> list[str | None]:
    frame = pl.DataFrame({"name": names}, schema={"name": pl.String})
    return frame.select(normal_name(pl.col("name")))["name"].to_list()


@given(st.text("ab<>()>,: ", max_size=30))
def test_no_name_breaks_the_rules(name: str) -> None:
    assert len(short_kernel(name)) <= len(name)
    assert not name or short_kernel(name)


OP = st.tuples(st.sampled_from(["x", "y_1", "triton_a_1", "triton_a_2"]), st.sampled_from(["MME", "TPC"]))
OPS = st.lists(st.tuples(OP, st.integers(0, 1000), st.integers(0, 1000)), max_size=15)


def ops(rows: list[tuple[tuple[str, str], int, int]]) -> pl.DataFrame:
    """Op table from ((name, engine), exposed, hidden)."""
    return pl.DataFrame(
        [(name, engine, exposed + hidden, exposed) for (name, engine), exposed, hidden in rows],
        schema={"name": pl.String, "engine": pl.String, "duration_ns": pl.Int64, "exposed_ns": pl.Int64},
        orient="row",
    )


@given(OPS, OPS, st.integers(1, 7), st.integers(1, 7))
def test_deltas_sum_to_the_difference_of_the_totals(a: list, b: list, steps_a: int, steps_b: int) -> None:
    table_a, table_b = ops(a), ops(b)
    found = diff(table_a, table_b, steps_a=steps_a, steps_b=steps_b)
    for column, delta in (("duration_ns", "delta_ns"), ("exposed_ns", "exposed_delta_ns")):
        total_a, total_b = round_half_up(table_a[column].sum(), steps_a), round_half_up(table_b[column].sum(), steps_b)
        assert found[delta].sum() == total_b - total_a
        assert found[column.replace("_ns", "_a_ns")].sum() == total_a
    assert found["count_a"].sum() == len(a)
    assert found["count_b"].sum() == len(b)
    assert found.select("engine", "name").is_unique().all()
    moved = found["exposed_delta_ns"].abs().to_list()
    assert moved == sorted(moved, reverse=True)


def round_half_up(total: int, steps: int) -> int:
    return (2 * total + steps) // (2 * steps)


@given(OPS, st.integers(1, 7))
def test_a_row_is_off_by_less_than_one_ns(rows: list, steps: int) -> None:
    whole = by_name(ops(rows))
    parts = by_name(ops(rows), steps)
    pairs = whole.join(parts, on=["engine", "name"]).select("duration_ns", "duration_ns_right").rows()
    assert all(abs(part * steps - total) < steps for total, part in pairs)


def test_a_trace_against_itself_and_swapped() -> None:
    a, b = ops([(("x", "MME"), 10, 5), (("y_1", "TPC"), 7, 0)]), ops([(("x", "MME"), 4, 5)])
    assert set(diff(a, a)["status"]) == {"same"}
    there, back = diff(a, b), diff(b, a)
    assert there["delta_ns"].to_list() == [-value for value in back["delta_ns"]]


def test_statuses_and_the_band() -> None:
    a = ops([(("s", "TPC"), 1000, 0), (("f", "TPC"), 1000, 0), (("l", "TPC"), 1000, 0), (("v", "TPC"), 1, 0)])
    b = ops([(("s", "TPC"), 1010, 0), (("f", "TPC"), 989, 0), (("l", "TPC"), 1011, 0), (("n", "TPC"), 1, 0)])
    statuses = dict(diff(a, b).select("name", "status").iter_rows())
    assert statuses == {"s": "same", "f": "faster", "l": "slower", "v": "vanished", "n": "appeared"}
    assert dict(diff(a, b, same=0.02).select("name", "status").iter_rows())["l"] == "same"
    assert diff(a, b).filter(name="n").row(0, named=True)["median_a_ns"] is None


def test_a_recompiled_kernel_is_the_same_kernel() -> None:
    before, after = (ops([((f"fused_kernel_0xAB_{n}_bf16", "TPC"), 50, 0)]) for n in ("3", "1F"))
    assert diff(before, after)["status"].to_list() == ["same"]


def test_a_trace_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="0 steps"):
        by_name(ops([]), 0)


def test_summary_sets_the_windows_side_by_side() -> None:
    a = Partition(0, 100, {"MME": 40, "TPC": 30, "MME+TPC": 10, "idle": 20})
    b = Partition(5, 85, {"MME": 20, "TPC": 10, "MME+TPC": 30, "DMA": 5, "idle": 15})
    found = {row["name"]: row for row in summary(a, b).iter_rows(named=True)}
    assert list(found) == [
        "window", "busy MME", "busy TPC", "busy DMA", "both", "exposed MME", "exposed TPC", "idle",
    ]  # fmt: skip
    assert found["window"]["delta_ns"] == -20
    assert (found["both"]["a_ns"], found["both"]["b_ns"], found["both"]["b_share"]) == (10, 30, 30 / 80)
    halved = summary(a, b, steps_a=2).filter(name="window").row(0, named=True)
    assert (halved["a_ns"], halved["b_ns"], halved["delta_ns"]) == (50, 80, 30)

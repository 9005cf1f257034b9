from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.errors import WorkloadError
from overlap.workload import Bucket, ModelShape, Workload

LLAMA_8B = ModelShape("llama-3.1-8b", 4096, 32, 8, 128, 14336, 32)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"heads": 15, "kv_heads": 4}, "multiple of kv_heads"),
        ({"head_dim": 63}, "must be even"),
        ({"hidden": 0}, "at least 1"),
        ({"layers": -1}, "at least 1"),
        ({"dtype": "int8"}, "bfloat16"),
        ({"norm_eps": 0.0}, "positive"),
        ({"rope_theta": float("nan")}, "positive"),
    ],
)
def test_impossible_shapes(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(WorkloadError, match=rule) as caught:
        replace(LLAMA_8B, **change)
    assert "llama-3.1-8b" in str(caught.value)


@pytest.mark.parametrize(
    ("bucket", "rule"),
    [
        ({"phase": "train"}, "prefill, decode"),
        ({"batch": 0}, "at least 1"),
        ({"query": 0}, "at least 1"),
        ({"context": -1}, "negative"),
        ({"phase": "decode", "query": 2, "context": 1}, "query=1"),
        ({"phase": "decode", "query": 1, "context": 0}, "at least 1"),
    ],
)
def test_impossible_buckets(bucket: dict[str, Any], rule: str) -> None:
    with pytest.raises(WorkloadError, match=rule):
        Bucket(**bucket)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"window_layers": 0}, "between 1 and 32"),
        ({"window_layers": 33}, "between 1 and 32"),
        ({"tensor_parallel": 0}, "divide"),
        ({"tensor_parallel": 3}, "divide"),
    ],
)
def test_impossible_windows_and_shards(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(WorkloadError, match=rule):
        Workload(LLAMA_8B, **change)


@given(st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_shards_add_up(degree: int) -> None:
    shard = Workload(LLAMA_8B, tensor_parallel=degree).shard
    assert shard.heads * degree == LLAMA_8B.heads
    assert shard.ffn * degree == LLAMA_8B.ffn
    # Beyond one KV head per card they are replicated.
    assert shard.kv_heads == max(1, LLAMA_8B.kv_heads // degree)
    assert (shard.hidden, shard.head_dim, shard.layers) == (4096, 128, 32)


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64), st.integers(1, 64))
def test_a_workload_is_whole_or_refused(heads: int, kv_heads: int, ffn: int, degree: int) -> None:
    try:
        workload = Workload(ModelShape("any", 64, heads, kv_heads, 8, ffn, 4), tensor_parallel=degree)
    except WorkloadError:
        return
    shard = workload.shard
    assert shard.heads % shard.kv_heads == 0
    assert shard.heads * degree == heads


def test_short_forms() -> None:
    workload = Workload(LLAMA_8B, Bucket("decode", 16, 1, 2048), tensor_parallel=4)
    assert str(workload) == "llama-3.1-8b decode 16x1+2048, 2 layers, rank of tp4"
    assert workload.bucket.key_tokens == 2049
    assert LLAMA_8B.group == 4

"""Rules for settings of vLLM on Gaudi: every one fires where it must and nowhere else."""

from __future__ import annotations

import pytest

from overlap.serve.vllm.env_file import parse_env
from overlap.serve.vllm.rules import check, kernel_names

SLICE = "VLLM_HPU_FSDPA_SLICE_"
PAD = "VLLM_BUCKETING_STRATEGY=pad\n"
LIN = "VLLM_BUCKETING_STRATEGY=lin\n"
LAZY = "PT_HPU_LAZY_MODE=1\n"


def found(text: str) -> list[tuple[str, str, str]]:
    """Severity, name and reason of everything wrong with a file."""
    read = parse_env(text)
    assert read.findings == []
    return [(one.severity, one.name, one.reason) for one in check(read.assignments, read.flags)]


def serve(options: str) -> str:
    return f"# vllm serve m {options}\n"


FIRES = [
    # Text, severity, name, part of the reason; and a text that is just right.
    ("VLLM_PIPELINED_PA=true", "error", "VLLM_PIPELINED_PA", "does not read it", "VLLM_DEFRAG=true"),
    (serve("--split-qkv"), "error", "--split-qkv", "does not know it", serve("--async-scheduling")),
    ("VLLM_SKIP_WARMUPS=1", "warning", "VLLM_SKIP_WARMUPS", "mean VLLM_SKIP_WARMUP", "VLLM_SKIP_WARMUP=1"),
    ("VLLM_LOGGING_LEVEL=DEBUG", "warning", "VLLM_LOGGING_LEVEL", "upstream vLLM", "HOME=/root"),
    ("HPU_XYZ=1", "warning", "HPU_XYZ", "does not read it", "HPU_FUSED_MOE=1"),
    ("PT_HPU_XYZ=1", "warning", "PT_HPU_XYZ", "the bridge may", "PT_HPU_SDPA_BR_FACTOR=1024"),
    (f"{LIN}VLLM_PROMPT_SEQ_BUCKET_MAX=4096", "warning", "VLLM_PROMPT_SEQ_BUCKET_MAX", "QUERY", LIN),
    (
        "VLLM_TORCH_PROFILER_DIR=/tmp/x",
        "warning",
        "VLLM_TORCH_PROFILER_DIR",
        "deprecated",
        "VLLM_PROFILER_ENABLED=full",
    ),
    ("VLLM_EXPONENTIAL_BUCKETING=true", "warning", "VLLM_EXPONENTIAL_BUCKETING", "deprecated", LIN),
    (f"VLLM_EXPONENTIAL_BUCKETING=true\n{PAD}", "error", "VLLM_EXPONENTIAL_BUCKETING", "overrides", PAD),
    # Types.
    ("VLLM_SKIP_WARMUP=ture", "error", "VLLM_SKIP_WARMUP", "neither true nor false", "VLLM_SKIP_WARMUP=Yes"),
    ("VLLM_SKIP_WARMUP=", "error", "VLLM_SKIP_WARMUP", "neither true nor false", "VLLM_SKIP_WARMUP=n"),
    ("VLLM_FULL_WARMUP=yes", "warning", "VLLM_FULL_WARMUP", "counts as false", "VLLM_FULL_WARMUP=TRUE"),
    ("VLLM_GDN_EXACT_SOLVE=true", "warning", "VLLM_GDN_EXACT_SOLVE", "write 1", "VLLM_GDN_EXACT_SOLVE=1"),
    ("VLLM_DYNAMIC_KV_QUANT=0", "warning", "VLLM_DYNAMIC_KV_QUANT", "whatever", "VLLM_DYNAMIC_KV_QUANT=1"),
    ("VLLM_DEFRAG_THRESHOLD=3.5", "error", "VLLM_DEFRAG_THRESHOLD", "whole number", "VLLM_DEFRAG_THRESHOLD=3"),
    ("VLLM_GRAPH_RESERVED_MEM=a", "error", "VLLM_GRAPH_RESERVED_MEM", "no number", "VLLM_GRAPH_RESERVED_MEM=0.2"),
    ("VLLM_GRAPH_RESERVED_MEM=1.1", "error", "VLLM_GRAPH_RESERVED_MEM", "0 to 1", "VLLM_GRAPH_RESERVED_MEM=1"),
    ("VLLM_GRAPH_RESERVED_MEM=nan", "error", "VLLM_GRAPH_RESERVED_MEM", "no number", "VLLM_GRAPH_RESERVED_MEM=0"),
    ("VLLM_PROFILE_STEPS=1,x", "error", "VLLM_PROFILE_STEPS", "list", "VLLM_PROFILE_STEPS=1,5"),
    ("VLLM_MULTIMODAL_BUCKETS=none", "error", "VLLM_MULTIMODAL_BUCKETS", "list", "VLLM_MULTIMODAL_BUCKETS=None"),
    ("VLLM_BUCKETING_STRATEGY=linear", "error", "VLLM_BUCKETING_STRATEGY", "exp or lin or pad", LIN),
    ("VLLM_PROMPT_ATTN_IMPL=x", "error", "VLLM_PROMPT_ATTN_IMPL", "fsdpa_impl", "VLLM_PROMPT_ATTN_IMPL=fsdpa_impl"),
    ("VLLM_DEBUG=steps,x", "error", "VLLM_DEBUG", "defrag", "VLLM_DEBUG=steps,fwd"),
    ("PT_HPU_LAZY_MODE=true", "error", "PT_HPU_LAZY_MODE", "0 or 1", "PT_HPU_LAZY_MODE=0"),
    ("VLLM_BUILD=1.24", "error", "VLLM_BUILD", "four numbers", "VLLM_BUILD=1.24.1.17"),
    # Ray.
    ("QUANT_CONFIG=/a", "warning", "QUANT_CONFIG", "with Ray", f"{serve('')}QUANT_CONFIG=/a"),
    (
        f"{serve('--distributed-executor-backend ray')}MAX_EXPERTS_PER_SLICE=2",
        "warning",
        "MAX_EXPERTS_PER_SLICE",
        "every node",
        f"{serve('--distributed-executor-backend mp')}MAX_EXPERTS_PER_SLICE=2",
    ),
    # Buckets.
    (
        f"{PAD}VLLM_DECODE_BS_BUCKET_STEP=0",
        "error",
        "VLLM_DECODE_BS_BUCKET_STEP",
        "too small",
        f"{PAD}VLLM_DECODE_BS_BUCKET_STEP=1",
    ),
    (
        f"{PAD}VLLM_DECODE_BS_BUCKET_PAD_PERCENT=51",
        "error",
        "VLLM_DECODE_BS_BUCKET_PAD_PERCENT",
        "0 to 50",
        f"{PAD}VLLM_DECODE_BS_BUCKET_PAD_PERCENT=50",
    ),
    (
        f"{PAD}VLLM_DECODE_BS_BUCKET_PAD_PERCENT=-1",
        "error",
        "VLLM_DECODE_BS_BUCKET_PAD_PERCENT",
        "0 to 50",
        f"{PAD}VLLM_DECODE_BS_BUCKET_PAD_PERCENT=0",
    ),
    (
        f"{LIN}VLLM_DECODE_BS_BUCKET_MIN=9\nVLLM_DECODE_BS_BUCKET_MAX=8",
        "error",
        "VLLM_DECODE_BS_BUCKET_MAX",
        "no bucket",
        f"{LIN}VLLM_DECODE_BS_BUCKET_MIN=8\nVLLM_DECODE_BS_BUCKET_MAX=8",
    ),
    (
        f"{PAD}VLLM_PROMPT_QUERY_BUCKET_MAX=127",
        "error",
        "VLLM_PROMPT_QUERY_BUCKET_MAX",
        "128 by default",
        f"{PAD}VLLM_PROMPT_QUERY_BUCKET_MAX=128",
    ),
    (
        f"{serve('--block-size 256')}{LIN}VLLM_PROMPT_QUERY_BUCKET_MAX=255",
        "error",
        "VLLM_PROMPT_QUERY_BUCKET_MAX",
        "256 by default",
        f"{serve('--block-size 256')}{LIN}VLLM_PROMPT_QUERY_BUCKET_MAX=256",
    ),
    (
        f"{serve('--max-num-seqs 64')}{PAD}VLLM_DECODE_BS_BUCKET_MIN=65",
        "error",
        "VLLM_DECODE_BS_BUCKET_MIN",
        "64 by default",
        f"{serve('--max-num-seqs 64')}{PAD}VLLM_DECODE_BS_BUCKET_MIN=64",
    ),
    (
        "VLLM_PROMPT_BS_BUCKET_MAX=0",
        "error",
        "VLLM_PROMPT_BS_BUCKET_MAX",
        "1 by default",
        "VLLM_PROMPT_BS_BUCKET_MAX=1",
    ),
    (
        f"{PAD}VLLM_DECODE_BLOCK_BUCKET_MAX=127",
        "error",
        "VLLM_DECODE_BLOCK_BUCKET_MAX",
        "by default",
        f"{LIN}VLLM_DECODE_BLOCK_BUCKET_MAX=127",
    ),
    (
        "VLLM_DECODE_BS_BUCKET_MAX=8",
        "warning",
        "VLLM_DECODE_BS_BUCKET_MAX",
        "no effect",
        "VLLM_PROMPT_CTX_BUCKET_MAX=8",
    ),
    (
        "VLLM_PROMPT_QUERY_BUCKET_MIN=2",
        "warning",
        "VLLM_PROMPT_QUERY_BUCKET_MIN",
        "no effect",
        "VLLM_PROMPT_QUERY_BUCKET_MIN=1",
    ),
    (
        f"{LIN}VLLM_DECODE_BS_BUCKET_PAD_MAX=8",
        "warning",
        "VLLM_DECODE_BS_BUCKET_PAD_MAX",
        "no effect",
        f"{PAD}VLLM_DECODE_BS_BUCKET_PAD_MAX=8",
    ),
    (
        f"VLLM_ENABLE_BUCKETING=0\n{LIN}",
        "warning",
        "VLLM_BUCKETING_STRATEGY",
        "no effect",
        f"VLLM_ENABLE_BUCKETING=1\n{LIN}",
    ),
    # Attention in slices.
    (
        f"{PAD}{SLICE}SEQ_LEN_THLD=1023",
        "error",
        f"{SLICE}SEQ_LEN_THLD",
        "1024 or more",
        f"{serve('--max-num-batched-tokens 1024')}{PAD}{SLICE}SEQ_LEN_THLD=1024",
    ),
    (
        f"{serve('--block-size 2048')}{PAD}{SLICE}SEQ_LEN_THLD=2048\n{SLICE}CHUNK_SIZE=4096",
        "error",
        f"{SLICE}SEQ_LEN_THLD",
        "2049 or more",
        f"{serve('--block-size 2048 --max-num-batched-tokens 8192')}{PAD}{SLICE}SEQ_LEN_THLD=8192",
    ),
    (f"{PAD}{SLICE}SEQ_LEN_THLD=4096", "warning", f"{SLICE}SEQ_LEN_THLD", "advises", f"{PAD}{SLICE}SEQ_LEN_THLD=8192"),
    (
        f"{serve('--max-num-batched-tokens 1023')}{PAD}",
        "error",
        "VLLM_BUCKETING_STRATEGY",
        "--max-num-batched-tokens",
        f"{serve('--max-num-batched-tokens 1024')}{PAD}",
    ),
    (f"{PAD}{SLICE}CHUNK_SIZE=8193", "error", f"{SLICE}CHUNK_SIZE", "longer", f"{PAD}{SLICE}CHUNK_SIZE=8192"),
    (f"{PAD}{SLICE}CHUNK_SIZE=1000", "warning", f"{SLICE}CHUNK_SIZE", "to 1024", f"{PAD}{SLICE}CHUNK_SIZE=1024"),
    (
        f"{serve('--max-num-batched-tokens 4096')}{PAD}{SLICE}CHUNK_SIZE=5120",
        "error",
        f"{SLICE}CHUNK_SIZE",
        "threshold 4096",
        f"{serve('--max-num-batched-tokens 4096')}{PAD}{SLICE}CHUNK_SIZE=4096",
    ),
    (
        f"{PAD}{SLICE}SEQ_LEN_THLD=8700\n{SLICE}CHUNK_SIZE=8600",
        "error",
        f"{SLICE}CHUNK_SIZE",
        "9216 tokens are longer",
        f"{PAD}{SLICE}SEQ_LEN_THLD=9216\n{SLICE}CHUNK_SIZE=9216",
    ),
    (
        f"{PAD}{SLICE}CHUNK_SIZE=0",
        "error",
        f"{SLICE}CHUNK_SIZE",
        "no longer than a block",
        f"{PAD}{SLICE}CHUNK_SIZE=2048",
    ),
    (
        f"{serve('--block-size 1024 --max-num-batched-tokens 8192')}{PAD}{SLICE}CHUNK_SIZE=1024",
        "error",
        f"{SLICE}CHUNK_SIZE",
        "block of 1024",
        f"{serve('--block-size 1023 --max-num-batched-tokens 8192')}{PAD}{SLICE}CHUNK_SIZE=1024",
    ),
    (
        f"{PAD}VLLM_PROMPT_QUERY_BUCKET_PAD_MAX=127",
        "error",
        "VLLM_PROMPT_QUERY_BUCKET_PAD_MAX",
        "less than a block",
        f"{PAD}VLLM_PROMPT_QUERY_BUCKET_PAD_MAX=128",
    ),
    (
        f"{PAD}VLLM_PROMPT_QUERY_BUCKET_PAD_MAX=127",
        "error",
        "VLLM_PROMPT_QUERY_BUCKET_PAD_MAX",
        f"{SLICE}ENABLED=false",
        f"{PAD}VLLM_PROMPT_QUERY_BUCKET_PAD_MAX=127\n{SLICE}ENABLED=false",
    ),
    (f"{LIN}{SLICE}ENABLED=true", "warning", f"{SLICE}ENABLED", "no effect", f"{PAD}{SLICE}ENABLED=true"),
    (
        f"VLLM_ENABLE_BUCKETING=0\n{SLICE}ENABLED=1",
        "warning",
        f"{SLICE}ENABLED",
        "without buckets",
        f"{PAD}{SLICE}ENABLED=1",
    ),
    (
        f"{PAD}VLLM_MERGED_PREFILL=1\n{SLICE}ENABLED=1",
        "warning",
        f"{SLICE}ENABLED",
        "merged",
        f"{PAD}VLLM_MERGED_PREFILL=0\n{SLICE}ENABLED=1",
    ),
    (
        f"{serve('--no-enable-prefix-caching --no-enable-chunked-prefill')}{PAD}{SLICE}ENABLED=1",
        "warning",
        f"{SLICE}ENABLED",
        "no prompt has a prefix",
        f"{serve('--no-enable-prefix-caching --enable-chunked-prefill')}{PAD}{SLICE}ENABLED=1",
    ),
    (
        f"{serve('--no-enable-chunked-prefill')}{PAD}{SLICE}ENABLED=1\nVLLM_CONTIGUOUS_PA=true",
        "warning",
        f"{SLICE}ENABLED",
        "no prompt has a prefix",
        f"{serve('--no-enable-chunked-prefill')}{PAD}{SLICE}ENABLED=1\nVLLM_CONTIGUOUS_PA=false",
    ),
    (
        f"{PAD}{SLICE}ENABLED=0\n{SLICE}CHUNK_SIZE=2048",
        "warning",
        f"{SLICE}CHUNK_SIZE",
        "is off",
        f"{PAD}{SLICE}ENABLED=0",
    ),
    (
        f"{PAD}{SLICE}WITH_GRAPH_BREAKS=1",
        "warning",
        f"{SLICE}WITH_GRAPH_BREAKS",
        "lazy mode only",
        f"{LAZY}{PAD}{SLICE}WITH_GRAPH_BREAKS=1",
    ),
    (f"{SLICE}CAUSAL=1", "warning", f"{SLICE}CAUSAL", "Neural Compressor", f"{serve('-q inc')}{SLICE}CAUSAL=1"),
    # Graphs, cards, experts, quantization.
    (
        f"{serve('--kv-cache-dtype fp8_inc')}VLLM_HPU_OVERLAP_CONFIG=/a",
        "warning",
        "VLLM_HPU_OVERLAP_CONFIG",
        "name of its class",
        f"{serve('--kv-cache-dtype auto')}VLLM_HPU_OVERLAP_CONFIG=/a",
    ),
    (
        f"{LAZY}VLLM_T_COMPILE_FULLGRAPH=0",
        "warning",
        "VLLM_T_COMPILE_FULLGRAPH",
        "in lazy mode",
        "PT_HPU_LAZY_MODE=0\nVLLM_T_COMPILE_FULLGRAPH=0",
    ),
    (
        f"{serve('--enforce-eager')}VLLM_T_COMPILE_FULLGRAPH=0",
        "warning",
        "VLLM_T_COMPILE_FULLGRAPH",
        "--enforce-eager",
        "VLLM_T_COMPILE_FULLGRAPH=0",
    ),
    (
        "VLLM_CONFIG_HIDDEN_LAYERS=2",
        "warning",
        "VLLM_CONFIG_HIDDEN_LAYERS",
        "no effect",
        f"{LAZY}VLLM_CONFIG_HIDDEN_LAYERS=2",
    ),
    (
        f"{serve('--enforce-eager')}VLLM_GRAPH_RESERVED_MEM=0.2",
        "warning",
        "VLLM_GRAPH_RESERVED_MEM",
        "no graphs",
        "VLLM_GRAPH_RESERVED_MEM=0.2",
    ),
    ("VLLM_ROW_PARALLEL_CHUNKS=0", "error", "VLLM_ROW_PARALLEL_CHUNKS", "1 or more", "VLLM_ROW_PARALLEL_CHUNKS=1"),
    (
        "VLLM_ROW_PARALLEL_CHUNK_THRESHOLD=0",
        "error",
        "VLLM_ROW_PARALLEL_CHUNK_THRESHOLD",
        "1 or more",
        "VLLM_ROW_PARALLEL_CHUNK_THRESHOLD=1",
    ),
    (
        f"{serve('-tp 1')}VLLM_ROW_PARALLEL_CHUNKS=2",
        "warning",
        "VLLM_ROW_PARALLEL_CHUNKS",
        "one card",
        f"{serve('-tp 2')}VLLM_ROW_PARALLEL_CHUNKS=2",
    ),
    (
        "VLLM_ROW_PARALLEL_CHUNKS=2\nVLLM_T_COMPILE_FULLGRAPH=1",
        "warning",
        "VLLM_T_COMPILE_FULLGRAPH",
        "breaks the graph",
        "VLLM_ROW_PARALLEL_CHUNKS=1\nVLLM_T_COMPILE_FULLGRAPH=1",
    ),
    (
        "VLLM_MOE_CHUNK=64,128\nVLLM_MOE_TOKEN_BOUNDARY=2048",
        "error",
        "VLLM_MOE_CHUNK",
        "2 numbers",
        "VLLM_MOE_CHUNK=64,128\nVLLM_MOE_TOKEN_BOUNDARY=2048,4096",
    ),
    ("VLLM_MOE_TOKEN_BOUNDARY=2048", "error", "VLLM_MOE_TOKEN_BOUNDARY", "in both", ""),
    (
        f"{serve('--enable-prefix-caching')}VLLM_CONTIGUOUS_PA=true",
        "warning",
        "VLLM_CONTIGUOUS_PA",
        "in spite of",
        f"{serve('--no-enable-prefix-caching')}VLLM_CONTIGUOUS_PA=true",
    ),
    (
        "VLLM_FUSED_BLOCK_SOFTMAX=1\nVLLM_FUSED_BLOCK_SOFTMAX_ADJUSTMENT=0",
        "warning",
        "VLLM_FUSED_BLOCK_SOFTMAX",
        "not used",
        "VLLM_FUSED_BLOCK_SOFTMAX=1\nVLLM_FUSED_BLOCK_SOFTMAX_ADJUSTMENT=1",
    ),
    (
        "PT_HPU_SDPA_BC_FACTOR=2048",
        "warning",
        "PT_HPU_SDPA_BC_FACTOR",
        "1024 and 2048",
        "PT_HPU_SDPA_BC_FACTOR=2048\nPT_HPU_SDPA_BR_FACTOR=2048",
    ),
]


@pytest.mark.parametrize(("text", "severity", "name", "part", "right"), FIRES)
def test_a_rule_fires_where_it_must_and_not_beside_it(
    text: str, severity: str, name: str, part: str, right: str
) -> None:
    assert [one for one in found(text) if one[:2] == (severity, name) and part in one[2]]
    assert [one for one in found(right) if one[0] == "error" or (severity == "warning" and one[1] == name)] == []


def test_what_is_exported_as_a_rule_has_nothing_wrong() -> None:
    flags = "--block-size 128 --tensor-parallel-size 1 --max-model-len 32768 --max-num-batched-tokens 8192"
    text = f"""{serve(flags)}PT_HPU_LAZY_MODE=0
VLLM_BUCKETING_STRATEGY=pad
VLLM_PROMPT_QUERY_BUCKET_PAD_MAX=2048
VLLM_PROMPT_CTX_BUCKET_PAD_MAX=32
{SLICE}ENABLED=true
{SLICE}SEQ_LEN_THLD=8192
{SLICE}CHUNK_SIZE=4096
VLLM_T_COMPILE_REGIONAL_COMPILATION=true
VLLM_HPU_OVERLAP_CONFIG=/etc/overlap/tuned.yaml
"""
    assert found(text) == []


def test_findings_come_by_line_and_the_last_assignment_counts() -> None:
    text = "VLLM_HW=x\nVLLM_PIPELINED_PA=1\nVLLM_HW=y\nVLLM_DEBUG=z"
    assert [(one.line, one.name) for one in check(parse_env(text).assignments)] == [
        (2, "VLLM_PIPELINED_PA"),
        (3, "VLLM_HW"),
        (4, "VLLM_DEBUG"),
    ]


def test_names_of_the_kernel_are_told_and_nothing_is_wrong_with_them() -> None:
    given = parse_env("PT_HPU_SDPA_BR_FACTOR=1024\nVLLM_DEFRAG=1\nPT_HPU_QKV_SLICE_SEQ_LEN_THLD=8192").assignments
    assert [one.name for one in kernel_names(given)] == ["PT_HPU_SDPA_BR_FACTOR", "PT_HPU_QKV_SLICE_SEQ_LEN_THLD"]
    assert check(given) == []

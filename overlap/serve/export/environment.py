"""Settings of a level as an environment file: names, values, the serve command, and what every line is for.

Terms
    kernel name: a variable that native code reads. It is exported as the sweep had it, for it changed what was timed.
    prefix: tokens of a prompt that are in the KV cache already, because prompts share them or come in chunks.

Contract: what comes out has no error by `overlap.serve.vllm.rules`, whatever a tuned config says; a recorded value that
a rule is against is left out, and told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from overlap.serve.export.limits import served
from overlap.serve.export.plan import Limits
from overlap.serve.export.server import LAZY, NAIVE, NAIVE_FAST, SLICE_STEP, SLICES, ServerSettings
from overlap.serve.tuned import Tuned
from overlap.serve.vllm.env_file import Assignment
from overlap.serve.vllm.rules import check
from overlap.workload import Bucket, ModelShape

CONFIG = "VLLM_HPU_OVERLAP_CONFIG"
SLICE = "VLLM_HPU_FSDPA_SLICE_"
BUCKETS, TUNED_JSON = "buckets.txt", "overlap.json"
# Kernel names that change the attention; the two block sizes must be equal.
KERNEL = (
    "PT_HPU_SDPA_QKV_SLICE_MODE_FWD",
    "PT_HPU_SDPA_BR_FACTOR",
    "PT_HPU_SDPA_BC_FACTOR",
    "PT_HPU_QKV_SLICE_SEQ_LEN_THLD",
)
BLOCKS = KERNEL[1:3]
# Models that vLLM on Gaudi gives a softmax in fp32 by itself (vllm-gaudi 091bbadd, extension/features.py).
FP32_MODELS = ("qwen2",)


def wants_fp32(model: ModelShape) -> bool:
    """Whether vLLM keeps the softmax of a model in fp32, which an export does not overrule.

    A shape has no family; the bias of Qwen2's projections tells it where the name does not.
    """
    return model.name.lower().startswith(FP32_MODELS) or model.qkv_bias


def has_prefix(buckets: Sequence[Bucket]) -> bool:
    """Whether prompts with a prefix were tuned."""
    return any(one.phase == "prefill" and one.context for one in buckets)


def settings_of(tuned: Tuned, chosen: ServerSettings, mode: str, limits: Limits, level: int) -> dict[str, str]:
    """Names and values of a level, in the order of the file."""
    buckets = [entry.bucket for entry in tuned.entries]
    found = {
        "PT_HPU_LAZY_MODE": "1" if mode == LAZY else "0",
        **dict(_graphs(chosen, mode, tuned.window_layers)),
        **dict(_attention(chosen, tuned, level)),
        **kernel_settings(tuned.device.software),
        **_buckets(buckets),
        **(_slices(chosen, buckets, limits) if chosen.attention == SLICES else {}),
        # A graph per slice is the default in lazy mode; slices were timed in one.
        **({f"{SLICE}WITH_GRAPH_BREAKS": "false"} if chosen.attention == SLICES and mode == LAZY else {}),
        "VLLM_CONTIGUOUS_PA": "false" if has_prefix(buckets) else "true",
    }
    if level:
        found[CONFIG] = TUNED_JSON
    return found


def _graphs(chosen: ServerSettings, mode: str, window: int) -> Iterator[tuple[str, str]]:
    if mode == LAZY:
        yield "VLLM_CONFIG_HIDDEN_LAYERS", str(chosen.layers)
    else:
        one = chosen.layers == 1 or window == 1
        yield "VLLM_T_COMPILE_REGIONAL_COMPILATION", "true" if one else "false"


def _attention(chosen: ServerSettings, tuned: Tuned, level: int) -> Iterator[tuple[str, str]]:
    naive = chosen.attention in (NAIVE, NAIVE_FAST)
    if naive or level or chosen.attention == SLICES:
        # The plug-in and slices stand on the fused attention, so that it is said even where it is the default.
        yield "VLLM_PROMPT_USE_FUSEDSDPA", "false" if naive else "true"
    softmax = tuned.device.software.get("hpu.softmax_mode", "")
    if chosen.attention == NAIVE or (not naive and softmax == "fp32"):
        yield "VLLM_FP32_SOFTMAX", "true"
    elif (chosen.attention == NAIVE_FAST or softmax == "fast") and not wants_fp32(tuned.model):
        yield "VLLM_FP32_SOFTMAX", "false"


def kernel_settings(software: Mapping[str, str]) -> dict[str, str]:
    """Kernel names as the sweep had them, without those that a rule is against."""
    found = {name: software[name] for name in KERNEL if name in software and _fine(name, software[name])}
    if len({found.get(name) for name in BLOCKS}) > 1:
        return {name: value for name, value in found.items() if name not in BLOCKS}
    return found


def _fine(name: str, value: str) -> bool:
    errors = [one for one in check([Assignment(name, value)]) if one.severity == "error"]
    return value.isascii() and value.isdigit() and not errors


def left_out(software: Mapping[str, str]) -> list[str]:
    """Kernel names of the record that are not exported."""
    kept = kernel_settings(software)
    return [name for name in KERNEL if name in software and name not in kept]


def _buckets(buckets: Sequence[Bucket]) -> dict[str, str]:
    found = {"VLLM_BUCKETING_FROM_FILE": BUCKETS}
    batch = max((one.batch for one in buckets if one.phase == "prefill"), default=1)
    # It also is the number of prompts that vLLM puts in a step, which is 1 by default.
    return found | ({"VLLM_PROMPT_BS_BUCKET_MAX": str(batch)} if batch > 1 else {})


def _slices(chosen: ServerSettings, buckets: Sequence[Bucket], limits: Limits) -> dict[str, str]:
    """Slices work with padding that is bounded: chunks that may hold padding get a mask, all others none."""
    query, context = padding(buckets, limits.block_size)
    return {
        "VLLM_BUCKETING_STRATEGY": "pad",
        "VLLM_PROMPT_QUERY_BUCKET_PAD_MAX": str(max(query, limits.block_size)),
        "VLLM_PROMPT_CTX_BUCKET_PAD_MAX": str(context),
        f"{SLICE}ENABLED": "true",
        f"{SLICE}SEQ_LEN_THLD": str(max(chosen.threshold, SLICE_STEP)),
        f"{SLICE}CHUNK_SIZE": str(chosen.chunk),
    }


def padding(buckets: Sequence[Bucket], block: int) -> tuple[int, int]:
    """The most padding that a request may get in the buckets: query tokens, and blocks of context.

    vLLM takes the first bucket, in order of batch, query and context, that holds a request. Where every query has
    every context, that is the next larger one of each; else anything up to the largest.
    """
    shapes = [shape for one in buckets if one.phase == "prefill" and (shape := served(one, block)) is not None]
    queries, contexts = {one.query for one in shapes}, {one.context // block for one in shapes}
    batches = {one.batch for one in shapes}
    points = {(one.batch, one.query, one.context) for one in shapes}
    if len(points) < len(batches) * len(queries) * len(contexts):
        return _whole_blocks(max(queries, default=0), block), max(contexts, default=0)
    return _whole_blocks(_widest(queries), block), _widest(contexts)


def _widest(values: set[int]) -> int:
    ordered = [0, *sorted(values)]
    return max(high - low for low, high in pairwise(ordered)) if values else 0


def _whole_blocks(tokens: int, block: int) -> int:
    return math.ceil(tokens / block) * block


def flags_of(tuned: Tuned, limits: Limits) -> dict[str, str]:
    """Options of the serve command; a switch is `true` or `false`, as `serve_flags` reads them."""
    prefix = has_prefix([entry.bucket for entry in tuned.entries])
    found = {
        "block-size": str(limits.block_size),
        "dtype": "bfloat16",
        "tensor-parallel-size": str(tuned.tensor_parallel),
        "max-model-len": str(limits.max_model_len),
        "max-num-batched-tokens": str(limits.max_num_batched_tokens),
        "enable-prefix-caching": "true" if prefix else "false",
    }
    return found | ({"max-num-seqs": str(limits.max_num_seqs)} if limits.max_num_seqs else {})


def words_of(flags: Mapping[str, str]) -> list[str]:
    """The same as words of a command line."""
    words: list[str] = []
    for name, value in flags.items():
        if name == "enable-prefix-caching":
            words.append(f"--{name}" if value == "true" else f"--no-{name}")
        else:
            words += [f"--{name}", value]
    return words

"""Rules for graphs, several cards, experts and quantization: what stops vLLM, and what has no effect."""

from __future__ import annotations

from collections.abc import Iterator

from overlap.serve.vllm.env_file import Finding
from overlap.serve.vllm.facts import Facts

COMPILE = tuple(f"VLLM_T_COMPILE_{part}" for part in ("REGIONAL_COMPILATION", "DYNAMIC_SHAPES", "FULLGRAPH"))
CHUNKS = "VLLM_ROW_PARALLEL_CHUNKS"
OWN = "VLLM_HPU_OVERLAP_CONFIG"
NO_EFFECT = "it has no effect"
# What the attention kernel takes where nothing is set.
KERNEL_BLOCK = 1024


def slice_by_inc(facts: Facts) -> Iterator[Finding]:
    """What only Intel Neural Compressor reads."""
    if not _inc(facts):
        for name in ("VLLM_HPU_FSDPA_SLICE_IMPL", "VLLM_HPU_FSDPA_SLICE_CAUSAL"):
            if name in facts.values:
                yield facts.warning(name, f"only Intel Neural Compressor reads it, so {NO_EFFECT} without QUANT_CONFIG")


def _inc(facts: Facts) -> bool:
    return "QUANT_CONFIG" in facts.values or facts.flags.get("quantization") == "inc"


def own_attention_with_inc(facts: Facts) -> Iterator[Finding]:
    """Intel Neural Compressor patches classes by name, and the plug-in of overlap brings its own."""
    if OWN in facts.values and (_inc(facts) or facts.flags.get("kv-cache-dtype", "").startswith("fp8")):
        reason = "fp8 patches attention by the name of its class and may pass over the one of overlap"
        yield facts.warning(OWN, f"{reason}: compare the outputs first, or serve in bfloat16")


def prefill_by_plugin(facts: Facts) -> Iterator[Finding]:
    """The plug-in of overlap is loaded, finds its config, and the class that it replaces is used."""
    if OWN not in facts.values:
        return
    loaded = facts.text("VLLM_PLUGINS")
    if loaded is not None and "overlap" not in [one.strip() for one in loaded.split(",")]:
        yield facts.warning(OWN, f"VLLM_PLUGINS leaves out the plug-in, so {NO_EFFECT}: add overlap to VLLM_PLUGINS")
    if impl := _other_prefill(facts):
        yield facts.warning(OWN, f"the plug-in replaces the fused attention of prefill, so {NO_EFFECT} with {impl}")
    text = facts.text(OWN) or ""
    if facts.folder is not None and not (facts.folder / text).is_file():
        yield facts.error(OWN, f"there is no file {text[:200]!r}, vLLM stops at its first layer: correct the path")


def slices_of_fused(facts: Facts) -> Iterator[Finding]:
    """Only the fused attention is sliced."""
    name = "VLLM_HPU_FSDPA_SLICE_ENABLED"
    if facts.on(name) and (impl := _other_prefill(facts)):
        yield facts.warning(name, f"the fused attention of prefill is what is sliced, so {NO_EFFECT} with {impl}")


def _other_prefill(facts: Facts) -> str:
    """The setting that keeps prefill from the fused attention; empty if there is none."""
    if facts.on("VLLM_PROMPT_USE_FUSEDSDPA") is False:
        return "VLLM_PROMPT_USE_FUSEDSDPA off"
    impl = facts.text("VLLM_PROMPT_ATTN_IMPL")
    return f"VLLM_PROMPT_ATTN_IMPL={impl}" if impl in ("naive_impl", "flex_impl") else ""


def compile_flags(facts: Facts) -> Iterator[Finding]:
    """Switches of torch.compile where nothing is compiled by it, and the other way round."""
    where = "in lazy mode" if facts.lazy else "with --enforce-eager" if facts.eager else ""
    for name in COMPILE if where else ():
        if name in facts.values:
            yield facts.warning(name, f"torch.compile is not used {where}, so {NO_EFFECT}: remove it")
    name = "VLLM_CONFIG_HIDDEN_LAYERS"
    if name in facts.values and not facts.lazy:
        instead = "set VLLM_T_COMPILE_REGIONAL_COMPILATION=false for graphs of several layers"
        yield facts.warning(name, f"it is for lazy mode, so {NO_EFFECT} in compile mode: {instead}")
    name = "VLLM_GRAPH_RESERVED_MEM"
    if name in facts.values and facts.eager:
        yield facts.warning(name, f"there are no graphs with --enforce-eager, so {NO_EFFECT}: remove it")


def row_parallel(facts: Facts) -> Iterator[Finding]:
    """Chunks need several cards, and break the graph on purpose."""
    if (facts.whole(CHUNKS) or 1) <= 1:
        return
    if facts.flag("tensor-parallel-size") == 1:
        yield facts.warning(
            CHUNKS, f"one card has no all-reduce to hide, so {NO_EFFECT} with --tensor-parallel-size 1: remove it"
        )
    if facts.on(COMPILE[2]) and not facts.lazy and not facts.eager:
        yield facts.warning(COMPILE[2], f"{CHUNKS} breaks the graph, which is an error then: set one of them only")


def experts(facts: Facts) -> Iterator[Finding]:
    """Both lists of the experts' kernel have the same length."""
    sizes, limits = "VLLM_MOE_CHUNK", "VLLM_MOE_TOKEN_BOUNDARY"
    counts = [0 if text is None else len(text.split(",")) for text in map(facts.text, (sizes, limits))]
    if counts[0] != counts[1]:
        at = sizes if sizes in facts.values else limits
        what = f"{sizes} has {counts[0]} numbers and {limits} {counts[1]}"
        yield facts.error(at, f"{what}, and one belongs to the other: write as many in both, or neither")


def cache_layout(facts: Facts) -> Iterator[Finding]:
    """A cache that is read in one piece cannot share prefixes."""
    name = "VLLM_CONTIGUOUS_PA"
    if facts.on(name) and facts.flags.get("enable-prefix-caching") == "true":
        yield facts.warning(
            name, "it turns prefix caching off, in spite of --enable-prefix-caching: set one of them only"
        )


def decode_softmax(facts: Facts) -> Iterator[Finding]:
    """The fused softmax needs the fused rescaling."""
    name, other = "VLLM_FUSED_BLOCK_SOFTMAX", "VLLM_FUSED_BLOCK_SOFTMAX_ADJUSTMENT"
    if facts.on(name) and facts.on(other) is False:
        yield facts.warning(name, f"without {other} the fused softmax is not used and {NO_EFFECT}: set that to true")


def kernel_blocks(facts: Facts) -> Iterator[Finding]:
    """Blocks of the attention kernel are square."""
    names = ("PT_HPU_SDPA_BR_FACTOR", "PT_HPU_SDPA_BC_FACTOR")
    sizes = [facts.whole(name) if name in facts.values else KERNEL_BLOCK for name in names]
    if None not in sizes and sizes[0] != sizes[1]:
        at = max((name for name in names if name in facts.values), key=lambda name: facts.values[name].line)
        yield facts.warning(
            at, f"the kernel wants as many rows as columns, here {sizes[0]} and {sizes[1]}: set both alike"
        )


RULES = (
    slice_by_inc,
    own_attention_with_inc,
    prefill_by_plugin,
    slices_of_fused,
    compile_flags,
    row_parallel,
    experts,
    cache_layout,
    decode_softmax,
    kernel_blocks,
)

"""Layers and phases of attention by name."""

from __future__ import annotations

import polars as pl
import pytest

from overlap.errors import ConfigError
from overlap.traces import names
from overlap.traces.codes import coded
from overlap.traces.names import NameRules, layers_of, name_rules, parsed_rules, phases_of, with_names
from overlap.traces.schema import EVENTS, empty
from tests.timelines import table

BUNDLE = "lb_bundle_32/0/self_attn/attn"
# Texts are `path/name kind`.
PHASES = {
    "layer1.chunk0.qkv.norm vector": "norm",
    "layer1.chunk0.qkv.qkv gemm": "projection",
    "layer1.chunk0.qkv.k gemm": "projection",
    "layer1.chunk3.qkv.rope_q vector": "rope",
    "layer1.chunk3.qkv.write_v copy": "copy",
    "layer12.chunk0.attn.g1.t0.k3.qk bgemm": "qk",
    "layer12.chunk0.attn.g1.t0.k3.softmax vector": "softmax",
    "layer12.chunk0.attn.row_sum vector": "softmax",
    "layer12.chunk0.attn.pv bgemm": "pv",
    "layer12.chunk0.attn.merge vector": "softmax",
    "layer12.chunk0.attn.merge copy": "copy",
    "layer12.chunk0.attn.fused fused": "attention",
    "layer1.chunk0.out.out gemm": "projection",
    "layer1.chunk0.out.residual vector": "norm",
    "layer1.chunk0.mlp.norm vector": "norm",
    "layer1.chunk0.mlp.gate_up gemm": "mlp",
    "layer1.chunk0.mlp.up gemm": "mlp",
    "layer1.chunk0.mlp.silu_mul vector": "mlp",
    "layer1.chunk0.mlp.mul vector": "mlp",
    "layer1.chunk0.mlp.down gemm": "mlp",
    f"{BUNDLE}/matmul_qk/batch_gemm/144/op_0_0_0_1 batch_gemm": "qk",
    f"{BUNDLE}/softmax/softmax_fwd_bf16/12 softmax_fwd_bf16": "softmax",
    f"{BUNDLE}/matmul_av/batch_gemm/145/op_0_0_0_1 batch_gemm": "pv",
    "layers/3/self_attn/q_proj/gemm/7 gemm": "projection",
    "layers/3/self_attn/o_proj/gemm/7 gemm": "projection",
    "layers/3/self_attn/rotary_emb/mult/9 mult_fwd_bf16": "rope",
    "layers/3/mlp/gate_proj/gemm/7 gemm": "mlp",
    "layers/3/mlp/act_fn/silu_fwd/2 silu_fwd_bf16": "mlp",
    "layers/3/input_layernorm/rms_norm_ex_fwd/1 rms_norm_ex_fwd_bf16": "norm",
    "lm_head/gemm/1 gemm": "embedding",
    "fused_kernel_0x88805A4E_C_f32 fused_kernel_0x88805A4E_C_f32": "other",
    "void at::native::vectorized_elementwise_kernel<4, x>(int) vectorized_elementwise_kernel": "other",
    "void (anonymous namespace)::softmax_warp_forward<float, 8>(x) softmax_warp_forward": "softmax",
    "void at::native::(anonymous namespace)::cunn_SoftMaxForward<4>(x) cunn_SoftMaxForward": "softmax",
    "void flash_fwd_kernel<Flash_fwd_kernel_traits<64>>(x) flash_fwd_kernel": "attention",
    "fmha_cutlassF_f16_aligned_64x64_rf_sm80 fmha_cutlassF_f16_aligned_64x64_rf_sm80": "attention",
    "void vllm::paged_attention_v2_kernel<x>(y) paged_attention_v2_kernel": "attention",
    "void vllm::rms_norm_kernel<x>(y) rms_norm_kernel": "norm",
    "_rmsnorm_fwd _rmsnorm_fwd": "norm",
    "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<x>(y) vectorized_layer_norm_kernel": "norm",
    "void vllm::rotary_embedding_kernel<x>(y) rotary_embedding_kernel": "rope",
    "void vllm::act_and_mul_kernel<x, silu_kernel>(y) act_and_mul_kernel<silu_kernel>": "mlp",
    "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x) ncclDevKernel_AllReduce_Sum_bf16_RING_LL": "collective",
    "Memcpy DtoD (Device -> Device) Memcpy DtoD (Device -> Device)": "copy",
    "void vllm::reshape_and_cache_flash_kernel<x>(y) reshape_and_cache_flash_kernel": "copy",
    "LlamaDecoderLayer_3/LlamaAttention_3/Linear_7/sm80_xmma_gemm sm80_xmma_gemm": "projection",
    "sm90_xmma_gemm_bf16 sm90_xmma_gemm_bf16": "other",
    "ampere_fp16_s16816gemm_fp16_64x64_sliced1x2_ldg8 x": "other",
    "void splitKreduce_kernel<32, 16>(x) splitKreduce_kernel": "other",
    "layers/3/self_attn/transpose/transpose_fwd/1 transpose_fwd_bf16": "copy",
    "flash_attn_with_kvcache flash_attn_with_kvcache": "attention",
    "void at::native::distribution_normal_kernel(x) distribution_normal_kernel": "other",
    "layers/3/mlp/experts/softmax k": "mlp",
    "cunn_SoftMaxForward<LogSoftMaxForwardEpilogue> k": "embedding",
}
LAYERS = {
    "layer7.chunk0.attn.softmax vector": 7,
    "model/layers.31/self_attn/q_proj gemm": 31,
    "model/layers/4/mlp/gemm gemm": 4,
    "model_layers_5_mlp gemm": 5,
    "nn.Module: LlamaDecoderLayer_12/LlamaMLP_12/k k": 12,
    "transformer/h.3.attn/k k": 3,
    "transformer/h/10/attn k": 10,
    "vit/blocks.2.mlp k": 2,
    "vectorized_layer_norm_kernel k": -1,
    "player3/k k": -1,
    "sm80_h16_kernel k": -1,
    "layers.99999999999/k k": -1,
}


@pytest.mark.parametrize(("text", "phase"), PHASES.items())
def test_phases_by_name(text: str, phase: str) -> None:
    assert phases_of(pl.Series([text]), name_rules()).to_list() == [phase]


@pytest.mark.parametrize(("text", "layer"), LAYERS.items())
def test_layers_by_name(text: str, layer: int) -> None:
    assert layers_of(pl.Series([text]), name_rules()).to_list() == [layer]


def test_all_texts_at_once_give_the_same() -> None:
    texts = pl.Series([*PHASES, *PHASES])
    assert phases_of(texts, name_rules()).to_list() == [*PHASES.values(), *PHASES.values()]


def test_both_engines_of_regexes_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_FEW", 0)
    assert phases_of(pl.Series([*PHASES]), name_rules()).to_list() == list(PHASES.values())


def test_only_the_unknown_is_filled() -> None:
    rows = [("TPC", 0, "softmax_fwd", i, 1) for i in range(4)]
    events = table(rows, path="layers/3/attn", layer=[-1, 8, -1, 8], phase=["", "", "mine", "mine"])
    named = with_names(events, name_rules())
    assert named.schema == EVENTS
    assert named["layer"].to_list() == [3, 8, 3, 8]
    assert named["phase"].to_list() == ["softmax", "softmax", "mine", "mine"]
    assert named.drop("layer", "phase").equals(events.drop("layer", "phase"))
    known = named.filter(layer=8, phase="mine")
    assert with_names(known, name_rules()) is known


def test_what_no_rule_knows_stays_unknown() -> None:
    named = with_names(table([("TPC", 0, "zzz", 0, 1)]), name_rules())
    assert named.select("layer", "phase").row(0) == (-1, "")
    assert with_names(empty(), name_rules()).equals(empty())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers: 3", "not a file of rules"),
        ("layers: []\nphases: [{phase: lunch, pattern: x}]", "the phase 'lunch'"),
        ("layers: ['(']\nphases: []", "a broken regex: \\("),
        ("layers: ['layer0']\nphases: []", "one group"),
    ],
)
def test_broken_rules_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed_rules(text, "mine.yaml")


def test_rules_keep_their_text() -> None:
    text = "layers: ['l(\\d)']\nphases: []"
    assert parsed_rules(text, "mine.yaml") == NameRules((r"(?i)l(\d)",), (), text)


def test_codes_are_dense_and_name_their_rows() -> None:
    frame = pl.DataFrame({"a": ["x", "y", "x", "x"], "b": ["1", "1", "2", "1"]})
    codes, keys = coded(frame, ["a", "b"])
    assert keys[codes].equals(frame)
    assert keys.height == 3
    assert coded(frame.head(0), ["a", "b"])[1].is_empty()
    many = pl.DataFrame({"a": [f"a{i}" for i in range(500)], "b": [f"b{i}" for i in range(500)]})
    assert coded(many, ["a", "b"])[1].equals(many)

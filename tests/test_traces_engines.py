"""Which engine a kernel keeps busy: names as the libraries give them to their kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from overlap.errors import ConfigError
from overlap.traces.engines import engine_rules
from overlap.traces.kernels import LONGEST, short_kernel

KERNELS = {
    "MME": [
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_segment_k_off_kernel",
        "nvjet_tst_64x64_64x16_2x1_2cta_v_bz_bias_TNT",
        "void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_32x32_128x2_tn_align8>(cutlass_80)",
        "void cutlass::device_kernel<gemm::GemmUniversal<Copy_Atom<SM80_CP_ASYNC_CACHEALWAYS<uint128_t>>>>(Params)",
        "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x4_tn",
        "bmm_Bfloat16_MxE2m1MxE4m3_Fp32_t128x16x256u2_s3_et128x16_m128x16x32_cga1x1x1",
        "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT256x32x64_MI16x16x1_SN_LDSB1_AFC1",
        "triton_tem_fused_addmm_3",
        "triton_mm",
        "fused_moe_kernel",
        "_ZN5aiter42fmoe_bf16_blockscaleFp8_g1u1_vs_silu_1tg_32x256E",
        "void marlin::Marlin<__nv_bfloat16, 256, 1, 8>(int4 const*)",
        "sm80_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x32",
    ],
    "FUSED": [
        "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<64, 128, 128, 4>>(Params)",
        "fmhaSm100aKernel_QkvE4m3OBfloat16H64PagedKvCausalP16VarSeqQ128Kv128PersistentContext",
        "void paged_attention_ll4mi_QKV_mfma16_kernel<0, __hip_bfloat16>(int)",
        "attn_fwd",
        "_fwd_kernel_stage1",
        "kernel_unified_attention_2d",
        "triton_tem_fused_flex_attention_0",
        "void flashinfer::BatchPrefillWithPagedKVCacheKernel<...>(Params)",
    ],
    "TPC": [
        "triton_poi_fused_addmm_relu_0",
        "triton_red_fused__to_copy_mm_mean_1",
        "triton_poi_fused__scaled_dot_product_flash_attention_clone_3",
        "triton_per_fused_add_all_reduce_native_layer_norm_2",
        "ampere_sgemm_128x64_tn",
        "volta_sgemm_128x32_nt",
        "sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize32x32x8_stage3_warpsize1x2x1_ffma_aligna4_alignc4_execute_kernel",
        "void gemv2T_kernel_val<int, int, __nv_bfloat16, __nv_bfloat16, float, 128, 16, 4>(int)",
        "void cublasLt::splitKreduce_kernel<32, 16, int, float>(int)",
        "void cublasLt::epilogue::impl::globalKernel<8, 32, float>(int)",
        "Cijk_SB_PostGSU8_MI0",
        "void paged_attention_ll4mi_reduce_kernel<__hip_bfloat16, __hip_bfloat16, 128>(int)",
        "flash_bwd_dot_do_o_kernel",
        "void flashinfer::norm::FusedAddRMSNormKernel<8, __nv_bfloat16>(int)",
        "void flashinfer::activation::act_and_mul_kernel<__nv_bfloat16, silu>(int)",
        "void tensorrt_llm::quantize_with_block_size<1, __nv_bfloat16, 16, flashinfer::QuantizationSFLayout>(int)",
        "create_flashinfer_kv_indices_triton",
        "void causal_conv1d_fwd_kernel<Causal_conv1d_fwd_kernel_traits<128, 4>>(Params)",
        "void at::native::conv_depthwise2d_forward_kernel<3, float, int>(int)",
        "void (anonymous namespace)::softmax_warp_forward<c10::BFloat16, c10::BFloat16, float, 10, false>(int)",
        "_ZN5aiter24add_rmsnorm_quant_kernelIDF16bDF16bLi256ELi16ELb1ELb0ELb1ELi1EEEvPT0",
        "void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16>(int)",
        "void rotary_embedding_kernel<c10::BFloat16, true>(long const*)",
        "void cudnn::bn_fw_tr_1C11_kernel_NCHW<float, float, int, 512>(int)",
    ],
    "NIC": [
        "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevComm*, unsigned long, ncclWork*)",
        "mscclKernel_Sum_half_Simple_true",
        "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 8>(int)",
        "void (anonymous namespace)::multimem_all_reduce_kernel<c10::BFloat16, 16>(int)",
    ],
    "DMA": ["Memcpy HtoD (Pinned -> Device)", "Memset (Device)"],
    "OTHER": ["my_secret_kernel_17"],
}


@pytest.mark.parametrize(("engine", "kernel"), [(engine, one) for engine, names in KERNELS.items() for one in names])
def test_kernels_by_name(engine: str, kernel: str) -> None:
    assert engine_rules().engine(kernel) == engine


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("rules: 3", "not a file of rules"),
        ("[", "not a file of rules"),
        ("rules: [{engine: MME}]", "not a file of rules"),
        ("rules: [{engine: mme, pattern: x}]", "'mme'"),
        ("rules: [{engine: MME, pattern: '*'}]", "broken regex"),
        (b"\xff\xfe", "cannot read"),
    ],
)
def test_rule_files_that_are_none(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match=message):
        engine_rules(path)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        (KERNELS["MME"][2], "cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_32x32_128x2_tn_align8"),
        (KERNELS["FUSED"][0], "flash_fwd_kernel<Flash_fwd_kernel_traits>"),
        (KERNELS["TPC"][19], "softmax_warp_forward"),
        ("Memset (Device)", "Memset (Device)"),
        ("x" * 500, "x" * LONGEST),
        (
            "void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<at::native::BinaryFunctor<"
            "float, float, float, at::native::binary_internal::MulFunctor<float>>>(at::TensorIteratorBase&)>(int)",
            "elementwise_kernel<MulFunctor>",
        ),
    ],
)
def test_names_get_short(name: str, short: str) -> None:
    assert short_kernel(name) == short

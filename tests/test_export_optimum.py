from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.errors import TunedError
from overlap.serve.export.optimum import OptimumExport, Record, make_records
from overlap.serve.export.optimum_choose import family_of
from overlap.serve.export.optimum_files import read_records, write_records
from overlap.serve.export.optimum_flags import arguments_of, fields, flags, words_of
from overlap.serve.export.optimum_rules import check_arguments
from overlap.serve.tuned import Tuned
from overlap.split import Split
from overlap.workload import Bucket
from tests.export_tables import FUSED, LLAMA, QWEN2, TILED, config, configs, entry, other, table64

SOURCE = ("tuned.yaml", "0" * 64, "2026-01-31")
PROMPT = Bucket("prefill", 4, 1024, 0)
FAST = "--flash_attention_fast_softmax"
STACK = replace(FUSED, layers_per_graph=1)
PARTS = Split(chunks=2, chunk_axis="batch", turn="block", fused_sdpa=True, masked_blocks="skip")


def export(tuned: Tuned, mode: str = "") -> OptimumExport:
    return make_records(tuned, SOURCE, mode)


def record(*arguments: object, mode: str = "", **changes: object) -> Record:
    return export(config([entry(*arguments)], **changes), mode).records[0]


@settings(max_examples=300)
@given(configs(), st.sampled_from(["", "compile", "lazy"]))
def test_no_config_gives_arguments_that_break_a_rule(tuned: Tuned, mode: str) -> None:
    made = export(tuned, mode)
    for one in made.records:
        words = words_of(one.arguments)
        assert arguments_of(shlex.split(shlex.join(words))) == one.arguments
        assert check_arguments(words, made.tensor_parallel, made.mode == "lazy", made.family) == []
        assert one.arguments.keys() <= flags().keys()
        assert one.generation.keys() <= fields()
        assert "--attn_implementation" not in one.arguments
    told = sum(len(one.split(": ", 1)[1].split(", ")) for one in made.left_out)
    followed = {one.decode for one in made.records} - {None}
    assert told + len(made.records) + len(followed) == len(tuned.entries)


def test_the_fused_attention_is_options() -> None:
    found = record(PROMPT, STACK, 100.0, 100.0)
    assert words_of(found.arguments) == [
        *("--model_name_or_path", "MODEL", "--bf16", "--use_kv_cache", "--batch_size", "4"),
        *("--max_input_tokens", "1024", "--reuse_cache", "--use_flash_attention", "--flash_attention_recompute"),
        *("--flash_attention_causal_mask", "--torch_compile", "--regional_compile"),
    ]
    assert found.option.loss == pytest.approx(0.0)
    assert found.generation["flash_attention_fast_softmax"] is True
    assert found.environment == {"PT_HPU_LAZY_MODE": "0"}
    lazy = record(PROMPT, STACK, 100.0, 100.0, mode="lazy")
    assert "--use_hpu_graphs" in lazy.arguments
    assert "--torch_compile" not in lazy.arguments


def test_fast_is_said_by_leaving_it_out() -> None:
    card = {"kind": "hpu", "evidence": "measured", "name": "HL-225"}
    exact = export(config([entry(PROMPT, STACK, evidence="measured")], **card)).records[0]
    assert exact.arguments[FAST] == "false"
    assert exact.generation["flash_attention_fast_softmax"] is False
    software = {"hpu.softmax_mode": "fast", "hpu.recompute": "False"}
    fast = export(config([entry(PROMPT, STACK, evidence="measured")], software=software, **card)).records[0]
    assert FAST not in fast.arguments
    assert "--flash_attention_recompute" not in fast.arguments
    assert fast.generation["flash_attention_fast_softmax"] is True
    # Not for a model that serving stacks keep in fp32.
    assert record(PROMPT, STACK, model=QWEN2).arguments[FAST] == "false"


def test_parts_of_a_batch() -> None:
    decode = entry(Bucket("decode", 4, 1, 2048), Split(chunks=2, chunk_axis="batch", turn="block"), 100.0, 150.0, 180.0)
    tuned = config([entry(PROMPT, PARTS, 100.0, 150.0), decode], tensor_parallel=2)
    found = export(tuned).records[0]
    assert found.arguments["--attn_batch_split"] == found.arguments["--decode_attn_batch_split"] == "2"
    assert found.generation["attn_batch_split"] == 2
    assert "--reuse_cache" not in found.arguments
    assert found.arguments["--parallel_strategy"] == "tp"
    assert "--regional_compile" not in found.arguments
    assert found.reasons == []
    assert found.decode == decode.bucket
    single = record(PROMPT, PARTS, 100.0, 150.0)
    assert "--attn_batch_split" not in single.arguments
    assert "one card" in single.reasons[0]
    other_family = record(PROMPT, PARTS, 100.0, 150.0, model=QWEN2, tensor_parallel=2)
    assert "only Llama" in other_family.reasons[0]
    query = record(PROMPT, Split(chunks=2), tensor_parallel=2)
    assert "only parts of the batch" in query.reasons[0]


def test_what_is_not_an_option_is_told() -> None:
    found = record(PROMPT, TILED, 100.0, 130.0, 180.0)
    assert found.option.loss == pytest.approx(0.3)
    assert "query_tile=256" in found.reasons[0]
    prefix, alone = Bucket("prefill", 1, 128, 128), Bucket("decode", 2, 1, 128)
    made = export(config([entry(PROMPT), entry(prefix), entry(alone, Split(), 180.0)]))
    assert [str(one) in " ".join(made.left_out) for one in (prefix, alone, PROMPT)] == [True, True, False]


def test_a_softmax_in_bf16_is_an_option_of_some() -> None:
    kept = Split(softmax="fast", layers_per_graph=1)
    assert "--attn_softmax_bf16" in record(PROMPT, kept, 100.0, 150.0).arguments
    assert "--attn_softmax_bf16" not in record(PROMPT, kept, 100.0, 150.0, model=QWEN2).arguments
    unknown = export(config([entry(PROMPT, kept, 100.0, 150.0)], replace(LLAMA, name="mine")))
    assert "--attn_softmax_bf16" not in unknown.records[0].arguments
    assert "--use_flash_attention" not in unknown.records[0].arguments
    assert "family of mine is not known" in unknown.warnings[0]


def test_families() -> None:
    named = {
        "llama": ("llama-3", "Meta-Llama-3.1-8B", "TinyLlama-1.1B", "DeepSeek-R1-Distill-Llama-8B", "CodeLlama-7b"),
        "mistral": ("Mistral-7B", "my-mistral"),
        "qwen3": ("qwen3-8b",),
        "qwen2": ("qwen2.5",),
        "": ("x", "Mixtral-8x7B", "llama4-scout", "Llama-4-Scout"),
    }
    for family, names in named.items():
        assert [family_of(replace(LLAMA, name=name)) for name in names] == [family] * len(names)
    assert family_of(replace(LLAMA, name="my-llama", qk_norm=True)) == "qwen3"
    assert family_of(replace(LLAMA, name="DeepSeek-R1-Distill-Qwen-7B", qkv_bias=True)) == "qwen2"


def test_a_decode_runs_with_the_graphs_of_its_prompt() -> None:
    """One process has one way of compiling; the decode is faster with the other one."""
    whole, each = replace(FUSED, layers_per_graph=0), replace(FUSED, layers_per_graph=1)
    prompt = entry(PROMPT, whole, 100.0, 150.0, alternatives=[other(each, 150.0)])
    decode = entry(
        Bucket("decode", 4, 1, 2048),
        Split(layers_per_graph=1),
        100.0,
        baseline_us=130.0,
    )
    made = export(config([prompt, decode])).records[0]
    assert "--regional_compile" not in made.arguments
    assert made.decode_option is not None
    assert made.decode_option.time_us == 130.0


def test_files_come_back_equal(tmp_path: Path) -> None:
    made = export(table64())
    write_records(made, tmp_path / "out")
    assert read_records(tmp_path / "out") == made
    folder = tmp_path / "out" / made.records[0].name
    assert json.loads((folder / "generation_config.json").read_text())["use_cache"] is True
    (folder / "arguments.txt").unlink()
    with pytest.raises(TunedError, match="cannot read"):
        read_records(tmp_path / "out")


GOOD = "--use_kv_cache --batch_size 4 --max_input_tokens 128"


@pytest.mark.parametrize(
    ("words", "cards", "lazy", "family", "severity", "name", "reason"),
    [
        ("--use_flash_atention", 1, True, "llama", "error", "--use_flash_atention", "did you mean"),
        ("--attn_implementation gaudi_tuned", 1, True, "llama", "error", "--attn_implementation", "cannot pass"),
        ("--batch_size x", 1, True, "", "error", "--batch_size", "whole number"),
        ("--batch_size 0", 1, True, "", "error", "--batch_size", "too small"),
        ("--bf16 yes", 1, True, "", "error", "--bf16", "switch"),
        ("loose --bf16", 1, True, "", "error", "loose", "does not take"),
        (f"--use_flash_attention {FAST} true", 1, True, "llama", "error", FAST, "leave it out"),
        (f"--use_flash_attention {FAST}", 1, True, "llama", "error", FAST, "leave it out"),
        (f"--use_flash_attention {FAST} maybe", 1, True, "llama", "error", FAST, "neither"),
        (f"{FAST} false", 1, True, "llama", "warning", FAST, "no effect"),
        ("--flash_attention_recompute", 1, True, "llama", "warning", "--flash_attention_recompute", "no effect"),
        ("--use_flash_attention", 1, True, "opt", "warning", "--use_flash_attention", "opt has nothing"),
        ("--use_kv_cache --reuse_cache", 1, True, "opt", "error", "--reuse_cache", "opt has nothing"),
        ("--reuse_cache", 1, True, "llama", "error", "--reuse_cache", "needs --use_kv_cache"),
        (f"{GOOD} --attn_batch_split 2", 1, True, "llama", "warning", "--attn_batch_split", "one card"),
        (f"{GOOD} --attn_batch_split 2", 2, True, "qwen2", "error", "--attn_batch_split", "qwen2 has nothing"),
        (f"{GOOD} --attn_batch_split 8", 2, True, "llama", "error", "--attn_batch_split", "4 sequences"),
        (
            f"{GOOD} --reuse_cache --attn_batch_split 2",
            2,
            True,
            "llama",
            "error",
            "--attn_batch_split",
            "--reuse_cache",
        ),
        ("--batch_size 4 --attn_batch_split 2", 2, True, "llama", "error", "--attn_batch_split", "known length"),
        ("--torch_compile", 1, True, "", "error", "--torch_compile", "PT_HPU_LAZY_MODE"),
        ("--torch_compile --use_hpu_graphs", 1, False, "", "warning", "--use_hpu_graphs", "no effect"),
        ("--regional_compile", 1, False, "", "warning", "--regional_compile", "no effect"),
        ("--limit_hpu_graphs", 1, True, "", "error", "--limit_hpu_graphs", "needs --use_hpu_graphs"),
        ("--use_kv_cache --reuse_cache --bucket_size 128", 1, True, "llama", "error", "--bucket_size", "0 or less"),
        ("--bucket_internal --use_kv_cache", 1, True, "llama", "error", "--bucket_internal", "needs --bucket_size"),
        ("--reduce_recompile", 1, True, "llama", "error", "--reduce_recompile", "above 0"),
        ("--parallel_strategy all", 1, True, "", "error", "--parallel_strategy", "tp, ep, none"),
    ],
)
def test_the_rules_find_it(
    words: str, cards: int, lazy: bool, family: str, severity: str, name: str, reason: str
) -> None:
    found = check_arguments(words.split(), cards, lazy, family)
    assert [(one.severity, one.name) for one in found] == [(severity, name)], found
    assert reason in found[0].reason


@pytest.mark.parametrize(
    "words",
    [
        GOOD,
        f"{GOOD} --attn_batch_split=2 --decode_attn_batch_split 3",
        f"--use_flash_attention {FAST} false",
        "--use_kv_cache --reuse_cache --bucket_size 128 --bucket_internal --reduce_recompile",
        "--bucket_size -1",
    ],
)
def test_the_rules_leave_good_lists_alone(words: str) -> None:
    assert check_arguments(words.split(), 2, True, "llama") == []


def test_alternatives_count() -> None:
    found = record(PROMPT, TILED, 100.0, 150.0, 180.0)
    better = export(config([entry(PROMPT, TILED, 100.0, 150.0, alternatives=[other(FUSED, 110.0)])])).records[0]
    assert "--regional_compile" in found.arguments
    assert "--regional_compile" not in better.arguments
    assert better.option.loss == pytest.approx(0.1)

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.bucket_file import read_buckets
from overlap.buckets import BucketsConfig
from overlap.errors import ConfigError, RunDirError, TunedError
from overlap.serve.export.environment import padding
from overlap.serve.export.limits import line_of, parse_buckets, render_buckets, served, shape_of
from overlap.serve.export.make import Wishes, make_bundle
from overlap.serve.export.plan import Plan
from overlap.serve.export.vllm import Bundle, parse_export, write_export
from overlap.serve.export.words import environment_header
from overlap.serve.tuned import Tuned
from overlap.serve.tuned_file import convert, load
from overlap.serve.tuned_rules import faults
from overlap.serve.vllm.bucket_lines import Limits as LineLimits
from overlap.serve.vllm.bucket_lines import check_lines
from overlap.serve.vllm.env_file import Assignment, parse_env, render
from overlap.serve.vllm.plans import plan_of
from overlap.serve.vllm.rules import check
from overlap.serve.vllm.settings import allowed, dead_names
from overlap.split import Split
from overlap.workload import Bucket
from tests.export_tables import FUSED, QWEN2, TILED, buckets, config, configs, entry, one, other, table64

SOURCE = ("tuned.yaml", "0" * 64, "2026-01-31")
PROMPT = Bucket("prefill", 1, 2048, 0)
PREFIX = Bucket("prefill", 1, 2048, 2048)
DECODE = Bucket("decode", 4, 1, 2048)
SLICED = replace(FUSED, query_tile=1024, kv_tile=1024)


def bundle(tuned: Tuned, **wishes: object) -> Bundle:
    return make_bundle(tuned, SOURCE, Wishes(**wishes))


def settings_of(made: Bundle, level: int) -> dict[str, str]:
    found = made.plan.level(level)
    assert found is not None
    return found.settings


def text_of(plan: Plan, level: int) -> str:
    found = plan.level(level)
    assert found is not None
    assignments = [Assignment(name, value) for name, value in found.settings.items()]
    return render(assignments, environment_header(plan, found))


# -- any config ------------------------------------------------------------------------------------------------------


@settings(max_examples=1000)
@given(configs(), st.sampled_from(["", "compile", "lazy"]), st.sampled_from([16, 128, 256, 2048]))
def test_no_config_gives_settings_that_break_a_rule(tuned: Tuned, mode: str, block: int) -> None:
    made = bundle(tuned, mode=mode, block_size=block)
    plan = made.plan
    for level in plan.levels:
        read = parse_env(text_of(plan, level.level))
        findings = [*read.findings, *check(read.assignments, read.flags)]
        assert [one for one in findings if one.severity == "error"] == []
        # Nothing is exported that has no effect; the kernel's blocks, and slices below the default, are the tuned ones.
        assert {one.name for one in findings} <= {"VLLM_HPU_FSDPA_SLICE_SEQ_LEN_THLD"}
        assert {one.name for one in read.assignments} <= allowed()
        assert not {one.name for one in read.assignments} & dead_names()
        # Back without a loss.
        assert {one.name: one.value for one in read.assignments} == level.settings
        assert {name: value for name, value in read.flags.items() if name != "model"} == level.flags
    assert msgspec.json.decode(json.dumps(msgspec.to_builtins(plan), allow_nan=False), type=Plan) == plan
    text = render_buckets([entry.bucket for entry in plan.entries], block, ["head"])
    assert set(parse_buckets(text, "x", block)) == {entry.bucket for entry in tuned.entries}
    limits = LineLimits(block, plan.limits.max_model_len, plan.limits.max_num_batched_tokens, contiguous=False)
    no_line = all(line_of(entry.bucket, block) is None for entry in tuned.entries)
    assert [reason for _, reason in check_lines(text.splitlines(), limits)] == [] or no_line
    if made.tuned is not None:
        assert list(faults(made.tuned)) == []


@settings(max_examples=150)
@given(configs(), st.sampled_from([16, 128]))
def test_the_plug_in_runs_exactly_what_level_1_says(tuned: Tuned, block: int) -> None:
    made = bundle(tuned, block_size=block)
    if made.tuned is None:
        return
    plans = {entry.bucket: plan_of(entry) for entry in made.tuned.entries}
    told = [one for one in made.plan.entries if one.level1 is not None]
    ways = {bucket: [one for one in told if served(one.bucket, block) == bucket] for bucket in plans}
    for bucket, found in plans.items():
        if bucket.phase == "prefill":
            options = [one.level1 for one in ways[bucket] if one.level1 is not None]
            runs = not found.reason
            assert runs in [option.tuned for option in options]
            if runs:
                assert any(option.split == found.split for option in options)


@given(configs())
@settings(max_examples=40)
def test_files_come_back_equal(tmp_path_factory: pytest.TempPathFactory, tuned: Tuned) -> None:
    into = tmp_path_factory.mktemp("x") / "out"
    made = bundle(tuned)
    write_export(made, into)
    assert parse_export(into) == made


# -- a table of 64 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["compile", "lazy"])
def test_all_of_64_buckets_come_back(tmp_path: Path, mode: str) -> None:
    tuned = table64()
    assert len(tuned.entries) == 64
    assert list(faults(tuned)) == []
    made = bundle(tuned, mode=mode)
    findings = write_export(made, tmp_path / "out")
    assert all(one.severity == "warning" for _, one in findings)
    back = parse_export(tmp_path / "out")
    assert back == made
    assert [one.bucket for one in back.plan.entries] == [one.bucket for one in tuned.entries]
    for planned, kept in zip(back.plan.entries, tuned.entries, strict=True):
        assert (planned.kept, planned.order, planned.kept_us) == (kept.split, kept.order, kept.latency_us.median)


def test_a_sweep_reads_the_bucket_file(tmp_path: Path) -> None:
    made = bundle(table64())
    write_export(made, tmp_path / "out")
    limits = made.plan.limits
    reads = BucketsConfig(max_model_len=limits.max_model_len, max_num_batched_tokens=limits.max_num_batched_tokens)
    found = read_buckets(tmp_path / "out" / "level0" / "buckets.txt", reads)
    assert set(found) == {served(entry.bucket, 128) for entry in made.plan.entries}


# -- what is chosen --------------------------------------------------------------------------------------------------


def test_level_1_runs_a_tiled_prefill(tmp_path: Path) -> None:
    made = bundle(config([entry(PROMPT, replace(TILED, layers_per_graph=1)), entry(DECODE, Split(), 180.0, 180.0)]))
    first = made.plan.entries[0]
    assert first.level1 is not None
    assert first.level1.what == "query_tile=256 masked_blocks=skip"
    assert (first.level1.loss, first.level1.tuned) == (0.0, True)
    assert first.level0.what == "stack"
    assert first.level0.loss == pytest.approx(0.2)
    assert settings_of(made, 1)["VLLM_HPU_OVERLAP_CONFIG"] == "overlap.json"
    assert "VLLM_HPU_OVERLAP_CONFIG" not in settings_of(made, 0)
    write_export(made, tmp_path / "out")
    tuned = load(tmp_path / "out" / "level1" / "overlap.json")
    assert [one.pass_through for one in tuned.entries] == [False, True]


def test_larger_graphs_come_along_with_their_cost() -> None:
    tuned = config([entry(PROMPT, TILED), entry(DECODE, Split(), 100.0, 150.0, 100.0)])
    made = bundle(tuned)
    assert settings_of(made, 1)["VLLM_T_COMPILE_REGIONAL_COMPILATION"] == "false"
    level = made.plan.level(1)
    assert level is not None
    assert "the whole model is one graph" in level.costs[0]
    assert "were worth 1.500x" in level.costs[1]
    lazy = bundle(tuned, mode="lazy")
    assert settings_of(lazy, 1)["VLLM_CONFIG_HIDDEN_LAYERS"] == "2"
    assert "VLLM_T_COMPILE_REGIONAL_COMPILATION" not in settings_of(lazy, 1)


def test_slices_are_settings() -> None:
    kept = replace(SLICED, layers_per_graph=1)
    tuned = config([entry(PREFIX, kept, 100.0, 130.0), entry(DECODE, Split(), 180.0, 180.0)])
    made = bundle(tuned)
    found = settings_of(made, 0)
    assert found["VLLM_HPU_FSDPA_SLICE_CHUNK_SIZE"] == "1024"
    assert found["VLLM_HPU_FSDPA_SLICE_SEQ_LEN_THLD"] == "4096"
    assert found["VLLM_BUCKETING_STRATEGY"] == "pad"
    assert found["VLLM_CONTIGUOUS_PA"] == "false"
    assert made.plan.entries[0].level0.what == "slices of 1024"
    assert made.plan.entries[0].level0.loss == 0.0
    assert made.plan.entries[0].route == 0
    assert made.plan.level(1) is None


def test_slices_must_be_timed_wherever_they_would_be() -> None:
    longer = Bucket("prefill", 1, 2048, 4096)
    kept = replace(SLICED, layers_per_graph=1)
    stack = replace(FUSED, layers_per_graph=1)
    tuned = config([entry(PREFIX, kept, 100.0, 130.0), entry(longer, stack, 100.0, 100.0)])
    assert "VLLM_HPU_FSDPA_SLICE_ENABLED" not in settings_of(bundle(tuned), 0)
    # The longer one alone: the threshold keeps the shorter one out.
    tuned = config([entry(PREFIX, stack, 100.0, 100.0), entry(longer, kept, 100.0, 130.0)])
    assert settings_of(bundle(tuned), 0)["VLLM_HPU_FSDPA_SLICE_SEQ_LEN_THLD"] == "6144"


def test_what_no_level_does_gets_the_best_alternative_or_the_stack() -> None:
    carried = Split(chunks=2, lag=1, layers_per_graph=1)
    tiled = replace(TILED, layers_per_graph=1)
    better = entry(PROMPT, carried, 100.0, 120.0, alternatives=[other(tiled, 110.0)])
    worse = entry(PREFIX, carried, 100.0, 120.0, alternatives=[other(tiled, 125.0)])
    made = bundle(config([better, worse]))
    first, second = made.plan.entries
    assert first.route is second.route is None
    assert "another model class" in first.reasons[0]
    assert first.level1 is not None
    assert second.level1 is not None
    assert first.level1.tuned
    assert first.level1.loss == pytest.approx(0.1)
    assert not second.level1.tuned
    assert made.tuned is not None
    assert [one.pass_through for one in made.tuned.entries] == [False, True]
    assert made.tuned.entries[0].latency_us == one(110.0)
    assert list(faults(made.tuned)) == []


def test_settings_change_nothing_for_less_than_a_percent() -> None:
    stack = replace(FUSED, layers_per_graph=1)
    tuned = config([entry(PROMPT, stack, 100.0, 100.0, alternatives=[other(FUSED, 99.5)])])
    assert settings_of(bundle(tuned), 0)["VLLM_T_COMPILE_REGIONAL_COMPILATION"] == "true"
    tuned = config([entry(PROMPT, stack, 100.0, 100.0, alternatives=[other(FUSED, 90.0)])])
    assert settings_of(bundle(tuned), 0)["VLLM_T_COMPILE_REGIONAL_COMPILATION"] == "false"


def test_nothing_is_changed_where_the_stack_was_not_timed() -> None:
    made = bundle(config([entry(PROMPT, Split(), 180.0, None)]))
    assert "VLLM_PROMPT_USE_FUSEDSDPA" not in settings_of(made, 0)
    assert made.plan.entries[0].level0.how == "unknown"
    assert made.plan.levels[0].over_stack is None


def test_plain_attention_where_it_is_faster() -> None:
    plain = Split(layers_per_graph=1)
    found = entry(PROMPT, plain, 100.0, 150.0, pass_through=False)
    made = bundle(config([found]))
    assert settings_of(made, 0)["VLLM_PROMPT_USE_FUSEDSDPA"] == "false"
    assert settings_of(made, 0)["VLLM_FP32_SOFTMAX"] == "true"


def test_the_softmax_of_qwen2_stays_in_fp32() -> None:
    fast = Split(softmax="fast", layers_per_graph=1)
    for model in (QWEN2, replace(QWEN2, name="mine")):
        made = bundle(config([entry(PROMPT, fast, 100.0, 150.0)], model, software={"hpu.softmax_mode": "fast"}))
        assert "VLLM_FP32_SOFTMAX" not in settings_of(made, 0)
    made = bundle(config([entry(PROMPT, fast, 100.0, 150.0)]))
    assert settings_of(made, 0)["VLLM_FP32_SOFTMAX"] == "false"


def test_an_order_is_not_counted_on() -> None:
    tiled = replace(TILED, layers_per_graph=1)
    from overlap.serve.tuned import Attribution

    told = Attribution(work=1.0, tiling=1.0, order=1.1, overlap=None)
    made = bundle(config([entry(PROMPT, tiled, order="searched", attribution=told)]))
    level1 = made.plan.entries[0].level1
    assert level1 is not None
    assert level1.time_us == pytest.approx(110.0)
    assert "1.100x" in level1.note


# -- limits, lines, padding ------------------------------------------------------------------------------------------


@given(buckets(), st.sampled_from([1, 16, 128, 256]))
def test_a_line_holds_its_bucket(bucket: Bucket, block: int) -> None:
    line = line_of(bucket, block)
    if line is None:
        assert (bucket.phase, bucket.query) == ("prefill", 1)
        return
    shape = shape_of(line, block)
    assert (shape.phase, shape.batch, shape.query) == (bucket.phase, bucket.batch, bucket.query)
    assert bucket.context <= shape.context < bucket.context + block
    if bucket.phase == "decode":
        assert line[2] >= bucket.batch
    # What came out of a file goes back to the same line.
    assert line_of(shape, block) == line


def test_limits_hold_every_bucket_and_too_small_ones_are_refused() -> None:
    tuned = config([entry(PREFIX, FUSED), entry(DECODE, Split(), 180.0)])
    limits = bundle(tuned).plan.limits
    assert (limits.max_model_len, limits.max_num_batched_tokens, limits.max_num_seqs) == (4096, 2048, 4)
    assert bundle(tuned, max_model_len=8192).plan.levels[0].flags["max-model-len"] == "8192"
    for name, least in (("max_model_len", 4096), ("max_num_batched_tokens", 2048), ("max_num_seqs", 4)):
        with pytest.raises(ConfigError, match=f"{name}={least} holds all"):
            bundle(tuned, **{name: least - 1})


def test_padding_is_bounded_by_the_buckets() -> None:
    grid = [Bucket("prefill", 1, query, context) for query in (512, 1024, 4096) for context in (0, 512, 1024)]
    assert padding(grid, 128) == (3072, 4)
    assert padding([Bucket("prefill", 1, 1, 1024), DECODE], 128) == (0, 0)
    # Without one of the points, a request may go further up.
    assert padding(grid[1:], 128) == (4096, 8)


# -- files -----------------------------------------------------------------------------------------------------------


def test_the_script_starts_the_server(tmp_path: Path) -> None:
    into = tmp_path / "a b"
    made = bundle(config([entry(PROMPT, replace(TILED, layers_per_graph=1))]))
    write_export(made, into)
    fake = tmp_path / "bin" / "vllm"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$@"\nenv | grep VLLM_ | sort\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    script = ["sh", str(into / "level1" / "serve.sh"), "--port", "1"]
    refused = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "set MODEL" in refused.stderr
    done = subprocess.run(script, env=environment | {"MODEL": "a model"}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("serve a model --block-size 128")
    assert "--port 1" in done.stdout
    assert f"VLLM_HPU_OVERLAP_CONFIG={into}/level1/overlap.json" in done.stdout
    assert f"VLLM_BUCKETING_FROM_FILE={into}/level1/buckets.txt" in done.stdout


@pytest.mark.parametrize("model", ["meta-llama/Llama-3.2-1B", "a b", "$(touch x)", "it's"])
def test_a_model_is_one_word(tmp_path: Path, model: str) -> None:
    made = bundle(config([entry(PROMPT)]), model=model)
    write_export(made, tmp_path / "out")
    script = (tmp_path / "out" / "level0" / "serve.sh").read_text()
    assert shlex.split(script.splitlines()[-1])[3] == model
    assert parse_export(tmp_path / "out") == made


def test_the_head_says_what_the_numbers_are(tmp_path: Path) -> None:
    for changes, words in (
        ({}, "SIMULATED"),
        ({"kind": "hpu", "evidence": "measured", "name": "HL-325"}, "Measured on HL-325"),
        ({"kind": "host", "evidence": "measured"}, "NOT FOR A CARD"),
    ):
        write_export(
            bundle(config([entry(PROMPT, evidence=changes.get("evidence", "simulated"))], **changes)), tmp_path / "o"
        )
        for file in ("level0/overlap.env", "level0/buckets.txt", "level0/serve.sh", "README.txt"):
            assert words in (tmp_path / "o" / file).read_text(), file


def test_an_older_export_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    made = bundle(config([entry(PROMPT, replace(TILED, layers_per_graph=1))]))
    write_export(made, tmp_path / "out")
    write_export(bundle(config([entry(PROMPT, Split(), 180.0)])), tmp_path / "out")
    assert not (tmp_path / "out" / "level1").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    for place in ("mine", "file", "file/below"):
        with pytest.raises(RunDirError, match="into="):
            write_export(made, tmp_path / place)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "mine", "out"]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("export.json", lambda text: text[: len(text) // 2], "damaged"),
        ("export.json", lambda text: text.replace("overlap.export/1", "overlap.export/9"), "schema"),
        ("level0/buckets.txt", lambda text: text.replace("(1, 2048, 0)", "(1, 4096, 0)"), "not of one export"),
        ("level0/buckets.txt", lambda text: text + "[1, 2]\n", "not one of an export"),
        ("level0/overlap.env", lambda text: text + "x y\n", "line"),
    ],
)
def test_a_damaged_export_is_refused(tmp_path: Path, name: str, change: object, words: str) -> None:
    write_export(bundle(config([entry(PROMPT)])), tmp_path / "out")
    file = tmp_path / "out" / name
    file.write_text(change(file.read_text()))  # type: ignore[operator]
    with pytest.raises(TunedError, match=re.escape(words)):
        parse_export(tmp_path / "out")


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    tuned = config([entry(PROMPT)])
    with pytest.raises(TunedError, match="nothing can be exported"):
        bundle(config([entry(PROMPT)], kind="tpu"))
    with pytest.raises(TunedError, match="no entries"):
        bundle(config([]))
    with pytest.raises(ConfigError, match="did you mean lazy"):
        bundle(tuned, mode="lasy")
    with pytest.raises(ConfigError, match="control character"):
        bundle(tuned, model="a\nVLLM_X=1")
    values = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
    (tmp_path / "config.json").write_text(json.dumps({**values, "num_hidden_layers": 2, "hidden_act": "silu"}))
    with pytest.raises(TunedError, match="another model"):
        bundle(tuned, model=str(tmp_path))


def test_an_exported_config_is_one() -> None:
    made = bundle(config([entry(PROMPT, replace(TILED, layers_per_graph=1))]))
    assert made.tuned is not None
    assert convert(msgspec.to_builtins(made.tuned), "x") == made.tuned

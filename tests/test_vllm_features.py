"""Rules that look at several settings of the plug-in and of prefill at once; the table of single rules is beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from overlap.serve.vllm.env_file import parse_env
from overlap.serve.vllm.rules import check
from tests.conftest import Answer

OWN = "VLLM_HPU_OVERLAP_CONFIG"
LIN, PAD = "VLLM_BUCKETING_STRATEGY=lin\n", "VLLM_BUCKETING_STRATEGY=pad\n"
HUGE = "9" * 20


def found(text: str, folder: Path | None = None) -> list[tuple[str, str, str]]:
    read = parse_env(text)
    assert read.findings == []
    return [(one.severity, one.name, one.reason) for one in check(read.assignments, read.flags, folder)]


@pytest.mark.parametrize(
    ("text", "severity", "name", "reason", "right"),
    [
        (f"VLLM_PLUGINS=hpu\n{OWN}=/x", "warning", OWN, "add overlap", f"VLLM_PLUGINS=hpu,overlap\n{OWN}=/x"),
        (f"VLLM_PLUGINS=\n{OWN}=/x", "warning", OWN, "add overlap", f"{OWN}=/x"),
        (
            f"VLLM_PROMPT_USE_FUSEDSDPA=0\n{OWN}=/x",
            "warning",
            OWN,
            "no effect",
            f"VLLM_PROMPT_USE_FUSEDSDPA=1\n{OWN}=/x",
        ),
        (
            f"VLLM_PROMPT_ATTN_IMPL=naive_impl\n{OWN}=/x",
            "warning",
            OWN,
            "=naive_impl",
            f"VLLM_PROMPT_ATTN_IMPL=fsdpa_impl\n{OWN}=/x",
        ),
        (
            f"{PAD}VLLM_PROMPT_USE_FUSEDSDPA=0\nVLLM_HPU_FSDPA_SLICE_ENABLED=true",
            "warning",
            "VLLM_HPU_FSDPA_SLICE_ENABLED",
            "is what is sliced",
            f"{PAD}VLLM_PROMPT_USE_FUSEDSDPA=1\nVLLM_HPU_FSDPA_SLICE_ENABLED=true",
        ),
        (
            f"{PAD}VLLM_HPU_FSDPA_SLICE_ENABLED=1\nVLLM_HPU_FSDPA_SLICE_SEQ_LEN_THLD=8192\nVLLM_HPU_FSDPA_SLICE_CHUNK_SIZE={HUGE}",
            "error",
            "VLLM_HPU_FSDPA_SLICE_CHUNK_SIZE",
            "longer than the threshold",
            f"{PAD}VLLM_HPU_FSDPA_SLICE_ENABLED=1\nVLLM_HPU_FSDPA_SLICE_SEQ_LEN_THLD=8192\nVLLM_HPU_FSDPA_SLICE_CHUNK_SIZE=4096",
        ),
    ],
)
def test_a_rule_fires_where_it_must_and_not_beside_it(
    text: str, severity: str, name: str, reason: str, right: str
) -> None:
    assert [(s, n) for s, n, why in found(text) if n == name and reason in why] == [(severity, name)]
    assert not [why for _, n, why in found(right) if n == name and reason in why]


@pytest.mark.parametrize("low", ["VLLM_PROMPT_SEQ_BUCKET_MIN", "VLLM_PROMPT_QUERY_BUCKET_MIN"])
@pytest.mark.parametrize("high", ["VLLM_PROMPT_SEQ_BUCKET_MAX", "VLLM_PROMPT_QUERY_BUCKET_MAX"])
def test_a_range_may_be_told_by_old_names_and_new_ones(low: str, high: str) -> None:
    """The old name is read where the new one is not set."""
    errors = [one for one in found(f"{LIN}{low}=512\n{high}=256") if one[0] == "error"]
    assert any("512" in why and "256" in why for _, _, why in errors)
    assert not [one for one in found(f"{LIN}{low}=256\n{high}=512") if one[0] == "error"]
    overruled = (
        f"{LIN}VLLM_PROMPT_SEQ_BUCKET_MIN=512\nVLLM_PROMPT_QUERY_BUCKET_MIN=128\nVLLM_PROMPT_QUERY_BUCKET_MAX=256"
    )
    assert not [one for one in found(overruled) if one[0] == "error"]


def test_a_broken_graph_is_an_error_only_where_there_is_one() -> None:
    text = "# vllm serve m -tp 8\nVLLM_T_COMPILE_FULLGRAPH=true\nVLLM_ROW_PARALLEL_CHUNKS=4\n"
    assert any("breaks the graph" in why for *_, why in found(text))
    assert not any("breaks the graph" in why for *_, why in found(f"{text}PT_HPU_LAZY_MODE=1"))
    assert not any("breaks the graph" in why for *_, why in found(text.replace("-tp 8", "-tp 8 --enforce-eager")))


def test_the_config_of_the_plug_in_is_there(tmp_path: Path) -> None:
    missing = [one for one in found(f"{OWN}=tuned.json", tmp_path) if one[1] == OWN]
    assert [severity for severity, *_ in missing] == ["error"]
    assert "there is no file 'tuned.json'" in missing[0][2]
    (tmp_path / "tuned.json").write_text("{}")
    assert not found(f"{OWN}=tuned.json", tmp_path)


def test_a_comment_behind_a_value_is_none_for_docker() -> None:
    """The rules go on with what a shell makes of it."""
    read = parse_env("VLLM_BUCKETING_STRATEGY=pad # the best\nVLLM_HPU_FSDPA_SLICE_ENABLED=true")
    assert [(one.name, one.value) for one in read.assignments] == [
        ("VLLM_BUCKETING_STRATEGY", "pad"),
        ("VLLM_HPU_FSDPA_SLICE_ENABLED", "true"),
    ]
    assert [(one.severity, one.line) for one in read.findings] == [("warning", 1)]
    assert "a line of its own" in read.findings[0].reason
    assert not [one for one in check(read.assignments, read.flags) if one.severity == "error"]
    assert parse_env("A=b c # d").findings[0].severity == "error"
    assert parse_env("A=b#c").assignments[0].value == "b#c"


def test_names_of_the_kernel_are_called_so(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "x.env").write_text("PT_HPU_SDPA_BR_FACTOR=1024\nVLLM_DEFRAG=1\n")
    answer = cli("export", "--check", "x.env")
    assert answer.code == 0
    assert "x.env:1: note: PT_HPU_SDPA_BR_FACTOR: the kernel of the bridge reads it, not vLLM" in answer.out
    assert "note: VLLM_DEFRAG" not in answer.out

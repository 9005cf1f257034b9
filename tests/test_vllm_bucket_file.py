"""Bucket files of vLLM on Gaudi: every bad line is named, and so are buckets that nothing runs in."""

from __future__ import annotations

from pathlib import Path

import pytest

from overlap.serve.vllm.env_file import Assignment
from overlap.serve.vllm.rules import check, check_file

BUCKETS = "VLLM_BUCKETING_FROM_FILE"


def serve(options: str) -> str:
    return f"# vllm serve m {options}\n"


def of_file(folder: Path, lines: str, header: str = "", more: str = "") -> list[tuple[str, str]]:
    (folder / "buckets.txt").write_text(lines)
    env = folder / "serve.env"
    env.write_text(f"{header}{BUCKETS}=buckets.txt\n{more}")
    return [(one.severity, one.reason) for one in check_file(env)[1] if one.name == BUCKETS]


def test_good_lines_of_a_bucket_file(tmp_path: Path) -> None:
    lines = (
        "# all forms\n\n(1, 128, 0)\n(1, [256, 512], range(0, 8))\n([1, 2], 1, range(2,9,2))  # decode\n(1, 128, 0)\n"
    )
    assert of_file(tmp_path, lines) == []


@pytest.mark.parametrize(
    "line",
    [
        "(1, 128)",
        "(1, 128, 0),",
        "[1, 128, 0]",
        "(1, 128, 0",
        "1 128 0",
        "(1, 128, 0.5)",
        "(1, True, 0)",
        "(1, '128', 0)",
        "(1, [], 0)",
        "(1, range(128, 1), 0)",
        "(1, range(1, 9, 0), 0)",
        "(1, range(1, 10002), 0)",
        "(1, range(10**9), 0)",
        "(1, f(1), 0)",
        "(0, 128, 0)",
        "(1, 0, 0)",
        "(1, 128, -1)",
        "(" * 300,
    ],
)
def test_a_bad_line_of_a_bucket_file_is_named(tmp_path: Path, line: str) -> None:
    reasons = of_file(tmp_path, f"(1, 128, 0)\n{line}\n(1, 256, 0)\n")
    assert [severity for severity, _ in reasons] == ["error"]
    assert "buckets.txt line 2: " in reasons[0][1]


@pytest.mark.parametrize(
    ("header", "more", "over", "at"),
    [
        (serve("--max-model-len 1024"), "", "(1, 1025, 0)", "(1, 1024, 0)"),
        (serve("--max-model-len 1024"), "", "(1, 128, 9)", "(1, 128, 8)"),
        (serve("--max-model-len 1025"), "", "(1, 128, 9)", "(1, 128, 8)"),
        (serve("--max-num-batched-tokens 1024"), "", "(3, [128, 512], 0)", "(2, [128, 512], 0)"),
        ("", "VLLM_CONTIGUOUS_PA=false", "(9, 1, range(8, 20))", "(8, 1, range(8, 20))"),
        ("", "VLLM_CONTIGUOUS_PA=false", "(9, 1, 8)", "(9, 128, 8)"),
    ],
)
def test_buckets_beyond_the_limits_are_a_warning(tmp_path: Path, header: str, more: str, over: str, at: str) -> None:
    assert [severity for severity, _ in of_file(tmp_path, over, header, more)] == ["warning"]
    assert of_file(tmp_path, at, header, more) == []
    assert of_file(tmp_path, over) == [], "nobody knows the limits"


def test_a_bucket_file_that_is_not_there_or_empty(tmp_path: Path) -> None:
    for path in (str(tmp_path), f"{tmp_path}/none", "/a\0b"):
        findings = check([Assignment(BUCKETS, path, 1)])
        assert [one.severity for one in findings] == ["error"], path
    (tmp_path / "b").write_bytes(b"\xff")
    assert "as text" in check([Assignment(BUCKETS, "b", 1)], {}, tmp_path)[0].reason
    assert check([Assignment(BUCKETS, "b", 1)]) == [], "nobody knows where to look"
    assert [severity for severity, _ in of_file(tmp_path, "# none\n")] == ["warning"]

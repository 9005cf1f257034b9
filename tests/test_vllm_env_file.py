"""Environment files: every form of a line, what is wrong is named by line, and writing is the inverse of reading."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.errors import ConfigError
from overlap.serve.vllm.env_file import Assignment, parse_env, read_env, render, serve_flags

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("export A=1", "1"),
        ("export \t A=1", "1"),
        ("  A=1  ", "1"),
        ("A=", ""),
        ("A=''", ""),
        ("A='a b'", "a b"),
        ('A="a b"', "a b"),
        ("A='a\"b'", 'a"b'),
        ("A='a\\b'", "a\\b"),
        (r'A="a\"b\\c\$d\`e\n"', 'a"b\\c$d`e\\n'),
        ("A=a=b", "a=b"),
        ("A=64,128", "64,128"),
        ("A=1\r", "1"),
    ],
)
def test_forms_of_a_line(line: str, value: str) -> None:
    found = parse_env(f"# comment\n\n{line}\n")
    assert found.assignments == [Assignment("A", value, 3)]
    assert found.findings == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("A", "no KEY=VALUE"),
        ("export A", "no KEY=VALUE"),
        ("unset A", "no KEY=VALUE"),
        ("A =1", "no KEY=VALUE"),
        ("1A=1", "no KEY=VALUE"),
        ("=1", "no KEY=VALUE"),
        ("Ä=1", "no KEY=VALUE"),
        ("A= 1", "spaces"),
        ("A=1 2", "spaces"),
        ("A=1\rB=2", "spaces"),
        ("A='1", "not closed"),
        ('A="1', "not closed"),
    ],
)
def test_a_line_that_is_no_assignment_is_an_error(line: str, reason: str) -> None:
    found = parse_env(f"B=1\n{line}\nC=1")
    assert [one.name for one in found.assignments] == ["B", "C"]
    assert [(one.severity, one.line) for one in found.findings] == [("error", 2)]
    assert reason in found.findings[0].reason


@pytest.mark.parametrize("line", ["A=$HOME/x", "A=`x`", 'A={"a":1}', 'A="$HOME"', "A='1'2", "A=a\\b"])
def test_what_a_shell_would_change_is_a_warning(line: str) -> None:
    assert [one.severity for one in parse_env(line).findings] == ["warning"]


def test_windows_files_are_read() -> None:
    found = parse_env("\ufeffA=1\r\n\r\n# vllm serve m --block-size 64\r\nB='2'\r\n")
    assert found.assignments == [Assignment("A", "1", 1), Assignment("B", "2", 4)]
    assert found.findings == []
    assert found.flags == {"model": "m", "block-size": "64"}


def test_a_name_that_comes_twice_is_a_warning_at_the_later_line() -> None:
    found = parse_env("A=1\nB=1\nA=2")
    assert [one.value for one in found.assignments] == ["1", "1", "2"]
    assert [(one.severity, one.line, one.name) for one in found.findings] == [("warning", 3, "A")]
    assert "line 1" in found.findings[0].reason


def test_files_that_cannot_be_read_are_the_users_to_fix(tmp_path: Path) -> None:
    binary = tmp_path / "binary.env"
    binary.write_bytes(b"A=\xff\n")
    for path in (tmp_path, tmp_path / "none.env", binary, Path("a\0b")):
        with pytest.raises(ConfigError) as caught:
            read_env(path)
        assert caught.value.hint
    good = tmp_path / "good.env"
    good.write_bytes(render([Assignment("A", "ä")], ["vllm serve m"]).encode())
    assert read_env(good).assignments == [Assignment("A", "ä", 2)]


@given(st.lists(st.tuples(NAMES, VALUES)), st.lists(st.text()))
def test_reading_is_the_inverse_of_writing(pairs: list[tuple[str, str]], header: list[str]) -> None:
    found = parse_env(render([Assignment(name, value) for name, value in pairs], header))
    assert [(one.name, one.value) for one in found.assignments] == pairs
    assert all("already" in one.reason for one in found.findings), "only names that come twice"


@given(st.text() | st.text(alphabet="A=1 '\"\\#\n\r$export vllmserv-_"))
def test_no_text_is_too_odd(text: str) -> None:
    found = parse_env(text)
    lines = text.count("\n") + 1
    assert all(1 <= one.line <= lines for one in [*found.assignments, *found.findings])


def test_plain_values_have_no_quotes() -> None:
    text = render([Assignment("A", "64,128"), Assignment("B", "a b"), Assignment("C", "a'b$")], ["for x", "", "a\nb"])
    assert text == "# for x\n#\n# a\n# b\nA=64,128\nB='a b'\nC=\"a'b\\$\"\n"


@pytest.mark.parametrize(("name", "value"), [("A B", "1"), ("", "1"), ("1A", "1"), ("A", "1\n"), ("A", "\0")])
def test_what_no_line_can_hold_is_not_written(name: str, value: str) -> None:
    with pytest.raises(ConfigError):
        render([Assignment(name, value)])


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("# vllm serve m --block-size 128", {"model": "m", "block-size": "128"}),
        ("# vllm serve m --block-size=128", {"model": "m", "block-size": "128"}),
        ("#   run it: vllm serve m -tp 2", {"model": "m", "tensor-parallel-size": "2"}),
        ("# vllm serve --max_model_len 8192 m", {"model": "m", "max-model-len": "8192"}),
        ("# vllm serve --enforce-eager m", {"model": "m", "enforce-eager": "true"}),
        ("# vllm serve m --no-enable-prefix-caching", {"model": "m", "enable-prefix-caching": "false"}),
        ("# vllm serve m --enable-prefix-caching --x", {"model": "m", "enable-prefix-caching": "true", "x": "true"}),
        ("# vllm serve m --async_scheduling --seed -1", {"model": "m", "async-scheduling": "true", "seed": "-1"}),
        ("# vllm serve 'a b' --y \"c d\"", {"model": "a b", "y": "c d"}),
        ("# vllm serve m --y it's", {"model": "m", "y": "it's"}),
        ("# vllm serve m \\\n#   --block-size 64 \\\r\n#   --x 1\nA=2", {"model": "m", "block-size": "64", "x": "1"}),
        ("# vllm serve m --x 1\n# vllm serve n --x 2", {"model": "n", "x": "2"}),
        ("# vllm server --x 1", {}),
        ("A='vllm serve m --x 1'", {}),
        ("", {}),
    ],
)
def test_flags_of_the_serve_command(command: str, flags: dict[str, str]) -> None:
    assert serve_flags(command) == flags

"""Environment files: one `KEY=VALUE` per line, for a shell's `source`, docker compose and `docker run --env-file`.

The last of these takes quotes for a part of the value, so they are written only where a value needs them.

Terms
    assignment: a name, its value without quotes, and the line it stands in.
    finding: something wrong with a file, at one of its lines; line 0 is the serve command.
    flags: options of the serve command that a comment tells, see `serve_command`.

Contract: a file is read as a whole. A line that is no assignment is a finding, never an exception, and `render` and
`parse_env` are inverse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from overlap.errors import ConfigError
from overlap.serve.vllm.serve_command import serve_flags as serve_flags

LINE = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SAFE = re.compile(r"[A-Za-z0-9_./:,@%+=-]*")
ESCAPED = re.compile(r'\\([\\"$`])')
QUOTED = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
# What a shell does not leave as it is; `docker --env-file` does.
SHELL = re.compile(r"[$`\\'\"]")


@dataclass(frozen=True)
class Finding:
    """Something wrong at a line; an error stops vLLM or is not what was meant, a warning has no effect or may not."""

    severity: Literal["error", "warning"]
    line: int
    name: str
    reason: str

    @property
    def place(self) -> tuple[int, str, str, str]:
        """Where it stands in a list: by line, errors first."""
        return self.line, self.severity, self.name, self.reason


@dataclass(frozen=True)
class Assignment:
    """`NAME=value` at a line; the line of one that is to be written does not matter."""

    name: str
    value: str
    line: int = 0


@dataclass(frozen=True)
class EnvFile:
    """A file as it was read."""

    assignments: list[Assignment]
    findings: list[Finding] = field(default_factory=list)
    flags: dict[str, str] = field(default_factory=dict)


class _Refused(Exception):  # Not an error of the user yet: lines are collected first.
    """Why a line cannot be used."""


def read_env(path: Path) -> EnvFile:
    """The environment file at `path`.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        text = path.expanduser().read_bytes().decode("utf-8")
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"cannot read the environment file {path}: {reason}", "a text file of KEY=VALUE lines"
        ) from error
    return parse_env(text)


def parse_env(text: str) -> EnvFile:
    """Assignments, bad lines and the flags of the serve command in `text`."""
    found: list[Assignment] = []
    faults: list[Finding] = []
    lines: dict[str, int] = {}
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = raw.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        try:
            name, value, doubt = _assignment(line)
        except _Refused as error:
            faults.append(Finding("error", number, line.partition("=")[0][:80], str(error)))
            continue
        if doubt:
            faults.append(Finding("warning", number, name, doubt))
        if before := lines.get(name):
            faults.append(
                Finding("warning", number, name, f"set in line {before} already: this one counts, remove one")
            )
        lines[name] = number
        found.append(Assignment(name, value, number))
    return EnvFile(found, faults, serve_flags(text))


def _assignment(line: str) -> tuple[str, str, str]:
    """Name, value, and why the value may be read in another way."""
    match = LINE.fullmatch(line)
    if match is None:
        raise _Refused("this is no KEY=VALUE and no comment: correct it or put # before it")
    name, text = match.groups()
    if text[:1] in ("'", '"') and (quoted := QUOTED.fullmatch(text)):
        single, double = quoted.groups()
        return name, single if double is None else ESCAPED.sub(r"\1", double), _doubt(double or "")
    if text[:1] in ("'", '"') and text[0] not in text[1:]:
        raise _Refused(f"the quote {text[0]} is not closed: close it")
    bare, mark, _ = re.split(r"(\s+#)", text, maxsplit=1) if re.search(r"\s#", text) else (text, "", "")
    if mark and not re.search(r"\s", bare):
        return name, bare, "docker keeps a comment behind a value as part of it: give the comment a line of its own"
    if re.search(r"\s", text):
        raise _Refused("spaces in the value or after the =: put the value in single quotes, and no space before it")
    return (
        name,
        text,
        "a shell does not leave this value as it is: put it in single quotes" if SHELL.search(text) else "",
    )


def _doubt(double: str) -> str:
    """Why a text in double quotes may be read in another way."""
    changed = re.search(r"[$`]", re.sub(r"\\.", "", double, flags=re.DOTALL))
    return "a shell puts something else where $ or ` stands: use single quotes" if changed else ""


def render(assignments: Iterable[Assignment], header_lines: Iterable[str] = ()) -> str:
    """The text of a file: `header_lines` as comments, then the assignments.

    Raises:
        ConfigError: a name is none, or a value has a line break, which such a file cannot hold.
    """
    comments = [f"# {part}".rstrip() for line in header_lines for part in line.splitlines() or [""]]
    return "".join(f"{line}\n" for line in [*comments, *map(_rendered, assignments)])


def _rendered(one: Assignment) -> str:
    if not NAME.fullmatch(one.name):
        raise ConfigError(f"{one.name!r} is no name of an environment variable", "letters, digits and _")
    if re.search(r"[\n\r\0]", one.value):
        raise ConfigError(f"the value of {one.name} has a line break", "an environment file holds one line per value")
    if SAFE.fullmatch(one.value):
        return f"{one.name}={one.value}"
    if "'" not in one.value:
        return f"{one.name}='{one.value}'"
    escaped = re.sub(r'([\\"$`])', r"\\\1", one.value)
    return f'{one.name}="{escaped}"'

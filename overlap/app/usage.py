"""Help texts. Options and values are read from `conf/`, names from the dataclasses, so help cannot go stale."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from importlib.resources import files
from itertools import takewhile
from typing import Any

from omegaconf import DictConfig, OmegaConf

from overlap.app.config import ROOTS
from overlap.commands import COMMANDS, Command
from overlap.workload import Bucket

WIDTH = 110
MISSING_VALUE = "???"
FLAGS = (
    ("-m, --multirun", "run once per combination of comma-separated values"),
    ("--cfg job", "print the composed config and stop"),
    ("--info defaults", "print which config files are composed"),
    ("--config-dir DIR", "look for option files in DIR too (DIR/workload/mine.yaml)"),
    ("hydra.run.dir=DIR", "write to DIR; a sweep that was cut short there goes on"),
    ("--hydra-help", "all flags of Hydra"),
)


def program_help() -> str:
    """`overlap --help`."""
    rows = [(command.name, command.summary) for command in COMMANDS.values()]
    return "\n".join(
        (
            "overlap: keep both engines of an accelerator busy by splitting attention, and prove it",
            "",
            "usage: overlap <command> [key=value ...] [flags]",
            "",
            "commands",
            *_rows(rows),
            "",
            "overlap <command> --help shows what can be set; overlap --version the version.",
        )
    )


def command_help(command: Command) -> str:
    """`overlap <command> --help`."""
    head = [f"overlap {command.name}: {command.summary}", ""]
    if command.plain is not None:
        arguments = " ".join(f"{name}=<{name}>" for name in command.plain)
        usage = f"usage: overlap {command.name} {arguments}".rstrip()
        lines = [*head, usage if len(usage) <= WIDTH else f"usage: overlap {command.name} [name=<name> ...]"]
        lines += ["", "arguments", *_rows(list(command.plain.items()))] if command.plain else []
        return "\n".join([*lines, *_examples(command)])
    groups = [(group, _options(command, group)) for group in command.groups]
    sections = (
        ("option groups (group=option)", groups),
        ("values (key=value), with their defaults", list(_values(command.name))),
        ("flags", list(FLAGS)),
    )
    lines = [*head, f"usage: overlap {command.name} [key=value ...] [flags]"]
    for title, rows in sections:
        lines += ["", title, *_rows(rows)] if rows else []
    return "\n".join([*lines, *_examples(command)])


def _examples(command: Command) -> list[str]:
    return ["", "examples", *(f"  {example}" for example in command.examples)] if command.examples else []


def group_options(group: str) -> list[str]:
    """Names of the options of a group, as their files in `conf/` say."""
    folder = files("overlap.conf").joinpath(group)
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def _options(command: Command, group: str) -> str:
    chosen = _chosen(command.name, group)
    return ", ".join(group_options(group)) + (f" (default {chosen})" if chosen else "")


def _chosen(name: str, group: str) -> str:
    """The option of `group` that the root config of command `name` starts from."""
    entries = _yaml(f"{name}.yaml")["defaults"]
    return next((str(one[group]) for one in entries if isinstance(one, Mapping) and group in one), "")


def _yaml(*parts: str) -> dict[str, Any]:
    content = OmegaConf.create(files("overlap.conf").joinpath(*parts).read_text(encoding="utf-8"))
    found = OmegaConf.to_container(content, resolve=False) if isinstance(content, DictConfig) else {}
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _comment(file: str, key: str) -> str:
    """What a config file says of a key: the comment right above it."""
    lines = files("overlap.conf").joinpath(file).read_text(encoding="utf-8").splitlines()
    at = next((number for number, line in enumerate(lines) if line.startswith(f"{key}:")), 0)
    above = list(takewhile(lambda line: line.startswith("# "), reversed(lines[:at])))
    return " ".join(line[2:] for line in reversed(above))


def _values(name: str) -> Iterator[tuple[str, str]]:
    roots = fields(ROOTS[name])
    for root in roots:
        if root.name == "workload":
            yield (
                "workload.bucket",
                _shown(Bucket, _yaml("bucket", f"{_chosen(name, root.name).rpartition('_')[2]}.yaml")),
            )
            yield "workload", "config_json (a Hugging Face config.json), model.<field>, tensor_parallel, window_layers"
        elif root.default_factory is not MISSING:
            option = _chosen(name, root.name)
            yield root.name, _shown(root.default_factory, _yaml(root.name, f"{option}.yaml") if option else {})
        else:
            value = _yaml(f"{name}.yaml").get(root.name, root.default)
            text = "must be given" if value == MISSING_VALUE else _text(value)
            yield root.name, f"{text:<16}{comment}" if (comment := _comment(f"{name}.yaml", root.name)) else text


def _shown(cls: Any, values: Mapping[str, Any]) -> str:
    """Fields of `cls` with what they start from: the value of the YAML file, else the default of the dataclass."""
    return ", ".join(
        one.name
        if one.default_factory is not MISSING
        else f"{one.name}={_text(values.get(one.name, None if one.default is MISSING else one.default))}"
        for one in fields(cls)
    )


def _text(value: object) -> str:
    return (
        "null"
        if value is None
        else "nothing"
        if value == ""
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )


def _rows(rows: list[tuple[str, str]]) -> list[str]:
    indent = 4 + max(len(name) for name, _ in rows)
    lines = []
    for name, text in rows:
        filled = textwrap.wrap(text, WIDTH - indent, break_long_words=False, break_on_hyphens=False) or [""]
        lines.append(f"  {name:<{indent - 4}}  {filled[0]}")
        lines += [f"{'':<{indent}}{line}" for line in filled[1:]]
    return lines

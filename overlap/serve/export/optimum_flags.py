"""Options of optimum-habana's text generation, out of `optimum.yaml`, and argument lists as data.

Terms
    arguments: option by name, in order; a switch has the value "".
    fast: the fused attention's softmax in bfloat16. The script takes it for granted where the option is left out, and
        for refused where the option is given, whatever its value is. So fast is said by not saying it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

FAST = "--flash_attention_fast_softmax"
SWITCH = "switch"


class Flag(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One option."""

    type: Literal["switch", "int", "bool", "text"]
    means: str
    field: str = ""
    least: int | None = None
    choices: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    repository: str
    commit: str
    date: str
    read: str
    flags: dict[str, Flag]


@cache
def _file() -> _File:
    return msgspec.yaml.decode(files("overlap.serve.export").joinpath("optimum.yaml").read_bytes(), type=_File)


def flags() -> Mapping[str, Flag]:
    """All options that may be exported."""
    return _file().flags


def fields() -> frozenset[str]:
    """All fields of the generation config that may be exported."""
    return frozenset(flag.field for flag in flags().values() if flag.field)


def source() -> str:
    """Repository, commit and date that the options were read from."""
    file = _file()
    return f"{file.repository} {file.commit}, {file.date}"


def words_of(arguments: Mapping[str, str]) -> list[str]:
    """Words of a command line."""
    return [word for name, value in arguments.items() for word in ([name, value] if value else [name])]


def arguments_of(words: Iterable[str]) -> dict[str, str]:
    """The inverse; a word without an option keeps its place under its own name, for a rule to find it."""
    found: dict[str, str] = {}
    last = ""
    for word in words:
        if word.startswith("--"):
            last, equals, value = word.partition("=")
            found[last] = value
            last = "" if equals else last
        elif last and not found[last]:
            found[last] = word
        else:
            found[word] = ""
            last = ""
    return found


def generation_of(arguments: Mapping[str, str]) -> dict[str, object]:
    """Fields of the generation config that say the same; a field says fast as it is meant."""
    found: dict[str, object] = {}
    for name, value in arguments.items():
        flag = flags()[name]
        if flag.field and name != FAST:
            found[flag.field] = True if flag.type == SWITCH else int(value) if flag.type == "int" else value
    if "--use_flash_attention" in arguments:
        found[flags()[FAST].field] = FAST not in arguments
    return found

"""Names of the environment that vLLM on Gaudi reads, with their types and defaults, out of `settings.yaml`.

Terms
    room: who reads a name. `plugin` is vLLM on Gaudi, `kernel` native code below it, `template` the serve script of its
        images, `inc` Intel Neural Compressor, `overlap` our own plug-in.
    words: which texts a switch is on for. Readers differ: what is none of their words is off without a word.
    dead: a name that nothing reads, though documents or older releases have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

Type = Literal["bool", "int", "float", "choice", "choices", "ints", "path", "text"]
Words = Literal["feature", "plain", "one", "any"]
Room = Literal["plugin", "kernel", "template", "inc", "overlap"]
TRUE: Mapping[Words, frozenset[str]] = {
    "feature": frozenset(("true", "t", "1", "yes", "y", "on")),
    "plain": frozenset(("true", "1")),
    "one": frozenset(("1",)),
}
FALSE = frozenset(("false", "f", "0", "no", "n", "off"))


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A name as the file has it; `least` and `most` are the ends of the values that make sense."""

    type: Type
    means: str
    default: str = ""
    read: str = ""
    words: Words = "feature"
    choices: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    # What to use instead.
    deprecated: str = ""


class Setting(_Entry, frozen=True, kw_only=True):
    """One name that is read, and by whom."""

    name: str
    room: Room

    def on(self, text: str) -> bool:
        """Whether a reader of this switch takes `text` for true."""
        return self.words == "any" or text.lower() in TRUE[self.words]


class _Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A range of buckets: defaults of its parts by strategy."""

    means: str
    lin: dict[str, str] = {}
    pad: dict[str, str] = {}
    deprecated: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    repository: str
    commit: str
    date: str
    range_parts: dict[str, _Entry]
    ranges: dict[str, _Range]
    plugin: dict[str, _Entry]
    kernel: dict[str, _Entry]
    template: dict[str, _Entry]
    inc: dict[str, _Entry]
    overlap: dict[str, _Entry]
    dead: dict[str, str]


@cache
def _file() -> _File:
    content = files("overlap.serve.vllm").joinpath("settings.yaml").read_bytes()
    return msgspec.yaml.decode(content, type=_File)


@cache
def settings() -> Mapping[str, Setting]:
    """All names that something reads, by name."""
    file = _file()
    rooms: dict[Room, dict[str, _Entry]] = {
        "plugin": {**dict(_of_ranges(file)), **file.plugin},
        "kernel": file.kernel,
        "template": file.template,
        "inc": file.inc,
        "overlap": file.overlap,
    }
    return {
        name: Setting(name=name, room=room, **msgspec.structs.asdict(entry))
        for room, entries in rooms.items()
        for name, entry in entries.items()
    }


def _of_ranges(file: _File) -> Iterator[tuple[str, _Entry]]:
    for name, one in file.ranges.items():
        for part, entry in file.range_parts.items():
            defaults = [f"{how}: {of[part]}" for how, of in (("lin", one.lin), ("pad", one.pad)) if part in of]
            means = f"{one.means}: {entry.means}"
            extra = {"means": means, "default": "; ".join(defaults), "deprecated": one.deprecated}
            yield f"{name}_{part}", msgspec.structs.replace(entry, read="extension/features.py", **extra)


def source() -> str:
    """Repository, commit and date that the names were read from."""
    file = _file()
    return f"{file.repository} {file.commit}, {file.date}"


def known(name: str) -> Setting | None:
    """The setting of that name, if anything reads it."""
    return settings().get(name)


def dead(name: str) -> str | None:
    """Why a name, or an option of the serve command, does nothing; none if it is not known to."""
    return _file().dead.get(name)


@cache
def dead_names() -> frozenset[str]:
    """All names that are known to do nothing."""
    return frozenset(_file().dead)


@cache
def allowed(room: Room | None = None) -> frozenset[str]:
    """Names that may be exported: all, or those of a room."""
    return frozenset(name for name, one in settings().items() if room in (None, one.room))


@cache
def range_names() -> tuple[str, ...]:
    """Ranges of buckets, such as `VLLM_PROMPT_BS_BUCKET`; a name is `<range>_<part>`."""
    return tuple(_file().ranges)

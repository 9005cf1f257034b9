"""What an environment file says as a whole: values by name, the mode, the strategy, limits of the serve command.

Contract: what is not set is what vLLM on Gaudi takes where that is known; where nobody can know it, it is none, and a
rule that needs it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from overlap.serve.vllm.env_file import Assignment, Finding
from overlap.serve.vllm.settings import known

BLOCK_SIZE = 128
EXP, LIN, PAD = "exp", "lin", "pad"


@dataclass(frozen=True)
class Facts:
    """The last assignment of every name, the flags, and the folder that the file lies in."""

    values: Mapping[str, Assignment]
    flags: Mapping[str, str]
    folder: Path | None = None

    def text(self, name: str) -> str | None:
        """The value of a name; none where it is not set."""
        return self.values[name].value if name in self.values else None

    def line(self, name: str) -> int:
        """Where a name is set."""
        return self.values[name].line if name in self.values else 0

    def on(self, name: str) -> bool | None:
        """A switch as its reader takes it; none where it is not set."""
        text, setting = self.text(name), known(name)
        return None if text is None or setting is None else setting.on(text)

    def whole(self, name: str) -> int | None:
        """A whole number; none where it is not set, or is none."""
        return whole(self.text(name))

    def flag(self, name: str) -> int | None:
        """A whole number of the serve command."""
        return whole(self.flags.get(name))

    @property
    def block(self) -> int:
        """Tokens of a block."""
        size = self.flag("block-size") or 0
        return size if size > 0 else BLOCK_SIZE

    @property
    def lazy(self) -> bool:
        """Whether graphs are collected lazily; compile mode is the other."""
        return self.text("PT_HPU_LAZY_MODE") not in (None, "0")

    @property
    def eager(self) -> bool:
        """Whether nothing is compiled."""
        return self.flags.get("enforce-eager") == "true"

    @property
    def strategy(self) -> str:
        """How buckets are spaced, the deprecated switch considered; empty where vLLM does not know it."""
        override = self.on("VLLM_EXPONENTIAL_BUCKETING")
        if override is not None:
            return EXP if override else LIN
        told = self.text("VLLM_BUCKETING_STRATEGY")
        return EXP if told is None else told if told in (EXP, LIN, PAD) else ""

    def error(self, name: str, reason: str) -> Finding:
        """An error at the line of a name."""
        return Finding("error", self.line(name), name, reason)

    def warning(self, name: str, reason: str) -> Finding:
        """A warning at the line of a name."""
        return Finding("warning", self.line(name), name, reason)


def whole(text: str | None) -> int | None:
    """A number as vLLM reads it; none for what is no whole number."""
    try:
        return None if text is None else int(text)
    except ValueError:
        return None

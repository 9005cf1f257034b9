"""How often a tuned split ran and how often it did not, and why: silent fall-through is how tuned configs die."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

log = logging.getLogger("overlap.serve")


@dataclass
class Counts:
    """Calls per bucket that ran tuned, and per reason that passed through; what is new is logged once."""

    tuned: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)

    def ran(self, what: str, calls: int = 1) -> None:
        """Count calls that ran tuned."""
        if what not in self.tuned:
            log.info("overlap: runs tuned: %s", what)
        self.tuned[what] += calls

    def went_through(self, why: str) -> None:
        """Count a call that passed through."""
        if why not in self.passed:
            log.info("overlap: passes through: %s", why)
        self.passed[why] += 1

    def __str__(self) -> str:
        """`48 calls tuned (prefill 1x2048+0: 48), 1512 passed through (no bucket of this shape: 1512)`."""
        ran = ", ".join(f"{what}: {count}" for what, count in self.tuned.most_common())
        passed = ", ".join(f"{why}: {count}" for why, count in self.passed.most_common())
        return (
            f"{self.tuned.total()} calls tuned{f' ({ran})' if ran else ''}, "
            f"{self.passed.total()} passed through{f' ({passed})' if passed else ''}"
        )

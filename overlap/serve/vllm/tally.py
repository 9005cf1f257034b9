"""How often prefill ran tuned in this process, told to whoever reads the server's log.

Terms
    call: one layer's attention that Python saw. What a compiler has traced, or a device graph replays, Python does not
        see again; of those calls only the traces are counted. Layers that are compiled alike may share one.

Totals are logged at powers of two, and when the process ends, if it ends in order.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.util import Finalize

from overlap.serve.counts import Counts

log = logging.getLogger("vllm.plugins.overlap")
# Below, every new bucket and reason has been logged by itself anyway.
FIRST_TOTAL = 256


@dataclass
class Tally(Counts):
    """Counts that log themselves."""

    traced: Counter[str] = field(default_factory=Counter)
    _calls: int = 0

    def ran(self, what: str, calls: int = 1) -> None:
        """Count calls that ran tuned."""
        self._count(self.tuned, what, "runs tuned", calls)

    def went_through(self, why: str) -> None:
        """Count a call that passed through."""
        self._count(self.passed, why, "passes through")

    def compiled(self, what: str) -> None:
        """Count a trace; `what` tells whether the graph is tuned there."""
        self._count(self.traced, what, "compiled")

    def tell_at_end(self) -> None:
        """Log the totals when the process ends; `atexit` alone would miss the children of `multiprocessing`."""
        Finalize(None, self.tell, exitpriority=0)

    def tell(self) -> None:
        """Log the totals."""
        log.info("overlap: %s", str(self))  # now, for a handler may be late

    def _count(self, counter: Counter[str], what: str, how: str, calls: int = 1) -> None:
        if what not in counter:
            log.info("overlap: %s: %s", how, what)
        counter[what] += calls
        self._calls += 1
        if self._calls >= FIRST_TOTAL and self._calls & (self._calls - 1) == 0:
            self.tell()

    def __str__(self) -> str:
        """`48 calls tuned (…), 2 passed through (…), 24 traces compiled (prefill 1x2048+0: 24)`."""
        traced = ", ".join(f"{what}: {count}" for what, count in self.traced.most_common())
        return f"{super().__str__()}{f', {self.traced.total()} traces compiled ({traced})' if traced else ''}"

"""What a device answers that can only measure: it tells nothing beforehand, and knows no rules beside its op times."""

from __future__ import annotations

from collections.abc import Sequence

from overlap.devices.base import Runnable
from overlap.program import Program
from overlap.queues import PLAIN, WHOLE, Cuts, QueueRules
from overlap.workload import Workload


class OnlyMeasures:
    """The part of `overlap.devices.base.Device` that is about telling times without a run."""

    def require(self, workload: Workload) -> None:
        """Any model will do, since only the window ever runs."""

    def predict_ns(self, program: Program, order: Sequence[int]) -> int | None:
        """Nothing to tell."""
        return None

    def expected_times(self, program: Program) -> None:
        """Told by the op times."""
        return None

    def least_times(self, program: Program) -> None:
        """Measured ones are all there is."""
        return None

    def names(self, program: Program) -> frozenset[int]:
        """Every op is work."""
        return frozenset()

    def cuts(self, program: Program) -> Cuts:
        """Ops run whole."""
        return WHOLE

    @property
    def queue_rules(self) -> QueueRules:
        """Nothing that the op times do not tell: waking a worker costs a few us, which differs from run to run."""
        return PLAIN

    def speedup_interval(self, before: Runnable, after: Runnable) -> None:
        """Samples have an interval of their own."""
        return None

"""Where the time went: the window cut into the sets of engines that were busy together, in exact int64 ns.

Terms
    busy of an engine: the union of its lanes' intervals inside the window.
    both: MME and TPC busy at once, whatever else is. exposed TPC: TPC busy while MME is not; exposed MME likewise.
    part: the time during which exactly one set of engines was busy; its key joins the engines by `+`, the empty set
        is `idle`.

Contract: the parts of a partition sum to its window exactly; every other number here is a sum of parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import polars as pl

from overlap.analysis.intervals import Islands
from overlap.analysis.unions import Unions, engine_unions
from overlap.traces.codes import Ints
from overlap.traces.sweep import Window, window_of

IDLE = "idle"
COMPUTE = ("MME", "TPC")


def part_key(engines: Iterable[str]) -> str:
    """Key of the part in which exactly `engines` are busy: `MME+TPC`, or `idle`."""
    return "+".join(engines) or IDLE


@dataclass(frozen=True)
class Partition:
    """A window and its parts: `parts_ns` maps each set of engines (see `part_key`) to the ns it alone was busy."""

    start_ns: int
    end_ns: int
    parts_ns: Mapping[str, int]

    def __post_init__(self) -> None:
        """Conservation: the parts fill the window, no more and no less."""
        total = sum(self.parts_ns.values())
        assert total == self.window_ns, f"parts sum to {total} ns in a window of {self.window_ns} ns"

    @property
    def window_ns(self) -> int:
        """Length of the window."""
        return self.end_ns - self.start_ns

    def busy_ns(self, engine: str) -> int:
        """Time during which at least one lane of `engine` was busy; 0 for an engine without rows."""
        return self._where(lambda busy: engine in busy)

    @property
    def both_ns(self) -> int:
        """Time during which MME and TPC were busy at once."""
        return self._where(lambda busy: "MME" in busy and "TPC" in busy)

    @property
    def exposed_mme_ns(self) -> int:
        """Time during which MME was busy and TPC was not."""
        return self._where(lambda busy: "MME" in busy and "TPC" not in busy)

    @property
    def exposed_tpc_ns(self) -> int:
        """Time during which TPC was busy and MME was not."""
        return self._where(lambda busy: "TPC" in busy and "MME" not in busy)

    @property
    def others_alone_ns(self) -> int:
        """Time in which neither MME nor TPC was busy, but another engine was."""
        return self._where(lambda engines: not {"MME", "TPC", IDLE} & set(engines))

    @property
    def idle_ns(self) -> int:
        """Time during which no engine was busy."""
        return self.parts_ns.get(IDLE, 0)

    def fraction(self, time_ns: int) -> float:
        """`time_ns` as a fraction of the window; 0 in a window of length zero."""
        return time_ns / self.window_ns if self.window_ns else 0.0

    @property
    def parts(self) -> dict[str, float]:
        """The parts as fractions of the window."""
        return {key: self.fraction(time_ns) for key, time_ns in self.parts_ns.items()}

    @property
    def busy(self) -> dict[str, float]:
        """Fractions of the window under the names of `tuned.yaml`: mme, tpc, both, idle."""
        times = {"mme": self.busy_ns("MME"), "tpc": self.busy_ns("TPC"), "both": self.both_ns, "idle": self.idle_ns}
        return {name: self.fraction(time_ns) for name, time_ns in times.items()}

    def _where(self, chosen: Callable[[list[str]], bool]) -> int:
        return sum(time_ns for key, time_ns in self.parts_ns.items() if chosen(key.split("+")))


def partition(events: pl.DataFrame, window: Window | None = None, unions: Unions | None = None) -> Partition:
    """Cut a window by the engines that were busy.

    Args:
        events: an event table (`overlap.traces.schema`).
        window: (start_ns, end_ns), rows are clipped to it; from the first start to the last end where it is None.
        unions: `engine_unions` of both, where they are known already.

    Returns:
        Parts in a fixed order: every engine that has rows, MME+TPC, idle, and every other set that occurs.

    Raises:
        ValueError: for an unknown engine or a window that ends before it starts.
    """
    start, end = window_of(events) if window is None else window
    if end < start:
        raise ValueError(f"window of {start}..{end} ns ends before it starts")
    unions = engine_unions(events, (start, end)) if unions is None else unions
    engines = list(unions)
    by_mask = _times_by_mask(list(unions.values()), start, end)
    parts = {_key_of(bits, engines): int(by_mask[_mask_of(bits)]) for bits in _subsets(len(engines))}
    always = {*engines, IDLE, part_key(COMPUTE) if set(COMPUTE) <= set(engines) else IDLE}
    return Partition(start, end, {key: ns for key, ns in parts.items() if ns or key in always})


def _times_by_mask(unions: list[Islands], start: int, end: int) -> Ints:
    """Ns during which exactly the engines of each mask were busy; bit i of a mask is engine i."""
    edges = [np.array([start, end])]
    turns = [np.zeros(2, np.int64)]
    for bit, one in enumerate(unions):
        edges += [one.start_ns, one.end_ns]
        turns += [np.full(len(one.start_ns), 1 << bit), np.full(len(one.end_ns), -1 << bit)]
    times = np.concatenate(edges)
    order = np.argsort(times, kind="stable")
    # Islands of an engine never touch, so every turn flips its own bit and the running sum is the mask.
    masks = np.cumsum(np.concatenate(turns)[order])[:-1]
    total = np.zeros(1 << len(unions), np.int64)
    # Between two edges at one time a mask may be half flipped, but no time passes there.
    np.add.at(total, masks.clip(0), np.diff(times[order]))
    return total


def _subsets(count: int) -> list[tuple[bool, ...]]:
    """All sets of `count` engines: singles first, then pairs and so on, the empty set last."""
    return sorted(product((True, False), repeat=count), key=lambda bits: sum(bits) or count + 1)


def _key_of(bits: tuple[bool, ...], engines: list[str]) -> str:
    return part_key(engine for engine, chosen in zip(engines, bits, strict=True) if chosen)


def _mask_of(bits: tuple[bool, ...]) -> int:
    return sum(1 << i for i, chosen in enumerate(bits) if chosen)

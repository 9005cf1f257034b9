"""Ranked advice: which change could save how much at most, with the numbers that it rests on.

Terms
    saves at most: an upper limit that follows from the trace; what a change really saves only a run can tell.
    least window: the longest busy time of any engine. No order of the same ops, each as fast as here and side by side
        only as here, fits a shorter window.
    order advice: moves work; it can save no more than window - least window.
    work advice: makes ops of one engine shorter; then that engine's busy time may shrink by as much, and the limit is
        the window less what the engines would still need.

Contract: every advice has a number, and none more than its limit or less than `SMALLEST` of the window. Savings are
not additive: two advices may be about the same time. What has no saving is a note, with its size.
"""

from __future__ import annotations

from dataclasses import dataclass

from overlap.analysis.advice_rules import RULES, Draft, Findings
from overlap.analysis.numbers import share_text, time_text
from overlap.analysis.partition import Partition
from overlap.traces.sweep import ENGINES

SMALLEST = 0.005
NOT_ADDITIVE = (
    "Each saving is an upper limit taken by itself. They are not additive: several can be about the same time, and a "
    "change that saves one thing can cost another."
)


@dataclass(frozen=True)
class Advice:
    """One change: its limit, as time and as a fraction of the window, what it rests on, and what may be wrong."""

    title: str
    saves_at_most_ns: int
    of_window: float
    evidence: tuple[str, ...]
    knob: str
    caveat: str


@dataclass(frozen=True)
class Advised:
    """Advice with the largest saving first, notes without one, and the least window."""

    advice: tuple[Advice, ...]
    notes: tuple[str, ...]
    window_ns: int
    least_window_ns: int


def least_window_ns(part: Partition, shorter: str = "", by_ns: int = 0) -> int:
    """The longest busy time of any engine, were `shorter` busy for `by_ns` less."""
    busy = {engine: part.busy_ns(engine) for engine in ENGINES}
    if shorter:
        busy[shorter] = max(0, busy[shorter] - by_ns)
    return max(busy.values())


def advise(found: Findings) -> Advised:
    """Advice from what an analysis found; see the contract above."""
    part = found.partition
    drafts = [draft for rule in RULES for draft in rule(found)]
    advice = [one for draft in drafts for one in _limited(draft, part)]
    advice.sort(key=lambda one: (-one.saves_at_most_ns, one.title))
    return Advised(tuple(advice), tuple(_notes(part)), part.window_ns, least_window_ns(part))


def _limited(draft: Draft, part: Partition) -> list[Advice]:
    """The draft with its saving cut to the limit; nothing if it is too small to mention."""
    limit = part.window_ns - least_window_ns(part, draft.less_work_on, draft.saves_ns)
    saves = min(draft.saves_ns, limit)
    if saves <= 0 or saves < SMALLEST * part.window_ns:
        return []
    evidence = draft.evidence
    if saves < draft.saves_ns:
        cut = f"cut to {time_text(saves)}: what the busiest engine leaves of the window"
        evidence = (*evidence, f"{time_text(draft.saves_ns)} found, {cut}")
    return [Advice(draft.title, saves, part.fraction(saves), evidence, draft.knob, draft.caveat)]


def _notes(part: Partition) -> list[str]:
    """Time that the analysis can say nothing about, where it is large enough to matter."""
    texts = {
        "FUSED": "ran in kernels that use the matrix and the vector units in one; their time cannot be split, so what "
        "overlaps inside them is not counted as both",
        "OTHER": "ran on engines that no rule knows; no figure of MME or TPC includes it",
    }
    times = {engine: part.busy_ns(engine) for engine in texts}
    return [
        f"{time_text(times[engine])} ({share_text(part.fraction(times[engine]))} of the window) {text}."
        for engine, text in texts.items()
        if times[engine] and times[engine] >= SMALLEST * part.window_ns
    ]

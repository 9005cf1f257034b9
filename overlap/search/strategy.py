"""Strategies: which candidate to measure next, when not all of a space can be.

Terms
    ask/tell: a strategy never measures. It is asked for a candidate, whoever asked measures it however they like, and
        tells the time or that it failed. So the same strategies drive a device, a recorded table or many workers.
    features: what a strategy sees of a candidate: the value of every axis of its split, and its order.
    prediction: a time in ns that is known without measuring, such as the screening's.
    residual: log of the measured over the predicted time.

Contract
    - Every candidate is asked for at most once; a strategy that is asked again before it was told gives another one.
    - `tell` takes candidates that were never asked for, too: what an earlier session measured is told first.
    - The same seed, candidates and answers give the same questions.

Model-guided
    The first few questions are the best predicted ones that differ from each other in the first of the axes that decide
    how a program runs, or, where its values are used up, in any of them: neighbours would all be wrong alike. From then
    on the next question is the best *corrected* prediction: residuals are explained by one effect per value of each
    axis (ridge regression, so that effects that few measurements speak for stay small). A prediction that is wrong by
    the same factor everywhere needs no correction, and gets none: only ranks matter.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from overlap.search.candidate import Candidate
from overlap.stats import median

# Axes that change which ops there are and what waits for what; the others change how an op is computed.
STRUCTURE = ("chunks", "chunk_axis", "lag", "query_tile", "kv_tile", "fused_sdpa")
SPREAD = 3
# Measurements that must speak for an effect before half of it is believed.
SHRINK = 1.0
# Residuals further from their median than this many median deviations, and than a factor of e^0.5, are cut down to it.
CLIP, LEAST_CLIP = 4.0, 0.5


class Strategy(Protocol):
    """Chooses what is measured next."""

    def ask(self) -> Candidate | None:
        """The candidate to measure next; None if nothing is left."""

    def tell(self, candidate: Candidate, time_ns: int | None) -> None:
        """What measuring it gave; None if it failed."""


def features(candidate: Candidate) -> dict[str, object]:
    """Value by axis."""
    return {**candidate.split.as_dict(), "order": candidate.order}


def varying(candidates: Iterable[Candidate]) -> dict[str, list[object]]:
    """Axes of which the candidates have more than one value, and these values, sorted where they can be."""
    values: dict[str, set[object]] = {}
    for candidate in candidates:
        for name, value in features(candidate).items():
            values.setdefault(name, set()).add(value)
    return {name: sorted(found, key=_sortable) for name, found in values.items() if len(found) > 1}


def drive(strategy: Strategy, measure: Callable[[Candidate], int | None], most: int) -> list[tuple[Candidate, int]]:
    """Measure what `strategy` asks for, at most `most` times; the candidates that did not fail, in that order."""
    found = []
    for _ in range(most):
        candidate = strategy.ask()
        if candidate is None:
            break
        time_ns = measure(candidate)
        strategy.tell(candidate, time_ns)
        if time_ns is not None:
            found.append((candidate, time_ns))
    return found


class Grid:
    """One after the other, as they are listed."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self._left = dict.fromkeys(candidates)

    def ask(self) -> Candidate | None:
        """The next of the list."""
        candidate = next(iter(self._left), None)
        if candidate is not None:
            del self._left[candidate]
        return candidate

    def tell(self, candidate: Candidate, time_ns: int | None) -> None:
        """Not asked for again; what it gave changes nothing."""
        self._left.pop(candidate, None)


class Random(Grid):
    """In an order drawn from `seed`."""

    def __init__(self, candidates: Iterable[Candidate], seed: int) -> None:
        drawn = list(dict.fromkeys(candidates))
        random.Random(seed).shuffle(drawn)
        super().__init__(drawn)


class ModelGuided:
    """Best predicted first; every measurement corrects the predictions of what is left.

    Args:
        predicted: ns by candidate.
        spread: how many of the first questions differ in an axis of `structure`.
        structure: the axes that matter for that, the first one most.
    """

    def __init__(
        self, predicted: Mapping[Candidate, int], spread: int = SPREAD, structure: Sequence[str] = STRUCTURE
    ) -> None:
        self._predicted = dict(predicted)
        self._structure = structure
        self._spread = spread
        self._asked: list[Candidate] = []
        self._residuals: dict[Candidate, float] = {}
        self._left = dict.fromkeys(predicted)
        self._columns = _columns(predicted)

    def ask(self) -> Candidate | None:
        """The best corrected prediction; among the first few, the best one of a new structure."""
        left = list(self._left)
        if len(self._asked) < self._spread:
            left = self._unlike_asked(left, self._structure[:1]) or self._unlike_asked(left, self._structure) or left
        if not left:
            return None
        corrected = self._corrections()
        best = min(left, key=lambda one: (math.log(self._predicted[one]) + corrected(one), one.split.complexity))
        del self._left[best]
        self._asked.append(best)
        return best

    def tell(self, candidate: Candidate, time_ns: int | None) -> None:
        """Learn how wrong the prediction was; a failure teaches nothing about time."""
        self._left.pop(candidate, None)
        if candidate in self._predicted and time_ns is not None:
            if candidate not in self._asked:
                self._asked.append(candidate)
            self._residuals[candidate] = math.log(max(1, time_ns) / self._predicted[candidate])

    def _unlike_asked(self, left: Sequence[Candidate], axes: Sequence[str]) -> list[Candidate]:
        """Those whose values of `axes` nobody was asked for yet."""
        seen = {one: tuple(features(one)[name] for name in axes) for one in (*left, *self._asked)}
        taken = {seen[one] for one in self._asked}
        return [one for one in left if seen[one] not in taken]

    def _corrections(self) -> Callable[[Candidate], float]:
        """What the residuals so far say about any candidate."""
        if not self._residuals:
            return lambda _: 0.0
        rows = np.stack([self._row(one) for one in self._residuals])
        residuals = _clipped(list(self._residuals.values()))
        middle = median(residuals)
        # Ridge in its dual form: as many equations as measurements, however many values the axes have.
        gram = rows @ rows.T + SHRINK * np.eye(len(rows))
        effects = rows.T @ np.linalg.solve(gram, np.asarray(residuals) - middle)
        return lambda candidate: float(self._row(candidate) @ effects)

    def _row(self, candidate: Candidate) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        row = np.zeros(len(self._columns))
        for pair in features(candidate).items():
            if pair in self._columns:
                row[self._columns[pair]] = 1.0
        return row


def _columns(candidates: Iterable[Candidate]) -> dict[tuple[str, object], int]:
    """A column per value of every axis that varies."""
    pairs = [(name, value) for name, values in varying(candidates).items() for value in values]
    return {pair: number for number, pair in enumerate(pairs)}


def _clipped(values: Sequence[float]) -> list[float]:
    """`values` with outliers moved closer, so that one disturbed measurement does not bend every effect."""
    middle = median(values)
    reach = max(LEAST_CLIP, CLIP * median([abs(value - middle) for value in values]))
    return [min(max(value, middle - reach), middle + reach) for value in values]


def _sortable(value: object) -> tuple[str, object]:
    """Numbers by size, everything else by its text."""
    return ("", value) if isinstance(value, int) else (type(value).__name__, str(value))

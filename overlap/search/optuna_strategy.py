"""A strategy that lets Optuna's TPE sampler choose (extra `optuna`).

Terms
    point: a value for every axis that is suggested. Axes are categorical: a query tile of 0 means uncut, so sizes
        have no order.
    open: the candidates that agree with the values suggested so far. An axis is suggested only if the open ones differ
        in it; so axes that mean nothing under a condition, such as the lag of a single chunk, are not part of a point.

A value that no open candidate has makes the point infeasible: its trial is pruned, and Optuna is asked again. So is a
point that was asked for before, with the time it gave, which Optuna may learn from twice. After too many of these
the next candidate is drawn from what is left, and told as a point that somebody wanted tried.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from overlap.errors import ConfigError
from overlap.search.candidate import Candidate
from overlap.search.strategy import features, varying

if TYPE_CHECKING:
    import optuna

MISSES = 5
# Draws before TPE's own model is used; Optuna's default of 10 would be most of what a tuner can afford here.
STARTUP = 5


class Tpe:
    """TPE over a list of candidates.

    Raises:
        ConfigError: Optuna is not installed.
    """

    def __init__(self, candidates: Iterable[Candidate], seed: int) -> None:
        try:
            import optuna
        except ImportError as error:
            raise ConfigError("strategy tpe needs optuna", "pip install 'overlap[optuna]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._states = optuna.trial.TrialState
        self._all = list(dict.fromkeys(candidates))
        self._left = dict.fromkeys(self._all)
        # Categorical values must be of plain types, and True equals 1 in Python: texts are safe.
        self._axes = {name: [str(value) for value in values] for name, values in varying(self._all).items()}
        self._texts = {one: {name: str(value) for name, value in features(one).items()} for one in self._all}
        self._trials: dict[Candidate, optuna.Trial] = {}
        self._times: dict[Candidate, int | None] = {}
        self._rng = random.Random(seed)
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP))

    def ask(self) -> Candidate | None:
        """What TPE suggests, or any that is left if it keeps suggesting what is not."""
        if not self._left:
            return None
        for _ in range(MISSES):
            trial = self._study.ask()
            candidate = self._point(trial)
            if candidate in self._left:
                return self._give(candidate, trial)
            self._answer(trial, self._times.get(candidate) if candidate else None)
        candidate = self._rng.choice(list(self._left))
        self._study.enqueue_trial({name: self._texts[candidate][name] for name in self._axes})
        trial = self._study.ask()
        self._point(trial)
        return self._give(candidate, trial)

    def tell(self, candidate: Candidate, time_ns: int | None) -> None:
        """Pass it on; what nobody asked for is taken as a point that somebody wanted tried."""
        if candidate not in self._texts:
            return
        self._left.pop(candidate, None)
        self._times[candidate] = time_ns
        trial = self._trials.pop(candidate, None)
        if trial is None:
            self._study.enqueue_trial({name: self._texts[candidate][name] for name in self._axes})
            trial = self._study.ask()
            self._point(trial)
        self._answer(trial, time_ns)

    def _give(self, candidate: Candidate, trial: optuna.Trial) -> Candidate:
        del self._left[candidate]
        self._trials[candidate] = trial
        return candidate

    def _answer(self, trial: optuna.Trial, time_ns: int | None) -> None:
        """Pruned, not failed, without a time: TPE learns to stay away from pruned points."""
        if time_ns is None:
            self._study.tell(trial, state=self._states.PRUNED)
        else:
            self._study.tell(trial, float(time_ns))

    def _point(self, trial: optuna.Trial) -> Candidate | None:
        """Suggest axis by axis; None if no candidate is like that."""
        still = self._all
        for name, values in self._axes.items():
            if len({self._texts[one][name] for one in still}) == 1:
                continue
            value = trial.suggest_categorical(name, values)
            still = [one for one in still if self._texts[one][name] == value]
            if not still:
                return None
        return still[0]

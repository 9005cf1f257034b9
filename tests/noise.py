"""Simulated timers: true times that a machine's bad habits are laid over, and sweeps that have nothing else to go by.

Terms
    factor: what a sample is multiplied with. A habit makes one function of the entrant's name per sweep, which may
        remember what it gave before.
    simulated sweep: the real race, drop rule and decision over a journal in memory, with invented samples.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from overlap.search.candidate import BASELINE, Candidate
from overlap.search.check import Checked
from overlap.search.config import SearchConfig
from overlap.search.decide import FINAL, Verdict, decide
from overlap.search.journal import Journal
from overlap.search.race import STACK, Entrant, hopeless, race, speedup
from overlap.split import Split
from tests.sweeps import MemoryJournal, Silent, checked

Factor = Callable[[str], float]
Habit = Callable[[random.Random], Factor]
Decide = Callable[[Journal, Sequence[Checked], float, float], Verdict]

BASE_NS = 1e6
CANDIDATES = tuple(
    Candidate(Split(chunks=chunks, masked_blocks="skip", lag=lag), "list")
    for chunks, lag in ((2, 0), (2, 1), (4, 0), (4, 1), (8, 1))
)
SEARCH = SearchConfig(race_candidates=len(CANDIDATES), race_rounds=8, finalists=3, final_rounds=19)


def _lognormal(rng: random.Random) -> Factor:
    return lambda _: rng.lognormvariate(0, 0.08)


def _spikes(rng: random.Random) -> Factor:
    """One run in ten is interrupted for ten times its length."""
    return lambda _: rng.lognormvariate(0, 0.01) * (10 if rng.random() < 0.1 else 1)


def _heavy_tail(rng: random.Random) -> Factor:
    """Never faster than the truth, sometimes very much slower; no variance at all."""
    return lambda _: 1 + 0.02 * rng.paretovariate(1.1)


def _drift(rng: random.Random) -> Factor:
    """Slower and slower, or faster and faster, by 1 % per run."""
    slope, runs = rng.choice((0.01, -0.006)), iter(range(10**6))
    return lambda _: rng.lognormvariate(0, 0.02) * max(0.1, 1 + slope * next(runs))


def _throttled(rng: random.Random) -> Factor:
    """A clock that falls to two thirds in a fixed rhythm, which may be that of the rounds."""
    period, number = rng.choice((2, 4, 5, 6, 10, 25)), rng.randrange(100)
    runs = iter(range(number, 10**6))
    return lambda _: rng.lognormvariate(0, 0.02) * (1.5 if next(runs) % period < period // 2 else 1)


def _in_step(rng: random.Random) -> Factor:
    """The clock falls for two of five runs, and a round of the final has five."""
    runs = iter(range(rng.randrange(5), 10**6))
    return lambda _: rng.lognormvariate(0, 0.02) * (1.5 if next(runs) % 5 < 2 else 1)


def _two_clocks(rng: random.Random) -> Factor:
    """The machine is in one of two states and changes it in one run of ten."""
    state = {"slow": False}

    def factor(_: str) -> float:
        state["slow"] ^= rng.random() < 0.1
        return rng.lognormvariate(0, 0.01) * (1.4 if state["slow"] else 1)

    return factor


def _correlated(rng: random.Random) -> Factor:
    """What disturbs one run still disturbs the next: a log-normal walk that forgets a tenth per run."""
    state = {"log": 0.0}

    def factor(_: str) -> float:
        state["log"] = 0.9 * state["log"] + rng.gauss(0, 0.05)
        return rng.lognormvariate(0, 0.01) * 2.718281828 ** state["log"]

    return factor


def _neighbours(rng: random.Random) -> Factor:
    """A run is slowed by who ran before it: some leave cold caches and a hot chip behind, by up to 20 %."""
    heat: dict[str, float] = {}
    before = {"name": ""}

    def factor(name: str) -> float:
        slowed = heat.setdefault(before["name"], rng.uniform(0, 0.2))
        before["name"] = name
        return rng.lognormvariate(0, 0.02) * (1 + slowed)

    return factor


def _coarse(rng: random.Random) -> Factor:
    """A clock that only knows steps of 5 %."""
    return lambda _: round(20 * rng.lognormvariate(0, 0.05)) / 20


def _random(rng: random.Random) -> Factor:
    return lambda _: rng.uniform(0.1, 10)


HABITS: dict[str, Habit] = {
    "log-normal": _lognormal,
    "spikes": _spikes,
    "heavy tail": _heavy_tail,
    "drift": _drift,
    "throttled": _throttled,
    "in step": _in_step,
    "two clocks": _two_clocks,
    "correlated": _correlated,
    "neighbours": _neighbours,
    "coarse clock": _coarse,
    "random": _random,
}


def lucky(rng: random.Random, reach: float = 0.03) -> Factor:
    """Each entrant is off by a factor of its own as long as the process lives: where its memory happens to lie.

    Not one of `HABITS`, because no number of rounds in one process can tell it from a true gain.
    """
    luck: dict[str, float] = {}
    return lambda name: rng.lognormvariate(0, 0.01) * luck.setdefault(name, 1 + rng.uniform(-reach, reach))


def timers(names: Sequence[str], true_ns: Mapping[str, float], factor: Factor) -> dict[str, Entrant]:
    """An entrant per name; without a true time it takes as long as the baseline."""
    return {
        name: (lambda one=name: max(1, int(true_ns.get(one, BASE_NS) * factor(one))))  # type: ignore[misc]
        for name in names
    }


def raced(journal: Journal, entrants: Mapping[str, Entrant], search: SearchConfig, seed: int) -> list[Candidate]:
    """The race with its drop rule; the finalists, best median first."""
    names = [one.key for one in CANDIDATES]
    dropped: dict[int, set[str]] = {}

    def keep(name: str, number: int) -> bool:
        if number not in dropped:
            dropped[number] = hopeless(journal, "race", BASELINE.key, names, search.confidence, number)
        return name not in dropped[number]

    race(journal, "race", entrants, search.race_rounds, seed, Silent(), keep)
    speeds = {one: speedup(journal, "race", BASELINE.key, one.key, search.confidence) for one in CANDIDATES}
    able = [(found.median, one) for one, found in speeds.items() if found]
    return [one for _, one in sorted(able, key=lambda pair: -pair[0])][: search.finalists]


def simulated(
    seed: int,
    habit: Habit,
    true_ns: Mapping[str, float],
    decided: Decide = decide,
    search: SearchConfig = SEARCH,
) -> Verdict:
    """One sweep from the race on. `decided` may be another rule than ours."""
    rng, journal = random.Random(seed), MemoryJournal()
    entrants = timers([BASELINE.key, STACK, *(one.key for one in CANDIDATES)], true_ns, habit(rng))
    racing = {name: entrant for name, entrant in entrants.items() if name != STACK}
    finalists = raced(journal, racing, search, seed)
    names = [BASELINE.key, *(one.key for one in finalists), STACK]
    race(journal, FINAL, {name: entrants[name] for name in names}, search.final_rounds, seed, Silent())
    return decided(journal, [checked(one) for one in finalists], search.confidence, search.margin)


def nothing_faster(seed: int) -> dict[str, float]:
    """True times of the candidates: all equal to the baseline's for even seeds, some up to 5 % slower for odd ones."""
    rng = random.Random(f"true {seed}")
    return {one.key: BASE_NS * (1 + seed % 2 * rng.choice((0, 0, 0.01, 0.05))) for one in CANDIDATES}

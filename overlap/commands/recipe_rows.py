"""The recipes of the field beside what was kept: what the page and the terminal tell of them."""

from __future__ import annotations

from dataclasses import dataclass

from overlap.search.candidate import Candidate
from overlap.search.config import PROGRAM
from overlap.search.decide import FINAL
from overlap.search.screen import Screened
from overlap.search.sweep import RACE, SweepResult
from overlap.stats import median

# Where a ratio is from if it is not from samples.
KEPT, PREDICTIONS = "is kept", "predicted"


@dataclass(frozen=True)
class RecipeRow:
    """A named recipe in its best candidate; `split` has its order, too, where that is not program order.

    `kept_over` is the recipe's time over the kept variant's; `basis` says from which times: `final`, `race`,
    `predicted`, or that the recipe itself `is kept`. `failure` says why the recipe cannot run; there is no ratio then.
    `best`: the fastest prediction.
    """

    name: str
    split: str
    predicted_ns: int
    kept_over: float | None
    basis: str
    failure: str
    best: bool


def recipe_rows(result: SweepResult) -> list[RecipeRow]:
    """The recipes of the field, the fastest prediction first, those that failed last."""
    able = [one for one in result.recipes.values() if not one.failure]
    best_ns = min((one.predicted_ns for one in able), default=0)
    ranked = sorted(result.recipes.items(), key=lambda pair: (bool(pair[1].failure), pair[1].predicted_ns, pair[0]))
    rows = []
    for name, one in ranked:
        kept_over, basis = (None, "") if one.failure else _kept_over(result, one)
        best = not one.failure and one.predicted_ns == best_ns
        program = one.candidate.order == PROGRAM
        split = str(one.candidate.split) if program else one.candidate.key
        rows.append(RecipeRow(name, split, one.predicted_ns, kept_over, basis, one.failure, best))
    return rows


def _kept_over(result: SweepResult, recipe: Screened) -> tuple[float | None, str]:
    """From the last stage that timed both, else from predictions."""
    kept: Candidate = result.verdict.kept
    if recipe.candidate == kept:
        return 1.0, KEPT
    for stage in (FINAL, RACE):
        pair = [result.samples_ns(one.key, stage) for one in (recipe.candidate, kept)]
        if all(pair):
            return median(pair[0]) / median(pair[1]), stage
    predicted = next((one.predicted_ns for one in result.screened if one.candidate == kept and not one.failure), 0)
    return (recipe.predicted_ns / predicted, PREDICTIONS) if predicted else (None, "")

"""Cases and a predictor → errors per row, sums per group, comparisons, and why the other rows are left out.

Contract: an error is predicted time over published time, less 1. Calibration rows are predicted and shown, and counted
apart: `mape` and `bias` of a group know validation rows only. A row that the predictor refuses is left out with its
reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from overlap.devices.gaudi.validation.calls import Answers
from overlap.devices.gaudi.validation.cases import Case, Cases
from overlap.devices.gaudi.validation.directions import Direction, directions
from overlap.devices.gaudi.validation.groups import GROUPS, group_name, groups_of
from overlap.devices.gaudi.validation.predictor import Predictor
from overlap.errors import OverlapError


@dataclass(frozen=True)
class Outcome:
    """A predicted row; `low` and `high` span its prediction over what is uncertain, in ns like `predicted`."""

    case: Case
    groups: tuple[str, ...]
    predicted: float
    low: float | None = None
    high: float | None = None

    @property
    def error(self) -> float:
        """Positive: predicted slower than published."""
        return self.predicted / self.case.published - 1

    @property
    def value(self) -> float:
        """The prediction in the unit of the row."""
        return self.case.measure.value_of(self.predicted)


@dataclass(frozen=True)
class Group:
    """Validation rows of one group; mape and bias are None without any. Calibration rows stand apart."""

    n: int
    mape: float | None
    bias: float | None
    calibration_n: int
    calibration_mape: float | None


@dataclass(frozen=True)
class Validation:
    """All that validation found. `refused` has the ids of all rows without a prediction, by reason."""

    chip: str
    model: str
    version: str
    outcomes: tuple[Outcome, ...]
    groups: dict[str, Group]
    directions: tuple[Direction, ...]
    refused: dict[str, tuple[str, ...]]


def evaluate(cases: Cases, predictor: Predictor, around: Sequence[Predictor] = ()) -> Validation:
    """Predict every case.

    Args:
        cases: of the predictor's chip.
        predictor: is asked each question once.
        around: predictors with other values of the uncertain constants; each row's interval spans all answers.
    """
    answers, others = Answers(predictor), [Answers(one) for one in around]
    refused = {reason: list(ids) for reason, ids in cases.refused.items()}
    found: list[Outcome] = []
    for case in cases.found:
        try:
            found.append(_outcome(case, cases.chip, answers, others))
        except OverlapError as error:
            refused.setdefault(f"refused by the device model: {error.message}", []).append(case.row.id)
    predicted = {one.case.row.id: one.predicted for one in found}
    return Validation(
        chip=cases.chip,
        model=predictor.name,
        version=predictor.version,
        outcomes=tuple(found),
        groups=_groups(found, cases.chip),
        directions=tuple(directions([one.case for one in found], predicted)),
        refused={reason: tuple(ids) for reason, ids in sorted(refused.items())},
    )


def _outcome(case: Case, chip: str, answers: Answers, others: Sequence[Answers]) -> Outcome:
    predicted = _predict(case, answers)
    spread = [predicted, *(_predict(case, one) for one in others)]
    interval = (min(spread), max(spread)) if others else (None, None)
    return Outcome(case, groups_of(case, chip), predicted, *interval)


def _predict(case: Case, answers: Answers) -> float:
    """The time of a case, or its quotient.

    Raises:
        ValueError: the predictor gave a time that no work can take.
    """
    total = answers.total_ns(case.terms)
    over = answers.total_ns(case.over) if case.over else 1.0
    if not (total > 0 and over > 0):
        raise ValueError(f"row {case.row.id}: predicted {total} over {over}")
    return total / over


def _groups(found: Sequence[Outcome], chip: str) -> dict[str, Group]:
    names = [group_name(name, chip) for name in GROUPS]
    members = {name: [one for one in found if name in one.groups] for name in names}
    return {name: _group(rows) for name, rows in members.items() if rows}


def _group(rows: Sequence[Outcome]) -> Group:
    judged = [one.error for one in rows if not one.case.row.calibration]
    fitted = [one.error for one in rows if one.case.row.calibration]
    return Group(
        n=len(judged),
        mape=fmean(map(abs, judged)) if judged else None,
        bias=fmean(judged) if judged else None,
        calibration_n=len(fitted),
        calibration_mape=fmean(map(abs, fitted)) if fitted else None,
    )

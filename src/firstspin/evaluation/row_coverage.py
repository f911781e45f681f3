"""Coverage of the calibrated rows: the share of users whose favourite is in them, overall and by cohort.

A user's rows are calibrated on other users only: in five parts of the held-out users, each with the threshold of the
others. The rows of a bundle have one threshold: of other users, unless the bundle was trained on these, which the
scorecard's protocol says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.evaluation.bootstrap import Figure
from firstspin.evaluation.cohorts import cohorts
from firstspin.evaluation.cross_validation import MAX_SHOWN, HoldOutAnswers
from firstspin.evaluation.metrics import wilson
from firstspin.models.prediction_sets import LEVEL, PredictionSets, calibrated
from firstspin.records import Examples

PARTS: Final = 5
SIZES: Final = (*map(str, range(1, MAX_SHOWN + 1)), f"more than {MAX_SHOWN}")


@dataclass(frozen=True, slots=True)
class CohortCoverage:
    """The coverage of the rows in one cohort, with a 95% Wilson interval."""

    by: str
    name: str
    people: int
    coverage: Figure


@dataclass(frozen=True, slots=True)
class RowCoverage:
    """The coverage of a model's rows, which guarantee `level`; `sizes` are the shares of users by number of rows."""

    model: str
    level: float
    coverage: Figure
    sizes: dict[str, float]
    segments: list[CohortCoverage]

    def sentence(self) -> str:
        """What the rows cover, and how many they are."""
        sizes = ", ".join(f"{size}: {share:.0%}" for size, share in self.sizes.items())
        return (
            f"Calibrated rows: the favourite is in them for {self.coverage.value:.1%} of users (95% CI "
            f"{self.coverage.low:.1%} to {self.coverage.high:.1%}; calibrated to at least {self.level:.0%}). "
            f"Users by number of rows: {sizes}."
        )


def row_coverage(
    model: str, answers: HoldOutAnswers, users: Examples, rng: np.random.Generator, sets: PredictionSets | None = None
) -> RowCoverage | None:
    """The coverage among `users` (n,) of the rows of a model with these `answers`, by the rows `sets` of a bundle.

    Without `sets`, `rng` deals the users into five parts. None where there are too few users to calibrate.
    """
    thresholds = np.full(len(users), sets.threshold) if sets else _cross_calibrated(answers, rng)
    if thresholds is None:
        return None
    covered = answers.truth_before <= thresholds
    counts = np.bincount((answers.shown_before[:, 1:] <= thresholds[:, None]).sum(axis=1), minlength=len(SIZES))
    return RowCoverage(
        model,
        sets.level if sets else LEVEL,
        _share(covered),
        {size: round(count / len(users), 6) for size, count in zip(SIZES, counts.tolist(), strict=True)},
        [CohortCoverage(one.by, one.name, len(one.members), _share(covered[one.members])) for one in cohorts(users)],
    )


def _cross_calibrated(answers: HoldOutAnswers, rng: np.random.Generator) -> NDArray[np.int64] | None:
    """(n,) the threshold of each user, from the users of the other parts."""
    part = rng.permutation(len(answers.truth_before)) % PARTS
    of_parts = [calibrated(answers.truth_before[part != i]) for i in range(PARTS)]
    known = [sets.threshold for sets in of_parts if sets]
    return np.array(known)[part] if len(known) == PARTS else None


def _share(covered: NDArray[np.bool_]) -> Figure:
    low, high = wilson(float(covered.sum()), len(covered))
    return Figure(round(float(covered.mean()), 6), round(low, 6), round(high, 6))

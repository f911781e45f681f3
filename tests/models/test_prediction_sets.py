"""Conformal prediction sets: the threshold by hand, and the coverage that they guarantee by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from firstspin.models.prediction_sets import UNRANKED, PredictionSets, calibrated, mass_before
from firstspin.records import Rows

USERS_A_RUN = 400


def scores(*percent: float) -> np.ndarray:
    return np.array([round(one * 10_000) for one in percent], dtype=np.int32)


def test_the_threshold_is_the_smallest_with_the_share_of_the_calibration_users_and_one_more_below_it() -> None:
    one_to_nine = scores(*range(10, 100, 10))
    assert calibrated(one_to_nine) == PredictionSets(0.9, 900_000)  # ceil(10 · 0.9) = 9: the largest of nine
    assert calibrated(one_to_nine[::-1], level=0.5) == PredictionSets(0.5, 500_000)
    assert calibrated(one_to_nine[:8]) is None  # eight users can't guarantee 90%


def test_favourites_that_the_model_does_not_rank_count_as_not_covered() -> None:
    some = np.full(100, 10_000, dtype=np.int32)
    some[:9] = UNRANKED
    assert calibrated(some) == PredictionSets(0.9, 10_000)
    some[:11] = UNRANKED
    assert calibrated(some) is None


def test_rows_are_the_first_genres_until_their_probability_exceeds_the_threshold() -> None:
    sets = PredictionSets(0.9, 600_000)
    assert sets.rows((0.7, 0.2, 0.1)) == Rows(1, 0.9)
    assert sets.rows((0.6, 0.2, 0.2)) == Rows(2, 0.9)  # 60% do not exceed 60%
    assert sets.rows((0.25, 0.25, 0.25, 0.25)) == Rows(3, 0.9)
    assert sets.rows((0.5,)) == Rows(1, 0.9)


def test_a_user_is_covered_exactly_where_the_score_is_at_most_the_threshold() -> None:
    rng = np.random.default_rng(1)
    values = np.round(-np.sort(-rng.dirichlet(np.full(9, 0.4), 300), axis=1), 6)
    before = mass_before(values)
    sets = PredictionSets(0.9, int(before[17, 4]))  # a threshold with a tie
    for row, of in zip(values.tolist(), before, strict=True):
        assert sets.rows(row).count == (of <= sets.threshold).sum()


@pytest.mark.parametrize(("users", "expected"), [(99, 0.9), (100, 91 / 101)])
def test_the_coverage_is_the_guaranteed_one_also_of_a_model_that_is_wrong(users: int, expected: float) -> None:
    """Over calibrations the mean coverage is ceil((n + 1) 0.9) / (n + 1), and a little more for the ties at zero."""
    rng = np.random.default_rng([2026, users])
    covered = []
    for _ in range(600):
        truth = rng.dirichlet(np.full(8, 0.6), users + USERS_A_RUN)
        model = np.sort(truth**2 + 0.02 * rng.random(truth.shape), axis=1)[:, ::-1]  # over-confident
        model /= model.sum(axis=1, keepdims=True)
        wanted = (np.sort(truth, axis=1)[:, ::-1].cumsum(axis=1) > rng.random((len(truth), 1))).argmax(axis=1)
        of_truth = mass_before(model)[np.arange(len(truth)), wanted]
        sets = calibrated(of_truth[:users])
        assert sets is not None
        covered.append(float((of_truth[users:] <= sets.threshold).mean()))
    error = np.std(covered) / np.sqrt(len(covered))
    assert expected - 4 * error < np.mean(covered) < expected + 1 / (users + 1) + 4 * error

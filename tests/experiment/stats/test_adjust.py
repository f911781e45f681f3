from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from firstspin.experiment.stats.adjust import adjusted, mean_of
from firstspin.experiment.stats.lift import lift

NOBODY = np.empty((0, 1))


def draw(rng: np.random.Generator, n: int, gain: float, share: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Listening that known covariates explain to this share, in an arm that adds `gain`."""
    x = rng.normal(size=(n, 2))
    noise = rng.normal(size=n) * np.sqrt(1 - share)
    return 5 + gain + np.sqrt(share / 2) * x.sum(axis=1) + noise, x


def test_the_gain_in_variance_is_the_share_the_covariates_explain() -> None:
    rng = np.random.default_rng(1)
    means, gain = adjusted(*draw(rng, 20_000, 0.0), *draw(rng, 20_000, 0.1))
    assert gain == pytest.approx(0.5, abs=0.02)
    assert lift(means).difference.value == pytest.approx(0.1, abs=0.03)


def test_useless_covariates_neither_gain_nor_cost() -> None:
    rng = np.random.default_rng(2)
    _, gain = adjusted(*draw(rng, 20_000, 0.0, share=0.0), *draw(rng, 20_000, 0.0, share=0.0))
    assert gain == pytest.approx(0.0, abs=0.001)


def test_the_difference_is_that_of_the_regression_with_interactions() -> None:
    rng = np.random.default_rng(3)
    (y0, x0), (y1, x1) = draw(rng, 300, 0.0), draw(rng, 200, 0.3)
    means, _ = adjusted(y0, x0, y1, x1)
    x = np.concatenate([x0, x1]) - np.concatenate([x0, x1]).mean(axis=0)
    arm = np.repeat([0.0, 1.0], [300, 200])
    model = sm.OLS(np.concatenate([y0, y1]), np.column_stack([np.ones(500), arm, x, arm[:, None] * x])).fit()
    assert lift(means).difference.value == pytest.approx(model.params[1])


def test_without_covariates_or_with_too_few_users_the_plain_means_stand() -> None:
    rng = np.random.default_rng(4)
    y, x = draw(rng, 12, 0.0)
    for columns in (np.empty((12, 0)), x):
        means, gain = adjusted(y, columns, y + 1, columns)
        assert gain == 0
        assert (means.control, means.treatment, means.covariance) == (mean_of(y), mean_of(y + 1), 0.0)


def test_no_users_and_one_user_have_means_without_variance() -> None:
    assert (mean_of(np.array([])).n, mean_of(np.array([3.0])).variance) == (0, 0.0)


def test_a_covariate_that_says_the_same_twice_does_no_harm() -> None:
    rng = np.random.default_rng(5)
    (y0, x0), (y1, x1) = draw(rng, 500, 0.0), draw(rng, 500, 0.2)
    once, _ = adjusted(y0, x0, y1, x1)
    twice, _ = adjusted(y0, np.hstack([x0, x0]), y1, np.hstack([x1, x1]))
    assert twice.treatment.mean == pytest.approx(once.treatment.mean)


def test_alike_arms_differ_one_time_in_twenty_and_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(6)
    rejected = held = 0
    runs, gain = 3_000, 0.087
    for _ in range(runs):
        (y0, x0), (y1, x1) = draw(rng, 200, 0.0), draw(rng, 200, 0.0)
        rejected += lift(adjusted(y0, x0, y1, x1)[0]).p_value <= 0.05
        relative = lift(adjusted(y0, x0, y1 * (1 + gain), x1)[0]).relative
        held += relative.low <= gain <= relative.high
    assert 0.042 < rejected / runs < 0.058
    assert 0.942 < held / runs < 0.958

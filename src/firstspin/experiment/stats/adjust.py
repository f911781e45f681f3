"""Sharper comparisons from what was known at registration: regression adjustment, with the gain measured, not assumed.

Lin's estimator (Annals of Applied Statistics 7, 2013): each arm gets its own regression and both are read at the mean
person of the two. It is consistent however wrong the regression. CUPED, of which this is the general form, takes the
same metric before the experiment: newcomers have none, so expect little.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from firstspin.experiment.stats.lift import Means
from firstspin.experiment.stats.means import Mean

Numbers = NDArray[np.float64]


def mean_of(values: Numbers) -> Mean:
    """The mean of n users' values and its variance; both 0 where there are too few to say."""
    n = len(values)
    return Mean(n, float(values.mean()) if n else 0.0, float(values.var(ddof=1)) / n if n > 1 else 0.0)


def adjusted(control: Numbers, x_control: Numbers, treatment: Numbers, x_treatment: Numbers) -> tuple[Means, float]:
    """The arms' means at the mean covariates of all, and the share of the difference's variance that this took away.

    Values are (n,), covariates (n, k), of known-at-registration columns only. Left as they are, with a gain of 0, where
    an arm has too few users for its regression.
    """
    plain = Means(mean_of(control), mean_of(treatment))
    k = x_control.shape[1]
    variance = plain.control.variance + plain.treatment.variance
    if k == 0 or min(len(control), len(treatment)) < 2 * k + 10 or variance == 0:
        return plain, 0.0
    everybody = np.concatenate([x_control, x_treatment])
    centre = everybody.mean(axis=0)
    spread = np.atleast_2d(np.cov(everybody, rowvar=False)) / len(everybody)
    zero, slope_zero = _regressed(control, x_control - centre)
    one, slope_one = _regressed(treatment, x_treatment - centre)
    # Where the mean person lies is itself uncertain, in the same way for both arms.
    means = Means(
        Mean(zero.n, zero.mean, zero.variance + float(slope_zero @ spread @ slope_zero)),
        Mean(one.n, one.mean, one.variance + float(slope_one @ spread @ slope_one)),
        float(slope_zero @ spread @ slope_one),
    )
    left = means.control.variance + means.treatment.variance - 2 * means.covariance
    return means, 1 - left / variance


def _regressed(values: Numbers, x: Numbers) -> tuple[Mean, Numbers]:
    """The mean that a regression on x predicts at x = 0, and its slopes."""
    n, k = x.shape
    at = x.mean(axis=0)
    slope = np.linalg.lstsq(x - at, values - values.mean(), rcond=None)[0]
    rest = values - values.mean() - (x - at) @ slope
    return Mean(n, float(values.mean() - at @ slope), float(rest @ rest) / (n - k - 1) / n), slope

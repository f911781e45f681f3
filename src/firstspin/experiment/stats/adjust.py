"""Variance reduction by regression adjustment on covariates that are known at registration (CUPED's general form).

Lin's estimator (Annals of Applied Statistics 7, 2013): one regression per arm, both evaluated at the mean covariates of
the two arms. It is consistent even where the linear model is wrong. CUPED (Deng, Xu, Kohavi and Walker, WSDM 2013) uses
the same metric before the experiment; new users have no earlier values, so the reduction is usually small. It is
measured and reported.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from firstspin.experiment.stats.lift import Means
from firstspin.experiment.stats.means import Mean

Numbers = NDArray[np.float64]


def mean_of(values: Numbers) -> Mean:
    """The mean of `values` (n,) and the variance of that mean; both 0 where n is too small to estimate them."""
    n = len(values)
    return Mean(n, float(values.mean()) if n else 0.0, float(values.var(ddof=1)) / n if n > 1 else 0.0)


def adjusted(control: Numbers, x_control: Numbers, treatment: Numbers, x_treatment: Numbers) -> tuple[Means, float]:
    """Regression-adjusted means of both arms, and the fraction of the difference's variance that was removed.

    Values are (n,) and covariates (n, k) per arm, from columns known at registration. The estimator is Lin's (Annals of
    Applied Statistics 7, 2013). An arm with fewer than 2 k + 10 users leaves both means unadjusted and returns 0.
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
    # The mean of the covariates is an estimate too, with an error common to both arms.
    means = Means(
        Mean(zero.n, zero.mean, zero.variance + float(slope_zero @ spread @ slope_zero)),
        Mean(one.n, one.mean, one.variance + float(slope_one @ spread @ slope_one)),
        float(slope_zero @ spread @ slope_one),
    )
    remaining = means.control.variance + means.treatment.variance - 2 * means.covariance
    return means, 1 - remaining / variance


def _regressed(values: Numbers, x: Numbers) -> tuple[Mean, Numbers]:
    """The mean that a least-squares regression of values (n,) on x (n, k) predicts at x = 0, and its slopes (k,)."""
    n, k = x.shape
    at = x.mean(axis=0)
    slope = np.linalg.lstsq(x - at, values - values.mean(), rcond=None)[0]
    residuals = values - values.mean() - (x - at) @ slope
    return Mean(n, float(values.mean() - at @ slope), float(residuals @ residuals) / (n - k - 1) / n), slope

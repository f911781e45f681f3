"""Welch's test of two means, with Fieller's interval of their ratio: one statistic, so p and intervals agree.

Fieller's interval (Journal of the Royal Statistical Society B 16, 1954) contains the ratios r for which mean 1 - r x
mean 0 does not differ significantly from zero; at r = 1 that is Welch's test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit


@dataclass(frozen=True, slots=True)
class Mean:
    """An arm's mean over n users and the variance of that mean (the squared standard error)."""

    n: int
    mean: float
    variance: float


def ratio_t(one: Mean, zero: Mean, ratio: float, *, covariance: float = 0.0) -> float:
    """Student's t of the hypothesis mean 1 = ratio x mean 0 (Fieller 1954). NaN where the variance is 0."""
    variance = one.variance - 2 * ratio * covariance + ratio**2 * zero.variance
    return (one.mean - ratio * zero.mean) / math.sqrt(variance) if variance > 0 else math.nan


def degrees_of_freedom(one: Mean, zero: Mean) -> float:
    """Degrees of freedom of the difference (Welch, Biometrika 34, 1947; Satterthwaite, Biometrics Bulletin 2, 1946)."""
    share = one.variance / (one.variance + zero.variance)
    return 1 / (share**2 / (one.n - 1) + (1 - share) ** 2 / (zero.n - 1))


def critical(one: Mean, zero: Mean, alpha: float) -> float:
    """Critical value: the t beyond which a two-sided test at `alpha` rejects."""
    return -float(stdtrit(degrees_of_freedom(one, zero), alpha / 2))


def tail(one: Mean, zero: Mean, t: float) -> float:
    """One-sided p-value: the probability of a t above this one under the hypothesis."""
    return float(stdtr(degrees_of_freedom(one, zero), -t))


def fieller(one: Mean, zero: Mean, critical: float, *, covariance: float = 0.0) -> tuple[float, float] | None:
    """Confidence interval of the ratio mean 1 / mean 0 by Fieller's theorem (1954) at the `critical` value of t.

    None where mean 0 may be zero or the interval is unbounded.
    """
    square = critical * critical  # infinite at a tiny alpha with few users; ** would raise OverflowError
    a = zero.mean**2 - square * zero.variance
    if zero.mean <= 0 or not a > 0:
        return None
    b = zero.mean * one.mean - square * covariance
    c = one.mean**2 - square * one.variance
    root = math.sqrt(max(b * b - a * c, 0.0))
    low, high = (b - root) / a, (b + root) / a
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None

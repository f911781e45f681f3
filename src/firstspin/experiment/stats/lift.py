"""Lift of an arm over the control: difference, relative lift and p-value, all from one statistic.

A 95% interval therefore excludes "no difference" exactly when p is below 5%, for the difference and for the relative
lift, and swapping the arms mirrors the interval. Click rates use the score test (`proportions`), all other metrics
Welch's test with Fieller's interval (`means`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np
from scipy.special import ndtr

from firstspin.experiment.stats.means import Mean, critical, fieller, ratio_t, tail
from firstspin.experiment.stats.proportions import TwoByTwo, difference_interval, ratio_interval, ratio_z, table

NO_USERS: Final = "an arm has no users"
ZERO_DIVISOR: Final = "the denominators of an arm add up to 0"
NEGATIVE_DIVISOR: Final = "the denominators of an arm add up to less than 0"
ONE_USER: Final = "an arm has a single user: its variance is unknown"
NO_SPREAD: Final = "in each arm all users have the same value: the variance is 0"
ZERO_CONTROL: Final = "the control's mean is 0 or not shown to be above 0: the relative lift is undefined"


@dataclass(frozen=True, slots=True)
class Clicks:
    """The counts of one arm of a binary metric: n users, of whom `clicked` have the value 1."""

    n: int
    clicked: int


@dataclass(frozen=True, slots=True)
class ClickRates:
    """Both arms of a binary metric."""

    control: Clicks
    treatment: Clicks


@dataclass(frozen=True, slots=True)
class Means:
    """Both arms' means; `covariance` is that of the two estimates, not 0 where a regression adjustment ties them.

    `undefined` is the reason why an arm with users has no mean; empty otherwise.
    """

    control: Mean
    treatment: Mean
    covariance: float = 0.0
    undefined: str = ""


Comparison = ClickRates | Means


class Estimate(msgspec.Struct, frozen=True):
    """A value with its confidence interval. A part that can't be estimated is None, and `reason` says why."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""


class Lift(msgspec.Struct, frozen=True):
    """An arm compared with the control. `alpha` is the level of the test; the intervals have confidence 1 - alpha.

    `relative` is a fraction: 0.087 is 8.7% more than the control.
    """

    method: Literal["score", "welch"]
    alpha: float
    control: float | None
    treatment: float | None
    difference: Estimate
    relative: Estimate
    p_value: float | None


class NonInferiority(msgspec.Struct, frozen=True):
    """Whether an arm is shown to lose less than `margin` of the control's mean (one-sided test at `alpha`).

    `bound` is the lower confidence bound of the relative lift: a larger loss is ruled out. Non-inferiority is shown
    where it lies above -margin.
    """

    margin: float
    alpha: float
    bound: float | None
    p_value: float | None
    shown: bool
    reason: str = ""


def lift(comparison: Comparison, *, alpha: float = 0.05) -> Lift:
    """The treatment compared with the control, two-sided at level `alpha`.

    Click rates: score test and intervals of Miettinen and Nurminen (Statistics in Medicine 4, 1985). Means: Welch's
    test, with Fieller's interval of the ratio (Journal of the Royal Statistical Society B 16, 1954).
    """
    return (
        _lift_of_clicks(comparison, alpha) if isinstance(comparison, ClickRates) else _lift_of_means(comparison, alpha)
    )


def p_value(comparison: Comparison) -> float | None:
    """The two-sided p-value of `lift`, without its intervals, which take longer; None where it has none."""
    if isinstance(comparison, ClickRates):
        if not (comparison.control.n and comparison.treatment.n):
            return None
        return 2 * float(ndtr(-np.abs(ratio_z(_table(comparison), np.asarray(1.0)))))
    if _untestable_reason(comparison):
        return None
    return 2 * tail(comparison.treatment, comparison.control, abs(ratio_statistic(comparison, 1.0)))


def significant(lift: Lift) -> bool:
    """Whether the p-value is at most the lift's `alpha`; False where there is no p-value."""
    return lift.p_value is not None and lift.p_value <= lift.alpha


def non_inferiority(comparison: Comparison, *, margin: float, alpha: float = 0.05) -> NonInferiority:
    """Test that the treatment loses less than `margin`, a fraction of the control's mean.

    Bound and p-value come from the statistic of `lift`.
    """
    relative = lift(comparison, alpha=2 * alpha).relative
    if relative.low is None:
        return NonInferiority(margin, alpha, None, None, False, relative.reason)
    p = _one_sided_p(comparison, 1 - margin)
    return NonInferiority(margin, alpha, relative.low, p, p <= alpha)


def _one_sided_p(comparison: Comparison, ratio: float) -> float:
    """The one-sided p-value under the hypothesis that the treatment's mean is `ratio` times the control's."""
    if isinstance(comparison, ClickRates):
        return float(ndtr(-ratio_statistic(comparison, ratio)))
    return tail(comparison.treatment, comparison.control, ratio_statistic(comparison, ratio))


def ratio_statistic(comparison: Comparison, ratio: float, *, spread_as_observed: bool = False) -> float:
    """The z or t of the hypothesis that the treatment's mean is `ratio` times the control's; NaN without one.

    `spread_as_observed` is that of `ratio_z`, for clicks; a t has the observed spread anyway.
    """
    if isinstance(comparison, ClickRates):
        return float(ratio_z(_table(comparison), np.asarray(ratio), spread_as_observed=spread_as_observed))
    return ratio_t(comparison.treatment, comparison.control, ratio, covariance=comparison.covariance)


def _lift_of_clicks(rates: ClickRates, alpha: float) -> Lift:
    control, treatment = (arm.clicked / arm.n if arm.n else None for arm in (rates.control, rates.treatment))
    if control is None or treatment is None:
        return Lift("score", alpha, control, treatment, Estimate(reason=NO_USERS), Estimate(reason=NO_USERS), None)
    counts = _table(rates)
    low, high = (float(end) for end in difference_interval(counts, alpha))
    difference, relative = Estimate(treatment - control, low, high), _relative_of_clicks(counts, alpha)
    return Lift("score", alpha, control, treatment, difference, relative, p_value(rates))


def _relative_of_clicks(counts: TwoByTwo, alpha: float) -> Estimate:
    low, high = (float(end) for end in ratio_interval(counts, alpha))
    if counts.clicked_control == 0:
        return Estimate(low=low - 1, reason=ZERO_CONTROL)
    return Estimate(
        float(counts.clicked * counts.n_control / (counts.n * counts.clicked_control)) - 1, low - 1, high - 1
    )


def _table(rates: ClickRates) -> TwoByTwo:
    return table(rates.treatment.clicked, rates.treatment.n, rates.control.clicked, rates.control.n)


def _lift_of_means(means: Means, alpha: float) -> Lift:
    control, treatment = (arm.mean if arm.n else None for arm in (means.control, means.treatment))
    gain = treatment - control if control is not None and treatment is not None else None
    ratio = treatment / control - 1 if control is not None and treatment is not None and control > 0 else None
    reason = _untestable_reason(means)
    if gain is None or reason:
        undefined = Estimate(gain, reason=reason), Estimate(ratio, reason=reason)
        return Lift("welch", alpha, control, treatment, *undefined, None)
    critical_t = critical(means.treatment, means.control, alpha)
    half = critical_t * math.sqrt(_variance(means))
    ends = fieller(means.treatment, means.control, critical_t, covariance=means.covariance)
    relative = Estimate(ratio, ends[0] - 1, ends[1] - 1) if ends else Estimate(ratio, reason=ZERO_CONTROL)
    difference = Estimate(gain, gain - half, gain + half)
    return Lift("welch", alpha, control, treatment, difference, relative, p_value(means))


def _variance(means: Means) -> float:
    return means.treatment.variance - 2 * means.covariance + means.control.variance


def _untestable_reason(means: Means) -> str:
    min_users = min(means.control.n, means.treatment.n)
    if min_users < 2:
        return means.undefined or (ONE_USER if min_users else NO_USERS)
    return "" if _variance(means) > 0 else NO_SPREAD

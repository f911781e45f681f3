"""Score test of two proportions (Miettinen and Nurminen, Statistics in Medicine 4, 1985).

The rates are estimated under the hypothesis, so the test is defined at 0 and at n clicks of n. All functions are
vectorised over arrays of tables. (statsmodels 0.15 has the test too, but returns NaN for a control without clicks, and
its interval of the difference solves another equation: its issue 10269.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import elementwise
from scipy.special import ndtri

Numbers = NDArray[np.float64]

_MAX_LOG_RATIO: Final = 35.0  # bound of the root search, natural logarithm
_EDGE: Final = 1e-15


class TwoByTwo(NamedTuple):
    """A two-by-two table: `clicked` of `n` users in each arm; arrays (m,) have one test per entry."""

    clicked: Numbers
    n: Numbers
    clicked_control: Numbers
    n_control: Numbers


def table(clicked: object, n: object, clicked_control: object, n_control: object) -> TwoByTwo:
    """The table of these counts (numbers or arrays), broadcast to float arrays of one shape."""
    return TwoByTwo(
        *np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (clicked, n, clicked_control, n_control)))
    )


def ratio_z(table: TwoByTwo, ratio: Numbers, *, spread_as_observed: bool = False) -> Numbers:
    """Score statistic of the hypothesis rate = ratio x control's rate (Miettinen and Nurminen 1985).

    Standard normal under the hypothesis; falls as `ratio` (m,) grows; 0 without evidence. Table and result have the
    shape of `ratio`. `spread_as_observed`: the treatment's users vary at least as its observed rate says, so that its
    first few users without a click, of an expected fraction of one, are no large z.
    """
    clicked1, n1, clicked0, n0 = table
    clicked, n = clicked1 + clicked0, n1 + n0
    up, down = ratio * (n1 + clicked0), n0 + clicked1
    # The smaller root of the likelihood's quadratic, in the form without catastrophic cancellation.
    root = np.sqrt((up - down) ** 2 + 4 * ratio * (n1 - clicked1) * (n0 - clicked0))
    rate0 = 2 * clicked / (up + down + root)
    rate1 = np.minimum(rate0 * ratio, 1)
    spread1 = rate1 * (1 - rate1)
    if spread_as_observed:
        spread1 = np.maximum(spread1, clicked1 / n1 * (1 - clicked1 / n1))
    variance = spread1 / n1 + ratio**2 * rate0 * (1 - rate0) / n0
    return _standardised(clicked1 / n1 - ratio * clicked0 / n0, variance, n)


def difference_z(table: TwoByTwo, difference: Numbers) -> Numbers:
    """Score statistic of the hypothesis rate = control's rate + difference (Miettinen and Nurminen 1985).

    Standard normal under the hypothesis; falls as `difference` (m,) grows. Table and result have its shape.
    """
    clicked1, n1, clicked0, n0 = table
    # Rates near 1 lose precision to rounding: where most users clicked, the test counts those who did not.
    flipped = 2 * (clicked1 + clicked0) > n1 + n0
    counted = TwoByTwo(np.where(flipped, n1 - clicked1, clicked1), n1, np.where(flipped, n0 - clicked0, clicked0), n0)
    gap = np.where(flipped, -difference, difference)
    rate0 = _control_rate_at(counted, gap)
    rate1 = rate0 + gap
    variance = rate1 * (1 - rate1) / n1 + rate0 * (1 - rate0) / n0
    return _standardised(clicked1 / n1 - clicked0 / n0 - difference, variance, n1 + n0)


def ratio_interval(table: TwoByTwo, alpha: float) -> tuple[Numbers, Numbers]:
    """Confidence interval of the ratio of the rates: the ratios that `ratio_z` does not reject, two-sided at `alpha`.

    The lower end is 0 where the treatment has no clicks, the upper end infinite where the control has none. Both ends
    have the table's shape (m,).
    """
    clicked1, n1, clicked0, n0 = table
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.log(clicked1 * n0 / (clicked0 * n1))
    observed = np.nan_to_num(observed, posinf=_MAX_LOG_RATIO, neginf=-_MAX_LOG_RATIO)

    def z(log_ratio: Numbers, table: TwoByTwo) -> Numbers:
        return ratio_z(table, np.exp(log_ratio))

    low, high = np.exp(_not_rejected(z, table, observed, _MAX_LOG_RATIO, alpha))
    return np.where(clicked1 == 0, 0.0, low), np.where(clicked0 == 0, np.inf, high)


def difference_interval(table: TwoByTwo, alpha: float) -> tuple[Numbers, Numbers]:
    """Confidence interval of the difference: the differences that `difference_z` does not reject, two-sided at `alpha`.

    Both ends have the table's shape (m,) and lie within [-1, 1]. Accuracy is 1e-6 near -1 and 1 (one arm all clicks,
    the other none) and far better elsewhere.
    """
    observed = table.clicked / table.n - table.clicked_control / table.n_control

    def z(difference: Numbers, table: TwoByTwo) -> Numbers:
        return difference_z(table, difference)

    low, high = _not_rejected(z, table, observed, 1 - _EDGE, alpha)
    return np.where(observed == -1, -1.0, low), np.where(observed == 1, 1.0, high)


def _control_rate_at(table: TwoByTwo, difference: Numbers) -> Numbers:
    """Maximum-likelihood rate of the control at this difference: the middle root of Miettinen and Nurminen's cubic."""
    clicked1, n1, clicked0, n0 = table
    clicked, n = clicked1 + clicked0, n1 + n0
    l2 = ((n1 + 2 * n0) * difference - n - clicked) / (3 * n)
    l1 = ((n0 * difference - n - 2 * clicked0) * difference + clicked) / n
    l0 = clicked0 * difference * (1 - difference) / n
    q = l2**3 - l2 * l1 / 2 + l0 / 2
    p = np.where(q < 0, -1.0, 1.0) * np.sqrt(np.maximum(l2**2 - l1 / 3, 0))
    cosine = np.divide(q, p**3, out=np.ones_like(q), where=p != 0)
    rate = 2 * p * np.cos((np.pi + np.arccos(np.clip(cosine, -1, 1))) / 3) - l2
    for _ in range(4):  # Newton steps: arccos near 1 is accurate to 1e-8 only, too coarse for rare clicks
        slope = (3 * rate + 6 * l2) * rate + l1
        value = ((rate + 3 * l2) * rate + l1) * rate + l0
        rate = rate - np.divide(value, slope, out=np.zeros_like(value), where=slope != 0)
    rate = np.clip(rate, np.maximum(0, -difference), np.minimum(1, 1 - difference))
    return np.where(difference == 0, clicked / n, rate)


def _standardised(distance: Numbers, variance: Numbers, n: Numbers) -> Numbers:
    # n / (n - 1) is the paper's correction; without it the test of equality is the pooled z-test.
    error = np.sqrt(np.maximum(variance, 0) * n / np.maximum(n - 1, 1))
    certain = np.where(distance == 0, 0.0, np.copysign(np.inf, distance))
    return np.divide(distance, error, out=certain, where=error > 0)


def _not_rejected(
    z: Callable[[Numbers, TwoByTwo], Numbers], table: TwoByTwo, observed: Numbers, edge: float, alpha: float
) -> Numbers:
    """Both ends (2, m) of what z does not reject at `alpha`: its roots between -edge, the observed value and edge.

    An end that does not exist is meaningless; the callers replace it.
    """
    edges, quantile = np.full_like(observed, edge), float(ndtri(alpha / 2))
    levels = np.reshape([-quantile, quantile], (2, *(1 for _ in np.shape(observed))))

    def beyond(x: Numbers, level: Numbers, *counts: Numbers) -> Numbers:
        return np.clip(z(x, TwoByTwo(*counts)), -1e9, 1e9) - level

    brackets = np.stack([-edges, observed]), np.stack([observed, edges])
    # one search for both: a single table's search is all overhead
    root = elementwise.find_root(beyond, brackets, args=(levels, *table), tolerances={"xrtol": 1e-12, "xatol": 1e-15})
    return np.asarray(root.x, dtype=np.float64)

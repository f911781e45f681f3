"""Two click rates compared by the score test (Miettinen and Nurminen, Statistics in Medicine 4, 1985).

The rates are estimated under the hypothesis itself, so nobody clicking, or everybody, still has an answer. All is
vectorised: a table may hold numbers or arrays. (statsmodels 0.15 has the test too, but answers NaN when nobody in the
control clicked, and its interval of the difference solves another equation: its issue 10269.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import elementwise
from scipy.special import ndtri

Numbers = NDArray[np.float64]

_FARTHEST: Final = 35.0  # the natural logarithm of the largest ratio looked for
_EDGE: Final = 1e-15


class TwoByTwo(NamedTuple):
    """Two by two: of `n` users `clicked` did, and the same of the control. Arrays hold a test in each place."""

    clicked: Numbers
    n: Numbers
    clicked_control: Numbers
    n_control: Numbers


def table(clicked: object, n: object, clicked_control: object, n_control: object) -> TwoByTwo:
    """The table of these counts, numbers or arrays, as arrays of floats of one shape."""
    return TwoByTwo(
        *np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (clicked, n, clicked_control, n_control)))
    )


def ratio_z(table: TwoByTwo, ratio: Numbers) -> Numbers:
    """Standard normal where rate = ratio x control's rate holds; falls as `ratio` grows; 0 without evidence."""
    clicked1, n1, clicked0, n0 = table
    clicked, n = clicked1 + clicked0, n1 + n0
    up, down = ratio * (n1 + clicked0), n0 + clicked1
    # The smaller root of the likelihood's quadratic, written without the difference of near equals.
    root = np.sqrt((up - down) ** 2 + 4 * ratio * (n1 - clicked1) * (n0 - clicked0))
    rate0 = 2 * clicked / (up + down + root)
    rate1 = np.minimum(rate0 * ratio, 1)
    variance = rate1 * (1 - rate1) / n1 + ratio**2 * rate0 * (1 - rate0) / n0
    return _standardised(clicked1 / n1 - ratio * clicked0 / n0, variance, n)


def difference_z(table: TwoByTwo, difference: Numbers) -> Numbers:
    """Standard normal where rate = control's rate + difference holds; falls as `difference` grows."""
    clicked1, n1, clicked0, n0 = table
    # Small rates are exact where large ones are rounded: when most clicked, count those who didn't.
    most = 2 * (clicked1 + clicked0) > n1 + n0
    counted = TwoByTwo(np.where(most, n1 - clicked1, clicked1), n1, np.where(most, n0 - clicked0, clicked0), n0)
    gap = np.where(most, -difference, difference)
    rate0 = _control_rate_at(counted, gap)
    rate1 = rate0 + gap
    variance = rate1 * (1 - rate1) / n1 + rate0 * (1 - rate0) / n0
    return _standardised(clicked1 / n1 - clicked0 / n0 - difference, variance, n1 + n0)


def ratio_interval(table: TwoByTwo, alpha: float) -> tuple[Numbers, Numbers]:
    """The ratios of the rates that `ratio_z` does not reject at `alpha`, two-sided.

    From 0 where nobody clicked, up to infinity where nobody in the control did.
    """
    clicked1, n1, clicked0, n0 = table
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.nan_to_num(np.log(clicked1 * n0 / (clicked0 * n1)), posinf=_FARTHEST, neginf=-_FARTHEST)

    def z(log_ratio: Numbers, table: TwoByTwo) -> Numbers:
        return ratio_z(table, np.exp(log_ratio))

    farthest = np.full_like(observed, _FARTHEST)
    low = np.exp(_where_z_is(-float(ndtri(alpha / 2)), z, -farthest, observed, table))
    high = np.exp(_where_z_is(float(ndtri(alpha / 2)), z, observed, farthest, table))
    return np.where(clicked1 == 0, 0.0, low), np.where(clicked0 == 0, np.inf, high)


def difference_interval(table: TwoByTwo, alpha: float) -> tuple[Numbers, Numbers]:
    """The differences of the rates that `difference_z` does not reject at `alpha`, two-sided; within [-1, 1].

    Good to a millionth close to -1 and 1, where one arm is all yes and the other all no, and far better elsewhere.
    """
    observed = table.clicked / table.n - table.clicked_control / table.n_control

    def z(difference: Numbers, table: TwoByTwo) -> Numbers:
        return difference_z(table, difference)

    edge = np.full_like(observed, 1 - _EDGE)
    low = _where_z_is(-float(ndtri(alpha / 2)), z, -edge, observed, table)
    high = _where_z_is(float(ndtri(alpha / 2)), z, observed, edge, table)
    return np.where(observed == -1, -1.0, low), np.where(observed == 1, 1.0, high)


def _control_rate_at(table: TwoByTwo, difference: Numbers) -> Numbers:
    """The control's most likely rate where the other is larger by `difference`: the middle root of a cubic."""
    clicked1, n1, clicked0, n0 = table
    clicked, n = clicked1 + clicked0, n1 + n0
    l2 = ((n1 + 2 * n0) * difference - n - clicked) / (3 * n)
    l1 = ((n0 * difference - n - 2 * clicked0) * difference + clicked) / n
    l0 = clicked0 * difference * (1 - difference) / n
    q = l2**3 - l2 * l1 / 2 + l0 / 2
    p = np.where(q < 0, -1.0, 1.0) * np.sqrt(np.maximum(l2**2 - l1 / 3, 0))
    cosine = np.divide(q, p**3, out=np.ones_like(q), where=p != 0)
    rate = 2 * p * np.cos((np.pi + np.arccos(np.clip(cosine, -1, 1))) / 3) - l2
    for _ in range(4):  # Newton: the arc cosine of almost 1 is good to 1e-8 only, too coarse for rare clicks
        slope = (3 * rate + 6 * l2) * rate + l1
        value = ((rate + 3 * l2) * rate + l1) * rate + l0
        rate = rate - np.divide(value, slope, out=np.zeros_like(value), where=slope != 0)
    rate = np.clip(rate, np.maximum(0, -difference), np.minimum(1, 1 - difference))
    return np.where(difference == 0, clicked / n, rate)


def _standardised(distance: Numbers, variance: Numbers, n: Numbers) -> Numbers:
    # n / (n - 1): the paper's correction; without it the test at equality is the pooled z.
    error = np.sqrt(np.maximum(variance, 0) * n / np.maximum(n - 1, 1))
    certain = np.where(distance == 0, 0.0, np.copysign(np.inf, distance))
    return np.divide(distance, error, out=certain, where=error > 0)


def _where_z_is(
    level: float, z: Callable[[Numbers, TwoByTwo], Numbers], start: Numbers, end: Numbers, table: TwoByTwo
) -> Numbers:
    """The root of z = level between start and end; meaningless where the caller knows that there is none."""

    def beyond(x: Numbers, *counts: Numbers) -> Numbers:
        return np.clip(z(x, TwoByTwo(*counts)), -1e9, 1e9) - level

    found = elementwise.find_root(beyond, (start, end), args=table, tolerances={"xrtol": 1e-12, "xatol": 1e-15})
    return np.asarray(found.x, dtype=np.float64)

"""Whether each arm has the users its weight promised. When not, something else chose who is counted: no winner then."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from scipy.special import gammaln
from scipy.stats import chisquare

# One look at the end: sound experiments are stopped one time in a hundred.
ALPHA: Final = 0.01
# The e-value may be looked at after every user and still cries wolf less than one time in a thousand.
ALARM_AT: Final = 1000.0
# How near the promised shares the alternative expects the true ones: within about five points, at an even split.
_CONCENTRATION: Final = 100.0


class SampleRatio(msgspec.Struct, frozen=True):
    """Users by arm beside those expected; `sound` is what every winner needs.

    `p_value` is of the chi-square test of the final counts. `log10_e_value` is the largest seen at any look, the
    evidence against the promised split: 3 is a thousand to one, whenever it was reached.
    """

    users: dict[str, int]
    expected: dict[str, float]
    chi_square: float | None
    p_value: float | None
    log10_e_value: float | None
    sound: bool
    reason: str = ""


def sample_ratio(
    looks: Sequence[Mapping[str, int]], weights: Mapping[str, float], *, final: bool = True, alpha: float = ALPHA
) -> SampleRatio:
    """Check the arms' counts against their weights; a look maps each arm to its users so far.

    All looks are judged by the sequential e-value; the last also by chi-square at `alpha`, but only when it is `final`:
    a test made for one look cries wolf when read every day.
    """
    total_weight = math.fsum(weights.values())
    shares = {arm: weight / total_weight for arm, weight in weights.items()}
    users = {arm: looks[-1].get(arm, 0) for arm in shares} if looks else dict.fromkeys(shares, 0)
    n = sum(users.values())
    expected = {arm: n * share for arm, share in shares.items()}
    if n == 0:
        return SampleRatio(users, expected, None, None, None, False, "no users")
    fixed = chisquare(list(users.values()), list(expected.values()))
    evidence = max(log_e_value([look.get(arm, 0) for arm in shares], list(shares.values())) for look in looks)
    p, log10_e = float(fixed.pvalue), evidence / math.log(10)
    uneven = final and p < alpha
    sound = not uneven and log10_e < math.log10(ALARM_AT)
    reason = "" if sound else _why(uneven, p, alpha, log10_e)
    return SampleRatio(users, expected, float(fixed.statistic), p, log10_e, sound, reason)


def log_e_value(counts: Sequence[int], shares: Sequence[float]) -> float:
    """The logarithm of how much better a split drawn near these shares explains the counts than the shares themselves.

    Under the promised split it is an e-process: the chance that it ever exceeds log x is at most 1 / x (Lindon and
    Malek, Anytime-Valid Inference for Multinomial Count Data, NeurIPS 2022; Ville's inequality).
    """
    c, prior = np.asarray(counts, dtype=np.float64), _CONCENTRATION * np.asarray(shares, dtype=np.float64)
    mixture = gammaln(prior.sum()) - gammaln(prior.sum() + c.sum()) + (gammaln(prior + c) - gammaln(prior)).sum()
    return float(mixture - (c * np.log(shares)).sum())


def _why(uneven: bool, p: float, alpha: float, log10_e: float) -> str:
    if uneven:
        return f"so uneven a split has p = {p:.2g}, below {alpha:g}"
    return f"at one look the evidence against the promised split was 10^{log10_e:.1f} to one"

"""Sample-ratio check: users per arm against the arms' weights. A mismatch means biased counting, so no winner."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from scipy.special import gammaln
from scipy.stats import chisquare

ALPHA: Final = 0.01  # of the chi-square test at the end: the false-alarm rate of sound experiments
ALARM_AT: Final = 1000.0  # threshold of the e-value: false alarms below 1 in 1,000, however often it is read
# Of the alternative's Dirichlet prior: shares within about five points of the planned ones, at an even split.
_CONCENTRATION: Final = 100.0


class SampleRatio(msgspec.Struct, frozen=True):
    """Observed and expected users per arm; a winner is declared only where `sound`.

    `p_value` is that of the chi-square test of the final counts. `log10_e_value` is the maximum over all interim
    analyses, the evidence against the planned split: 3 is a thousand to one, whenever it was reached.
    """

    users: dict[str, int]
    expected: dict[str, float]
    chi_square: float | None
    p_value: float | None
    log10_e_value: float | None
    sound: bool
    reason: str = ""


def sample_ratio(
    interims: Sequence[Mapping[str, int]], weights: Mapping[str, float], *, final: bool = True
) -> SampleRatio:
    """Test the arms' counts against their weights; each interim analysis maps an arm to its users so far.

    The sequential e-value tests every interim analysis. Chi-square at ALPHA tests the last one, only where it is
    `final`: a fixed-sample test produces false alarms when read every day.
    """
    total_weight = math.fsum(weights.values())
    shares = {arm: weight / total_weight for arm, weight in weights.items()}
    users = {arm: interims[-1].get(arm, 0) for arm in shares} if interims else dict.fromkeys(shares, 0)
    n = sum(users.values())
    expected = {arm: n * share for arm, share in shares.items()}
    if n == 0:
        return SampleRatio(users, expected, None, None, None, False, "no users")
    fixed = chisquare(list(users.values()), list(expected.values()))
    evidence = max(log_e_value([counts.get(arm, 0) for arm in shares], list(shares.values())) for counts in interims)
    p, log10_e = float(fixed.pvalue), evidence / math.log(10)
    uneven = final and p < ALPHA
    sound = not uneven and log10_e < math.log10(ALARM_AT)
    reason = "" if sound else _mismatch(uneven, p, log10_e)
    return SampleRatio(users, expected, float(fixed.statistic), p, log10_e, sound, reason)


def log_e_value(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Natural logarithm of the Bayes factor of a Dirichlet mixture around `shares` against the shares themselves.

    Under the planned split it is an e-process: by Ville's inequality the probability that it ever exceeds log x is at
    most 1 / x (Lindon and Malek, Anytime-Valid Inference for Multinomial Count Data, NeurIPS 2022).
    """
    c, prior = np.asarray(counts, dtype=np.float64), _CONCENTRATION * np.asarray(shares, dtype=np.float64)
    mixture = gammaln(prior.sum()) - gammaln(prior.sum() + c.sum()) + (gammaln(prior + c) - gammaln(prior)).sum()
    return float(mixture - (c * np.log(shares)).sum())


def _mismatch(uneven: bool, p: float, log10_e: float) -> str:
    if uneven:
        return f"the chi-square test of the split has p = {p:.2g}, below {ALPHA:g}"
    return f"the evidence against the planned split reached 10^{log10_e:.1f} to one at an interim analysis"

"""Ranking and calibration metrics per user: functions of the rank of the true genre and its probability."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Positions = NDArray[np.int64]

SEEN_SHARE: Final = "share of these people that it was trained on"
"""Key of the protocol of a bundle's evaluation."""


class RankingMetric(StrEnum):
    """The metrics of every scorecard, by name."""

    HIT_1 = "hit@1"
    HIT_3 = "hit@3"
    HIT_5 = "hit@5"
    NDCG_5 = "ndcg@5"
    LOG_LOSS = "log_loss"

    @property
    def lower_is_better(self) -> bool:
        """Whether it measures an error."""
        return self is RankingMetric.LOG_LOSS


BINS: Final = 10
"""Of a reliability diagram."""
MARGIN: Final = 0.05
"""Default non-inferiority margin of the promotion gate: a loss of up to so much of the champion's value is accepted."""

HEADLINE: Final = RankingMetric.HIT_3.value

MIN_PROBABILITY = 1e-6
"""Floor of a probability in log loss, for genres the model does not know."""

AT_ONCE = 4_000_000
"""Numbers that the bootstrap holds in memory at a time."""


def hit(positions: Positions, k: int) -> Array:
    """(n,) 1 where the true genre is among the first k. `positions` (n,): rank from 0, or -1 for a genre not ranked.

    >>> hit(np.array([0, 2, 3, -1]), 3).tolist()
    [1.0, 1.0, 0.0, 0.0]
    """
    return ((positions >= 0) & (positions < k)).astype(np.float64)


def ndcg(positions: Positions, k: int) -> Array:
    """(n,) normalised discounted cumulative gain of one relevant genre: 1 / log2(position + 2) in the first k, or 0.

    Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, ACM TOIS 20(4), 2002.

    >>> ndcg(np.array([0, 2, 5]), 5).round(3).tolist()
    [1.0, 0.5, 0.0]
    """
    within = hit(positions, k)
    return within / np.log2(np.where(within > 0, positions, 0) + 2.0)


def log_loss(p: Array) -> Array:
    """(n,) -log of the probability (n,) of the true genre, floored at MIN_PROBABILITY.

    >>> log_loss(np.array([1.0, 0.5])).round(3).tolist()
    [-0.0, 0.693]
    """
    return -np.log(np.maximum(p, MIN_PROBABILITY))


def calibration(p: Array, hits: Array) -> list[dict[str, float]]:
    """Reliability diagram: users in bins of equal size by their probability `p` (n,).

    Per bin: the mean probability (`chance`), the share of hits with its 95% Wilson interval, and the count. Perfectly
    calibrated probabilities have both means equal.
    """
    diagram = []
    for part in _equal_parts(p):
        low, high = wilson(float(hits[part].sum()), len(part))
        diagram.append(
            {
                "chance": float(p[part].mean()),
                "hit_rate": float(hits[part].mean()),
                "low": low,
                "high": high,
                "people": len(part),
            }
        )
    return diagram


def expected_calibration_error(p: Array, hits: Array) -> float:
    """Mean distance between probability `p` (n,) and share of `hits` (n,), over bins of equal size.

    Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015.
    """
    return sum(abs(float((p[part] - hits[part]).sum())) for part in _equal_parts(p)) / len(p)


def calibration_noise(p: Array, rng: np.random.Generator, draws: int = 200) -> tuple[float, float]:
    """The 95% range of `expected_calibration_error` under perfect calibration, simulated for probabilities `p` (n,).

    The error is never negative, so any sample shows some; an error inside this range is sampling noise.
    """
    parts = _equal_parts(p)
    errors = np.zeros(draws)
    for i in range(draws):
        excess = p - (rng.random(len(p)) < p)
        errors[i] = sum(abs(float(excess[part].sum())) for part in parts) / len(p)
    return interval(errors)


def wilson(hits: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95% interval of a share (Wilson, Probable inference, JASA 22, 1927): within 0 and 1 even for small n.

    >>> [round(end, 3) for end in wilson(0, 10)]
    [0.0, 0.278]
    """
    share, spread = hits / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * float(np.sqrt(share * (1 - share) / n + spread / (4 * n)))
    return max(0.0, middle - half), min(1.0, middle + half)


def _equal_parts(p: Array) -> list[NDArray[np.int64]]:
    """Positions, ascending by probability, in bins of equal size."""
    ascending = np.argsort(p, kind="stable")
    return [part for part in np.array_split(ascending, BINS) if len(part)]


def paired_bootstrap(values: Array, resamples: int, rng: np.random.Generator, at_once: int = AT_ONCE) -> Array:
    """(resamples, m) means of the columns of `values` (n, m) over bootstrap resamples of the n users.

    All columns share the resamples, so differences between columns are paired (Efron and Tibshirani, An Introduction to
    the Bootstrap, 1993, chapter 8). Memory: about `at_once` numbers beside `values`.
    """
    n = len(values)
    means = np.empty((resamples, values.shape[1]))
    block = max(1, at_once // n)
    times_drawn = np.empty((min(block, resamples), n))
    for start in range(0, resamples, block):
        some = times_drawn[: resamples - start]
        for row in some:
            row[:] = np.bincount(rng.integers(0, n, size=n), minlength=n)
        means[start : start + len(some)] = some @ values
    return means / n


def interval(resampled: Array, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of `resampled` (resamples,), without values that are not finite (a lift over zero)."""
    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return (float("nan"), float("nan"))
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)

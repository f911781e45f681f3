"""Fits how much early listens are worth: held-out users' listens before the label window, against their top genre."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin.data.labels.early_listens import EarlyListens
from firstspin.models.evidence.scoring import OWN_SHARE, EvidenceSettings
from firstspin.models.predictor import Array, log_probabilities
from firstspin.models.task import mean_log_loss

Indexes = NDArray[np.int64]

PRIOR: Final = 1_000.0
"""The prior of P(h | g) is worth so many listens."""

SECONDS: Final = 300.0
"""Saturation of the listens that P(h | g) is counted from."""

PREFIXES: Final = (1, 2, 3, 5, 10, 20, 200)
"""The parameters are fitted on the first so many listens of each user, drawn at random: requests come at any time."""

MIN_USERS: Final = 60
"""With fewer held-out users who have early listens, the defaults are used."""

_BOUNDS: Final = ((1e-3, 4.0), (-2.0, 7.0), (1.0, 9.0), (0.0, 2.0))


@dataclass(frozen=True, slots=True)
class HeldOut:
    """n users with honest predictions: `scores` (n, k), top genres `tops` (n,), and their early listens."""

    scores: Array
    tops: Indexes
    early: EarlyListens

    def take(self, which: Indexes) -> HeldOut:
        """The users at positions `which` (m,), ascending."""
        return HeldOut(self.scores[which], self.tops[which], self.early.take(which))


def log_ratios(early: EarlyListens, tops: Indexes, k: int) -> Array:
    """(k, k) log(P(h | g) / P(h)): a row for each genre h listened to, a column for each top genre g.

    `tops` (n,) of the users that `early` is about. The base rates P(h) are those of listens and of top genres, so that
    without early listens the ratios are those of the prior.
    """
    counted = np.zeros((k, k))
    np.add.at(counted, (early.genres, tops[early.users]), 1.0 - np.exp(-early.seconds / SECONDS))
    popularity = np.bincount(tops, minlength=k) + 0.5
    base = counted.sum(axis=1) + popularity / popularity.sum()
    base /= base.sum()
    prior = OWN_SHARE * np.eye(k) + (1.0 - OWN_SHARE) * base[:, None]
    ratios: Array = np.log((counted + PRIOR * prior) / (counted.sum(axis=0) + PRIOR) / base[:, None])
    return ratios


def moved(scores: Array, early: EarlyListens, ratios: Array, settings: EvidenceSettings) -> Array:
    """(n, k) `scores` (n, k) moved by the early listens of the n users, as `Evidence.moves` does one by one."""
    n, k = scores.shape
    counts = (1.0 - np.exp(-early.seconds / settings.saturation)) * np.where(early.picked, settings.picked, 1.0)
    by_genre = np.bincount(early.users * k + early.genres, counts, n * k).reshape(n, k)
    scale = settings.weight / (1.0 + by_genre.sum(axis=1) / settings.strength)
    after: Array = scores + scale[:, None] * (by_genre @ ratios)
    return after


def fit_settings(users: HeldOut, ratios: Array, rng: np.random.Generator) -> EvidenceSettings:
    """The parameters with the lowest log loss; no weight where listens lower it by less than a standard error.

    The gain is cross-fitted and paired by user. `ratios` (k, k) as of `log_ratios`. The defaults where fewer than
    MIN_USERS users have early listens.
    """
    listened = np.unique(users.early.users)
    if len(listened) < MIN_USERS:
        return EvidenceSettings()
    some = users.take(listened)
    lengths = rng.choice(PREFIXES, len(listened))
    some = replace(some, early=some.early.first(lengths))
    half = rng.permutation(len(listened)) % 2
    gains = np.zeros((len(listened), 2))
    for part in (0, 1):
        train, test = (some.take(np.flatnonzero((half == part) == there)) for there in (False, True))
        for at, scores in enumerate((test.scores, moved(test.scores, test.early, ratios, _best(train, ratios)))):
            gains[half == part, at] = -log_probabilities(scores)[np.arange(len(test.tops)), test.tops]
    without, with_listens = (round(float(loss), 6) for loss in gains.mean(axis=0))
    gain = gains[:, 0] - gains[:, 1]
    is_shown = gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain))
    settings = _best(some, ratios)
    return msgspec.structs.replace(
        settings,
        weight=settings.weight if is_shown else 0.0,
        users=len(listened),
        log_loss_without=without,
        log_loss=with_listens,
    )


def _best(users: HeldOut, ratios: Array) -> EvidenceSettings:
    from scipy.optimize import minimize

    def settings(at: Array) -> EvidenceSettings:
        return EvidenceSettings(float(at[0]), float(np.exp(at[1])), float(np.exp(at[2])), float(at[3]))

    def loss(at: Array) -> float:
        return mean_log_loss(moved(users.scores, users.early, ratios, settings(at)), users.tops)

    default = EvidenceSettings()
    solution = minimize(
        loss,
        np.array([default.weight, np.log(default.strength), np.log(default.saturation), default.picked]),
        bounds=list(_BOUNDS),
    )
    return settings(np.round(solution.x, 4))

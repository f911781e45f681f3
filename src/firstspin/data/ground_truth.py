"""The ground truth of a simulated service: P(top genre | answers given) of every user, hence the Bayes-optimal hit@k.

No model that reads the registration can exceed this optimum: withheld answers do not enter the probabilities, since the
simulation draws the top genre from exactly them (docs/world.md).
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.data.labels.early_listens import EarlyListens
from firstspin.records import InputError, Registration, normal

TRUTH: Final = "truth.npz"
RARE: Final = 1e-300
"""The probability of an impossible listen, which then is certain evidence."""


@dataclass(frozen=True, slots=True)
class FirstMonth:
    """How the simulation draws the genre of an early listen.

    The later top genre with probability `loyalty`; else one of the picks, if any, with probability `tries`; else a
    genre of the `front_page` (k,).
    """

    loyalty: float
    tries: float
    front_page: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """`probabilities` (n, k): P(top genre | answers given) of each of the k `genres` for each user.

    `first_month`: None in the files of earlier versions.
    """

    genres: tuple[str, ...]
    probabilities: NDArray[np.float64]
    first_month: FirstMonth | None = None

    def take(self, which: NDArray[np.int64]) -> GroundTruth:
        """The users at the positions `which` (m,), in this order."""
        return replace(self, probabilities=self.probabilities[which])

    def after(self, early: EarlyListens, genres: Sequence[str], registrations: Sequence[Registration]) -> GroundTruth:
        """P(top genre | answers, early listens) of the n users of these `registrations`, by Bayes' theorem.

        The genres of `early` are positions in `genres`. A listen to h multiplies the odds of h by
        1 + loyalty / ((1 - loyalty) q), with q the probability of h for a user with another top genre. Raises
        ValueError where the file of this truth does not tell of the first month.
        """
        if self.first_month is None:
            raise ValueError("the truth has no first month")
        month, index = self.first_month, {genre: i for i, genre in enumerate(self.genres)}
        picked = np.zeros_like(self.probabilities)
        for row, registration in enumerate(registrations):
            picked[row, [index[pick] for pick in map(normal, registration.genres) if pick in index]] = 1.0
        counts = picked.sum(axis=1, keepdims=True)
        tries = np.where(counts > 0, month.tries, 0.0)
        others = tries * picked / np.maximum(counts, 1.0) + (1.0 - tries) * month.front_page
        heard = np.array([index.get(genre, -1) for genre in genres])[early.genres]
        users, heard = early.users[heard >= 0], heard[heard >= 0]
        odds = month.loyalty / (1.0 - month.loyalty) / np.maximum(others[users, heard], RARE)
        weights = np.log(self.probabilities)
        np.add.at(weights, (users, heard), np.log1p(odds))
        posterior = np.exp(weights - weights.max(axis=1, keepdims=True))
        return replace(self, probabilities=posterior / posterior.sum(axis=1, keepdims=True))

    def expected_hits(self, genres: Sequence[str], shown: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) probability that the top genre is shown, where `shown` (n, s) are positions in `genres`, -1 for none."""
        index = {genre: i for i, genre in enumerate(self.genres)}
        column = np.array([*(index.get(genre, len(self.genres)) for genre in genres), len(self.genres)])
        with_none = np.pad(self.probabilities, ((0, 0), (0, 1)))
        hits: NDArray[np.float64] = np.take_along_axis(with_none, column[shown], axis=1).sum(axis=1)
        return hits

    def best_hits(self, k: int) -> NDArray[np.float64]:
        """(n,) hit@k of the optimal ranking given the answers: the sum of the k largest true probabilities."""
        best: NDArray[np.float64] = np.partition(self.probabilities, -k, axis=1)[:, -k:].sum(axis=1)
        return best


def read_ground_truth(data: Path, user_ids: Sequence[str]) -> GroundTruth | None:
    """The ground truth of these users, in their order; None where the tables have no such file (a real service).

    Raises InputError where the file can't be read or lacks one of the users.
    """
    path = data / TRUTH
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            users, genres, probabilities = arrays["user_id"], arrays["genres"], arrays["p"]
            months = [arrays[name] for name in ("early_loyalty", "early_tries", "front_page") if name in arrays]
            first_month = FirstMonth(float(months[0]), float(months[1]), months[2]) if months else None
    except (OSError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile) as problem:
        raise InputError(f"{path} is not the ground truth of a simulated service ({problem})") from problem
    row = {user: i for i, user in enumerate(users.tolist())}
    rows = [row.get(user, -1) for user in user_ids]
    if -1 in rows:
        raise InputError(f"{path} has no user {user_ids[rows.index(-1)]!r}: it belongs to other tables")
    return GroundTruth(tuple(genres.tolist()), probabilities[rows], first_month)

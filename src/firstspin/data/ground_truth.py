"""The ground truth of a simulated service: P(top genre | answers given) of every user, hence the Bayes-optimal hit@k.

No model that reads the registration can exceed this optimum: withheld answers do not enter the probabilities, since the
simulation draws the top genre from exactly them (docs/world.md).
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.records import InputError

TRUTH: Final = "truth.npz"


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """`probabilities` (n, k): P(top genre | answers given) of each of the k `genres` for each user."""

    genres: tuple[str, ...]
    probabilities: NDArray[np.float64]

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
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as problem:
        raise InputError(f"{path} is not the ground truth of a simulated service ({problem})") from problem
    row = {user: i for i, user in enumerate(users.tolist())}
    rows = [row.get(user, -1) for user in user_ids]
    if -1 in rows:
        raise InputError(f"{path} has no user {user_ids[rows.index(-1)]!r}: it belongs to other tables")
    return GroundTruth(tuple(genres.tolist()), probabilities[rows])

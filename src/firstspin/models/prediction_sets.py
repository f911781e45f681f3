"""Conformal prediction sets: how many of the first genres contain a user's favourite with a probability of 90%.

Split-conformal prediction with the adaptive score of Romano, Sesia and Candès, Classification with valid and adaptive
coverage, NeurIPS 2020, without its randomisation. The score of a held-out user is the probability of the genres that
the model ranks before the true one. The threshold is the ceil((n + 1) level)-th smallest score of n users. A set is
the first genres, up to and with the one at which their probability exceeds the threshold, so no set is empty.

The set of a user who is exchangeable with the held-out ones contains the favourite with at least this probability,
however bad the model is, and with at most 1 / (n + 1) more where no two scores are equal.

Scores are whole millionths, the unit that probabilities are rounded to, so that training and serving agree exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Annotated, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin.records import Rows

Millionths = NDArray[np.int32]

LEVEL: Final = 0.9
UNRANKED: Final = 2**31 - 1
"""The score of a true genre that the model does not rank: no set contains it."""
_MILLION: Final = 1_000_000


class PredictionSets(msgspec.Struct, frozen=True):
    """The sets of one model: `level` is the probability that they guarantee, `threshold` is in millionths."""

    level: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    threshold: Annotated[int, msgspec.Meta(ge=0, le=2 * _MILLION)]

    def rows(self, probabilities: Sequence[float]) -> Rows:
        """The number of the first genres that contain the favourite; `probabilities` (k,) are best first."""
        before, count = 0, 0
        for probability in probabilities:
            if before > self.threshold:
                break
            before += round(probability * _MILLION)
            count += 1
        return Rows(count, self.level)


def calibrated(truth_before: Millionths, level: float = LEVEL) -> PredictionSets | None:
    """The sets whose coverage is at least `level`, from the scores (n,) of held-out users.

    None where n is too small for this level, or the model does not rank the favourites of too many users.

    >>> calibrated(np.arange(0, 190_000, 10_000, dtype=np.int32))  # the 18th smallest of 19
    PredictionSets(level=0.9, threshold=170000)
    """
    place = ceil(round((len(truth_before) + 1) * level, 9))
    if place > len(truth_before):
        return None
    threshold = int(np.partition(truth_before, place - 1)[place - 1])
    return None if threshold == UNRANKED else PredictionSets(level, threshold)


def mass_before(probabilities: NDArray[np.float64]) -> Millionths:
    """(n, k) probability of the genres before each one; `probabilities` (n, k) are best first."""
    millionths = np.rint(probabilities * _MILLION).astype(np.int32)
    return np.cumsum(millionths, axis=1, dtype=np.int32) - millionths

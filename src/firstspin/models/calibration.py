"""Calibration of hit@k on the hold-out: how often answers with a given probability of the first k genres were right.

The probability that the first k genres contain the favourite is the sum of their probabilities. Held-out users are
counted in bins of that sum, 0.05 wide, by predictor (model or rule) and band of the number of picks. Neighbouring bins
are merged until each has `MIN_BIN` users, so a bin identifies no one and its share of hits has a known error.

Probabilities are whole millionths, so sums do not depend on the order of the users.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Predicted = Literal["model", "rule"]

TOPS: Final = (1, 3, 5)
PLACES: Final = 20
MILLION: Final = 1_000_000
MIN_BIN: Final = 50
ALL: Final = "all"
"""The band of all users, for bands with fewer than `MIN_BIN` of them."""


class CalibrationBin(msgspec.Struct, frozen=True, array_like=True):
    """Held-out users whose probability of the first `top` genres is in the places [first, next bin's first).

    `millionths` is the sum of their probabilities, `hits` how many have their favourite among the first `top` genres.
    `refit` is the share of the bundle's training users that the hold-out is, where the model was trained on it later.
    """

    predicted: Predicted
    picks: str
    top: int
    first: int
    users: int
    millionths: int
    hits: int
    refit: float = 0.0

    @property
    def excess(self) -> float:
        """Mean probability minus share of hits."""
        return (self.millionths / MILLION - self.hits) / self.users

    @property
    def variance(self) -> float:
        """The sampling variance of `excess` as an estimate for the bundle's model.

        A model that was trained on the hold-out too has taken up its share `refit` of the hold-out's sampling error
        already. Subtracting the excess takes it up again, so the error is 1 + `refit` times that of the hold-out.

        The hold-out's own is that of a binomial share with one hit and one miss added, so that it is never 0 (Agresti
        and Coull, The American Statistician 52, 1998).
        """
        share = (self.hits + 1) / (self.users + 2)
        return (1 + self.refit) ** 2 * share * (1 - share) / self.users


class HoldOutCalibration(msgspec.Struct, frozen=True):
    """The bins of all predictors, bands and k, ascending by place."""

    bins: tuple[CalibrationBin, ...]

    def by_kind(self) -> dict[tuple[str, str, int], list[CalibrationBin]]:
        """The bins of each (predictor, band, k), ascending by place."""
        kinds: dict[tuple[str, str, int], list[CalibrationBin]] = {}
        for one in self.bins:
            kinds.setdefault((one.predicted, one.picks, one.top), []).append(one)
        return kinds


def bin_of(
    kinds: Mapping[tuple[str, str, int], Sequence[CalibrationBin]], predicted: str, picks: str, top: int, place: int
) -> CalibrationBin | None:
    """The bin of a probability's place, of all bands where the band has none; None for an unknown predictor."""
    bins = kinds.get((predicted, picks, top)) or kinds.get((predicted, ALL, top))
    return bins[max(0, bisect_right([one.first for one in bins], place) - 1)] if bins else None


def place_of(millionths: int) -> int:
    """The place, from 0 to 19, of a probability in millionths.

    >>> place_of(0), place_of(50_000), place_of(1_000_000)
    (0, 1, 19)
    """
    return min(millionths * PLACES // MILLION, PLACES - 1)


def places_of(millionths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The `place_of` each probability of (n,) or (n, k), in millionths."""
    return np.minimum(millionths * PLACES // MILLION, PLACES - 1)


def hold_out_bins(
    predicted: Predicted,
    picks: Sequence[str],
    top: int,
    millionths: NDArray[np.int64],
    hits: NDArray[np.bool_],
    refit: float = 0.0,
) -> list[CalibrationBin]:
    """The bins of n held-out users: `picks` (n,) their bands, `millionths` (n,) probabilities, `hits` (n,) outcomes."""
    bands = np.array(picks)
    every = np.ones(len(bands), dtype=bool)
    groups = [(band, bands == band) for band in sorted(set(picks))]
    large = [(band, members) for band, members in groups if members.sum() >= MIN_BIN]
    return [
        CalibrationBin(predicted, band, top, *counts, refit)
        for band, members in [*large, (ALL, every)]
        for counts in _merged(millionths[members], hits[members])
    ]


def _merged(millionths: NDArray[np.int64], hits: NDArray[np.bool_]) -> Iterable[tuple[int, int, int, int]]:
    """First place, users, sum of millionths and hits of each bin of at least MIN_BIN users, or of the only one."""
    places = places_of(millionths)
    bins: list[tuple[int, int, int, int]] = []
    first, users, total, right = 0, 0, 0, 0
    for place in range(PLACES):
        members = places == place
        users += int(members.sum())
        total += int(millionths[members].sum())
        right += int(hits[members].sum())
        if users >= MIN_BIN:
            bins.append((first, users, total, right))
            first, users, total, right = place + 1, 0, 0, 0
    if users and bins:
        begin, *counts = bins.pop()
        bins.append((begin, counts[0] + users, counts[1] + total, counts[2] + right))
    elif users:
        bins.append((0, users, total, right))
    return bins

"""Answers of a model to simulated users whose true probabilities are known, many times over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firstspin.evaluation.cohorts import picks_of
from firstspin.events.answer_counts import AnswerCell, AnswerSum
from firstspin.models.calibration import MILLION, TOPS, HoldOutCalibration, hold_out_bins, place_of
from firstspin.simulation.world import make_world, newcomers

MODEL = "3f2a9c1b"


@dataclass(frozen=True)
class Pool:
    """Users with the bands of their picks, and by k the model's probability of its first k genres, and the true one."""

    picks: NDArray[np.str_]
    millionths: dict[int, NDArray[np.int64]]
    true: dict[int, NDArray[np.float64]]

    def hits(self, top: int, users: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
        return rng.random(len(users)) < self.true[top][users]

    def sums(self, top: int, users: NDArray[np.int64]) -> list[AnswerSum]:
        sums: dict[AnswerCell, list[int]] = {}
        for band, millionths in zip(self.picks[users].tolist(), self.millionths[top][users].tolist(), strict=True):
            cell = AnswerCell(MODEL, "model", "model", band, top, place_of(millionths))
            n_and_total = sums.setdefault(cell, [0, 0])
            n_and_total[0] += 1
            n_and_total[1] += millionths
        return [AnswerSum(cell, n, total) for cell, (n, total) in sums.items()]

    def calibration(
        self, users: NDArray[np.int64], rng: np.random.Generator, tops: tuple[int, ...] = TOPS
    ) -> HoldOutCalibration:
        """The calibration of a hold-out of these users, whose favourites are drawn."""
        bins = (
            hold_out_bins("model", self.picks[users].tolist(), top, self.millionths[top][users], hits)
            for top, hits in self._drawn(users, rng, tops)
        )
        return HoldOutCalibration(tuple(one for of in bins for one in of))

    def _drawn(
        self, users: NDArray[np.int64], rng: np.random.Generator, tops: tuple[int, ...]
    ) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        for top in tops:
            yield top, self.hits(top, users, rng)


def pool(n: int, seed: int, sharpness: float = 1.4) -> Pool:
    """n simulated users; the model knows the true probabilities, and is over-confident by a `sharpness` above 1."""
    people = newcomers(make_world(seed), n, np.random.default_rng(seed))
    believed = people.p**sharpness
    believed /= believed.sum(axis=1, keepdims=True)
    order = np.argsort(-believed, axis=1, kind="stable")
    first = np.cumsum(np.take_along_axis(believed, order, axis=1), axis=1)
    true = np.cumsum(np.take_along_axis(people.p, order, axis=1), axis=1)
    return Pool(
        np.array([picks_of(one) for one in people.registrations]),
        {top: np.minimum(np.rint(first[:, top - 1] * MILLION).astype(np.int64), MILLION) for top in TOPS},
        {top: true[:, top - 1] for top in TOPS},
    )

"""The one grammar of every model: a scorer turns rows into scores, a predictor turns registrations into rankings.

A newcomer gets the same answer to the last bit alone and in any batch. So scorers never use a matrix product (BLAS adds
in an order that depends on the batch): they add up column by column, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from firstspin.models.compiled import compiled_ranked
from firstspin.models.features import Encoder
from firstspin.records import Ranking, Registration, Source

Array = NDArray[np.float64]
State = Mapping[str, NDArray[np.generic] | str]
Ranked = tuple[tuple[str, ...], tuple[float, ...]]

BATCH = 4096


class Scorer(Protocol):
    """What a trained model is at serving time: numpy only, small, and kept as arrays or text."""

    @property
    def kind(self) -> str:
        """Under which name `scorers.load` finds this class again."""

    def scores(self, rows: Array) -> Array:
        """(n, c) rows as the encoder makes them -> (n, k) scores; their softmax are the probabilities."""

    def state(self) -> dict[str, NDArray[np.generic] | str]:
        """All that is needed to build the scorer again."""

    def check(self, columns: int, genres: int) -> None:
        """Raise InputError unless every array fits rows of so many columns and so many genres, and is finite."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """A trained model with all it needs to answer: what the bundle holds and the service serves."""

    encoder: Encoder
    genres: tuple[str, ...]
    scorer: Scorer
    name: str
    made_of: str = ""  # for people: what training chose, as in "0.7 logistic + 0.4 lightgbm"

    def rank(self, registration: Registration, source: Source = "model") -> Ranking:
        """All genres for one newcomer, best first."""
        return self.rank_row(self.encoder.encode(registration), source)

    def rank_row(self, row: Array, source: Source) -> Ranking:
        """All genres for one newcomer whose row (c,) the encoder has made."""
        [(genres, chances)] = self.rank_rows(row[None])
        return Ranking(genres, chances, source)

    def rank_rows(self, rows: Array) -> list[Ranked]:
        """For each of the rows (n, c) all genres, best first, and their probabilities."""
        return ranked(self.scorer.scores(rows), self.genres)

    def rankings(self, registrations: Sequence[Registration], source: Source = "model") -> Iterator[Ranking]:
        """`rank` for many, in order, in a fraction of the time."""
        for start in range(0, len(registrations), BATCH):
            for genres, chances in self.rank_rows(self.encoder.matrix(registrations[start : start + BATCH])):
                yield Ranking(genres, chances, source)

    def scores(self, registrations: Sequence[Registration]) -> Array:
        """(n, k) scores, the columns in the order of `genres`."""
        parts = [
            self.scorer.scores(self.encoder.matrix(registrations[start : start + BATCH]))
            for start in range(0, len(registrations), BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.genres)))

    def probabilities(self, registrations: Sequence[Registration]) -> Array:
        """(n, k) chances that each genre will be the top genre, the columns in the order of `genres`."""
        return probabilities(self.scores(registrations))


def ranked(scores: Array, genres: tuple[str, ...]) -> list[Ranked]:
    """(n, k) scores -> for each row its genres, best first, and their probabilities to six decimals.

    Equal scores keep the order of `genres`. One newcomer's scores are so few that in numpy the calls cost more than
    the work, so this is compiled where a compiler was there at install; the two ways may differ in a probability's
    last bit before it is rounded, as two machines' numpy may, but one machine uses one of them for everything.
    Raises ValueError for a score that is not finite.
    """
    return ranked_by_numpy(scores, genres) if compiled_ranked is None else compiled_ranked(scores, genres)


def ranked_by_numpy(scores: Array, genres: tuple[str, ...]) -> list[Ranked]:
    """`ranked` where nothing was compiled."""
    if not np.isfinite(scores).all():
        raise ValueError("scores: not finite")
    best = order(scores)
    chances = np.take_along_axis(np.round(probabilities(scores), 6), best, axis=1).tolist()
    return [(tuple([genres[i] for i in row]), tuple(of)) for row, of in zip(best.tolist(), chances, strict=True)]


def order(scores: Array) -> NDArray[np.int64]:
    """(n, k) positions of the columns, best first; equal scores keep the order of the columns."""
    return np.argsort(-scores, axis=1, kind="stable")


def probabilities(scores: Array) -> Array:
    """Softmax of every row."""
    grown: Array = np.exp(scores - scores.max(axis=1, keepdims=True))
    grown /= np.add.reduce(grown, axis=1, keepdims=True)
    return grown


def log_probabilities(scores: Array) -> Array:
    """Log of the softmax of every row, exact where the softmax itself would be zero."""
    away: Array = scores - scores.max(axis=1, keepdims=True)
    away -= np.log(np.add.reduce(np.exp(away), axis=1, keepdims=True))
    return away

"""The interface of every model: a scorer turns rows into scores, a predictor turns registrations into rankings.

A registration has the same scores, to the last bit, alone and in any batch. So scorers use no matrix product (BLAS adds
in an order that depends on the batch): they add column by column, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from firstspin.models.coded_rows import rows_of
from firstspin.models.compiled import compiled_ranked, compiled_ranked_into
from firstspin.models.features import Encoder
from firstspin.records import Ranking, Registration, Source

Array = NDArray[np.float64]
State = Mapping[str, NDArray[np.generic] | str]
Ranked = tuple[tuple[str, ...], tuple[float, ...]]
RankedPlaces = tuple[NDArray[np.int32], Array]
Moves = Array | None
"""(k,) what evidence adds to the scores, if anything."""

BATCH = 4096

RULE: Final = "popularity"
"""Name of the business rule among the models: the picks by overall popularity, then the most popular rest."""


def in_words(model: str) -> str:
    """The name of a model as texts and tables have it.

    >>> in_words("popularity"), in_words("logistic")
    ('business rule', 'logistic')
    """
    return "business rule" if model == RULE else model


def members_of(made_of: str) -> str:
    """The members of an ensemble, without its sample of users and tuned settings, which follow a semicolon.

    >>> members_of("0.40 logistic + 0.60 lightgbm; trained on 524,288 random users of 1,000,000")
    '0.40 logistic + 0.60 lightgbm'
    """
    return made_of.partition(";")[0]


class Scorer(Protocol):
    """A trained model at serving time: numpy only, small, and stored as arrays and text."""

    @property
    def kind(self) -> str:
        """The name of this class for `scorers.load`."""

    def scores(self, rows: Array) -> Array:
        """(n, k) scores of encoded rows (n, c); their softmax is the probabilities."""

    def state(self) -> dict[str, NDArray[np.generic] | str]:
        """The arrays, such as weights (m, k), and texts that `scorers.load` builds the scorer from."""

    def check(self, columns: int, genres: int) -> None:
        """Raise InputError unless every array is finite and fits rows of `columns` columns and `genres` genres."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """A trained model with its encoder and its genres: the part of a bundle that ranks."""

    encoder: Encoder
    genres: tuple[str, ...]
    scorer: Scorer
    name: str
    made_of: str = ""  # for people: the ensemble that training chose, as in "0.6 logistic + 0.4 lightgbm"

    def in_words(self) -> str:
        """The members of an ensemble with their weights, or the name of the model."""
        return self.made_of or in_words(self.name)

    def rank(self, registration: Registration, source: Source = "model") -> Ranking:
        """All genres for one registration, best first."""
        return self.rank_row(self.encoder.encode(registration), source)

    def rank_row(self, row: Array, source: Source, moves: Moves = None) -> Ranking:
        """All genres for one encoded registration (c,), best first; `moves` (k,) are added to the scores."""
        scores = self.scorer.scores(row[None])
        [(genres, values)] = ranked(scores if moves is None else scores + moves, self.genres)
        return Ranking(genres, values, source)

    def rank_rows(self, rows: Array, moves: Sequence[Moves] = ()) -> list[Ranked]:
        """The genres of each encoded row (n, c), best first, and their probabilities.

        `moves`: of each row, what its evidence adds to the scores (k,), if it has any.
        """
        scores = self.scorer.scores(rows)
        if any(of_row is not None for of_row in moves):
            scores = scores.copy()  # a scorer may return its own table
            for i, of_row in enumerate(moves):
                if of_row is not None:
                    scores[i] += of_row
        return ranked(scores, self.genres)

    def rank_places(self, rows: Array, k: int) -> RankedPlaces:
        """The first k genres of each encoded row (n, c), as positions in `genres`, and their probabilities."""
        return ranked_places(self.scorer.scores(rows), min(k, len(self.genres)))

    def rankings(self, registrations: Sequence[Registration]) -> Iterator[Ranking]:
        """`rank` for many registrations, in order, in batches."""
        for start in range(0, len(registrations), BATCH):
            for genres, values in self.rank_rows(self.encoder.matrix(registrations[start : start + BATCH])):
                yield Ranking(genres, values, "model")

    def scores(self, registrations: Sequence[Registration]) -> Array:
        """(n, k) scores, the columns in the order of `genres`."""
        parts = [
            self.scorer.scores(rows_of(self.encoder, registrations[start : start + BATCH])[:])
            for start in range(0, len(registrations), BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.genres)))

    def probabilities(self, registrations: Sequence[Registration]) -> Array:
        """(n, k) probabilities of each genre to be the top genre, the columns in the order of `genres`."""
        return probabilities(self.scores(registrations))


def ranked(scores: Array, genres: tuple[str, ...]) -> list[Ranked]:
    """The genres of each row of scores (n, k), best first, and their probabilities to six decimals.

    Equal scores keep the order of `genres`. For a single row the calls into numpy cost more than the work, so this is
    compiled C where a compiler was there at install. C and numpy may differ in the last bit of a probability before
    rounding, as numpy on two machines may; one machine uses one of the two for everything. Raises ValueError where a
    score is not finite.
    """
    return ranked_by_numpy(scores, genres) if compiled_ranked is None else compiled_ranked(scores, genres)


def ranked_places(scores: Array, k: int) -> RankedPlaces:
    """The first k of `ranked`: (n, k) columns of the scores, and (n, k) probabilities, with the same bits.

    Raises ValueError where a score is not finite.
    """
    if compiled_ranked_into is None:
        best, values = _ordered(scores)
        return best[:, :k].astype(np.int32), values[:, :k]
    places, chances = np.empty((len(scores), k), dtype=np.int32), np.empty((len(scores), k))
    compiled_ranked_into(np.ascontiguousarray(scores), places, chances)
    return places, chances


def ranked_by_numpy(scores: Array, genres: tuple[str, ...]) -> list[Ranked]:
    """`ranked` of scores (n, k) in numpy, without a compiler. Raises ValueError where a score is not finite."""
    best, values = _ordered(scores)
    ordered = zip(best.tolist(), values.tolist(), strict=True)
    return [(tuple([genres[i] for i in row]), tuple(of)) for row, of in ordered]


def _ordered(scores: Array) -> tuple[NDArray[np.int64], Array]:
    """(n, k) columns of the scores, best first, and (n, k) their probabilities to six decimals."""
    if not np.isfinite(scores).all():
        raise ValueError("scores: not finite")
    best = order(scores)
    return best, np.take_along_axis(np.round(probabilities(scores), 6), best, axis=1)


def order(scores: Array) -> NDArray[np.int64]:
    """(n, k) positions of the columns of `scores` (n, k), best first; equal scores keep the order of the columns."""
    return np.argsort(-scores, axis=1, kind="stable")


def probabilities(scores: Array) -> Array:
    """(n, k) softmax of every row of `scores` (n, k)."""
    grown: Array = np.exp(scores - scores.max(axis=1, keepdims=True))
    grown /= np.add.reduce(grown, axis=1, keepdims=True)
    return grown


def log_probabilities(scores: Array) -> Array:
    """(n, k) log of the softmax of every row of `scores` (n, k), finite where the softmax itself would be zero."""
    away: Array = scores - scores.max(axis=1, keepdims=True)
    away -= np.log(np.add.reduce(np.exp(away), axis=1, keepdims=True))
    return away

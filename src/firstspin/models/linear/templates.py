"""Templates: patterns of weights that all genres share, so that a few hundred users are enough to learn them.

A linear model has a weight for each pair of a pick and a genre, most of which few users speak for. A template has the
shape of these weights and one coefficient: "an own pick counts", "a pick counts for the genres it is picked with".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.models.coded_rows import parts
from firstspin.models.features import PICKED, RANK
from firstspin.models.popularity import log_popularity
from firstspin.models.predictor import Array
from firstspin.models.task import Indexes, Task

PSEUDOCOUNT: Final = 5.0
MANY_TIMES: Final = 1.5
"""A genre of which a user listens to this many times an equal share counts as listened to."""
ONE_HOT: Final = 0.95
"""Shares of which the largest is above this on average tell of no second genre."""


def templates(task: Task, columns: Indexes) -> Array:
    """(t, m, k) templates of the weights of these m columns: on picks and on their ranks.

    Own pick; own pick x standardised log popularity of the genre; log lift of the co-picks, and of the co-listening
    where listening is shared among genres.
    """
    popularity = log_popularity(task)
    standard = (popularity - popularity.mean()) / (popularity.std() or 1.0)
    patterns = [np.ones((1, len(task.genres))), standard[None]]
    lifts = list(_lifts(task))
    shapes = []
    for kind, name in ((PICKED, "picked"), (RANK, "rank")):
        own = own_cells(task, columns, kind, name)
        shapes += [own * pattern for pattern in patterns]
        shapes += [_placed(task, columns, kind, lift) for lift in lifts]
    return np.array(shapes)


def own_cells(task: Task, columns: Indexes, kind: str, name: str) -> Array:
    """(m, k) 1 where the column is the pick (or its rank) of the genre itself."""
    wanted = {f"{name}={genre}": j for j, genre in enumerate(task.genres)}
    cells = np.zeros((len(columns), len(task.genres)))
    for i, column in enumerate(columns):
        j = wanted.get(task.encoder.columns[column])
        if j is not None and task.encoder.kinds[column] == kind:
            cells[i, j] = 1.0
    return cells


def _lifts(task: Task) -> Iterator[Array]:
    """(p, k) log lifts of genre pairs, a row per pickable genre: of co-picks, then of co-listening."""
    columns = task.encoder.of_kind(PICKED)
    own = own_cells(task, columns, PICKED, "picked") > 0
    picks = (task.rows[part][:, columns] for part in parts(len(task)))
    yield log_lift(((of, of @ own) for of in picks), own)
    if task.shares.max(axis=1).mean() < ONE_HOT:
        heard = ((task.shares[part] > MANY_TIMES / len(task.genres)).astype(float) for part in parts(len(task)))
        yield log_lift(((of @ own.T, of) for of in heard), own)


def log_lift(blocks: Iterable[tuple[Array, Array]], own: NDArray[np.bool_]) -> Array:
    """(p, k) log of observed over expected pairs of genres, shrunk; 0 where `own` (p, k).

    `blocks` of m users: the flags (m, p) and (m, k) of the genres that are paired. The expected numbers are scaled so
    that all pairs of different genres sum to what was observed: users with many picks make all pairs frequent.
    """
    counts = [(first.T @ second, first.sum(axis=0), second.sum(axis=0), len(first)) for first, second in blocks]
    observed, of_first, of_second, users = (sum(part) for part in zip(*counts, strict=True))
    expected = np.outer(of_first, of_second) / max(users, 1)
    scale = observed[~own].sum() / (expected[~own].sum() or 1.0)
    lift: Array = np.log((observed + PSEUDOCOUNT) / (expected * scale + PSEUDOCOUNT))
    return np.where(own, 0.0, lift)


def _placed(task: Task, columns: Indexes, kind: str, lift: Array) -> Array:
    """(m, k) a lift (p, k) in the rows of the columns of this kind, which are in the order of the pickable genres."""
    placed = np.zeros((len(columns), lift.shape[1]))
    placed[np.isin(columns, task.encoder.of_kind(kind))] = lift
    return placed

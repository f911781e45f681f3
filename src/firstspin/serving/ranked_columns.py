"""The answering policy of batch scoring: registrations in columns (Arrow, numpy), ranked by the model in small batches.

What the model does not rank is left to `policy.decide_many`, which gives the same bits for what it does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.data.registrations.coded import CodedRegistrations
from firstspin.data.schema import AGE
from firstspin.models.coded_rows import CodedRows
from firstspin.models.predictor import ranked_places
from firstspin.models.trees.coded_trees import CodedTrees, coded_trees
from firstspin.records import SOURCES
from firstspin.serving.bundle import Bundle
from firstspin.serving.policy import PolicySettings, asks_model, is_below_min, model_source

log = logging.getLogger(__name__)

COLUMN_BATCH: Final = 1024
"""Registrations in columns that are ranked at once: their rows stay in the cache of a core."""


@dataclass(frozen=True, slots=True)
class RankedColumns:
    """What the model ranks of n registrations in columns; the others are for `decide_many`.

    `rows` (m,): their positions, ascending · `known` (m,): whether training saw one of the answers · `places` (m, k):
    genres of the predictor, best first · `probabilities` (m, k).
    """

    rows: NDArray[np.int64]
    known: NDArray[np.bool_]
    places: NDArray[np.int32]
    probabilities: NDArray[np.float64]

    @property
    def sources(self) -> NDArray[np.int8]:
        """(m,) the source of each, as a position in SOURCES."""
        popular, model = (SOURCES.index(model_source(known)) for known in (False, True))
        return np.where(self.known, np.int8(model), np.int8(popular))


def rank_columns(registrations: CodedRegistrations, bundle: Bundle, settings: PolicySettings, k: int) -> RankedColumns:
    """The first k genres of those registrations without listens that `decide_many` gives to the model, the same bits.

    Of a batch for which the model fails, none is ranked here, and none where the settings name more than an age.
    """
    if settings.refuse_under_age or settings.experiment or settings.calibrated_rows:
        return _joined([], min(k, len(bundle.predictor.genres)))
    ages = registrations.answers[AGE]
    under = np.array([is_below_min(age, settings) for age in ages.values], dtype=bool)[ages.codes]
    encoded = CodedRows(bundle.predictor.encoder, registrations)
    try:
        if trees := coded_trees(bundle.predictor.scorer, encoded):
            return _ranked_by_trees(trees, bundle, under, k)
    except Exception as problem:  # as below, where it concerns those of a batch
        _log_slower(bundle.id, "trees", type(problem).__name__)
    parts = []
    for start in range(0, len(registrations), COLUMN_BATCH):
        stop = min(start + COLUMN_BATCH, len(registrations))
        try:
            rows, known = encoded.matched(start, stop)
            asked = asks_model(known, bundle) & ~under[start:stop]
            ranked = bundle.predictor.rank_places(rows if asked.all() else rows[asked], k)
            parts.append(RankedColumns(start + np.flatnonzero(asked), known[asked], *ranked))
        except Exception as problem:  # `decide_many` finds out for whom the model fails
            _log_slower(bundle.id, "columns", type(problem).__name__)
    return _joined(parts, min(k, len(bundle.predictor.genres)))


@lru_cache(maxsize=64)
def _log_slower(bundle: str, what: str, problem: str) -> None:
    """Log, once per bundle, step and kind of problem, that registrations are ranked in a slower way."""
    log.warning("bundle %s ranks more slowly: registrations can't be ranked by %s: %s", bundle, what, problem)


def _ranked_by_trees(trees: CodedTrees, bundle: Bundle, under: NDArray[np.bool_], k: int) -> RankedColumns:
    """`rank_columns` of a model of trees; `under` (n,): who is under the minimum age, and reaches no model."""
    asked = asks_model(trees.known, bundle) & ~under
    if not asked.all():
        trees = trees.take(asked)
    k, rows, parts = min(k, len(bundle.predictor.genres)), np.flatnonzero(asked), []
    for start in range(0, len(rows), COLUMN_BATCH):
        stop = min(start + COLUMN_BATCH, len(rows))
        ranked = ranked_places(trees.scores(start, stop), k)
        parts.append(RankedColumns(rows[start:stop], trees.known[start:stop], *ranked))
    return _joined(parts, k)


def _joined(parts: Sequence[RankedColumns], k: int) -> RankedColumns:
    none = RankedColumns(np.zeros(0, np.int64), np.zeros(0, bool), np.zeros((0, k), np.int32), np.zeros((0, k)))
    columns = ([getattr(part, name) for part in (none, *parts)] for name in RankedColumns.__slots__)
    return RankedColumns(*map(np.concatenate, columns))

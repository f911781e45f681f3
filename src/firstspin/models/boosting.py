"""LightGBM: many small trees, as many as help people it has not learned from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np

from firstspin.features import CATEGORY, COUNT, NUMBER, RANK
from firstspin.models.bitrows import tables
from firstspin.models.popularity import overall
from firstspin.models.predictor import Scorer
from firstspin.models.scorers import Trees
from firstspin.models.task import Task, folds

COLUMNS = (NUMBER, CATEGORY, RANK, COUNT)
FEW = 60
"""With fewer people no part can be kept aside to tell when to stop."""


@dataclass(frozen=True, slots=True)
class Settings:
    """LightGBM's own words. `rounds`: the most; fewer where a part kept aside stops improving for `patience` rounds."""

    num_leaves: int = 8
    learning_rate: float = 0.1
    min_data_in_leaf: int = 20
    lambda_l2: float = 1.0
    feature_fraction: float = 0.5
    rounds: int = 400
    patience: int = 15


def boosting(task: Task, settings: Settings | None = None) -> Scorer:
    """Trees for everyone's top genre: the number of rounds is learned from four fifths, the trees then from all."""
    columns = task.encoder.of_kind(*COLUMNS)
    if len(task.genres) < 2 or not len(columns):
        return overall(task)
    settings = settings or settings_for(len(task))
    rounds = _rounds(task, columns, settings)
    booster = lightgbm.train(_words(task, settings), _dataset(task, columns), rounds)
    text = booster.model_to_string()
    return Trees.of(columns, text, tables(text))


def settings_for(people: int) -> Settings:
    """Larger trees where there are people enough to fill their leaves."""
    return Settings() if people < 20_000 else Settings(num_leaves=24, min_data_in_leaf=50, rounds=200, patience=5)


def _rounds(task: Task, columns: np.ndarray[Any, np.dtype[np.int64]], settings: Settings) -> int:
    if len(task) < FEW:
        return min(20, settings.rounds)
    rest, part = next(folds(len(task), 5, task.seed))
    learn, watch = task.take(rest), task.take(part)
    found = lightgbm.train(
        _words(task, settings),
        _dataset(learn, columns),
        settings.rounds,
        valid_sets=[lightgbm.Dataset(watch.rows[:, columns], watch.tops)],
        callbacks=[lightgbm.early_stopping(settings.patience, verbose=False)],
    )
    return max(1, round(int(found.best_iteration) * 1.1))  # a little more for a little more people


def _dataset(task: Task, columns: np.ndarray[Any, np.dtype[np.int64]]) -> lightgbm.Dataset:
    return lightgbm.Dataset(task.rows[:, columns], task.tops)


def _words(task: Task, settings: Settings) -> dict[str, object]:
    return {
        "objective": "multiclass",
        "num_class": len(task.genres),
        "num_leaves": settings.num_leaves,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": min(settings.min_data_in_leaf, max(1, len(task) // 20)),
        "lambda_l2": settings.lambda_l2,
        "feature_fraction": settings.feature_fraction,
        "max_bin": 127,
        "seed": task.seed,
        "num_threads": 1,  # trees this small are no faster on two, and many times slower where a core is shared
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }

"""A random forest: deep trees, each grown on its own sample of the people, that vote with the shares they saw.

Breiman, Random forests, Machine Learning 45, 2001. LightGBM grows the trees, one a genre and sample, so they answer as
fast as boosted ones. Its own forest mode adds up steps that overshoot where a genre is rare; ours adds up shares
(docs/decisions/0010-a-forest-grown-by-lightgbm.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import lightgbm
import numpy as np

from firstspin.models.boosting import Objective, rooted, varied, words
from firstspin.models.popularity import log_popularity, overall
from firstspin.models.predictor import Array, Scorer
from firstspin.models.scorers import Forest
from firstspin.models.task import Task

SAMPLE: Final = 0.632
"""The share of people in a sample drawn with replacement; without it, it needs no weights."""
BENEFIT_OF_DOUBT: Final = 0.02
"""How much of its popularity a genre keeps where no tree has seen it, so that nothing is impossible."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`trees` a genre, each of `num_leaves` with `min_data_in_leaf` people or more.

    Every split looks at a share of the columns, `columns_a_split`. `softness` as for the logistic model.
    """

    trees: int = 100
    num_leaves: int = 64
    min_data_in_leaf: int = 10
    columns_a_split: float = 0.4
    softness: float = 0.5


def forest(task: Task) -> Scorer:
    """The mean of what the trees say of each genre's share."""
    columns = varied(task)
    if len(task.genres) < 2 or not len(columns):
        return overall(task)
    settings = task.chosen(Settings) or settings_for(len(task))
    popularity = np.exp(log_popularity(task))
    chosen = {
        "num_leaves": settings.num_leaves,
        "feature_fraction_bynode": settings.columns_a_split,
        "bagging_freq": 1,
        "bagging_fraction": SAMPLE,
        "learning_rate": 1.0 / settings.trees,
        "min_sum_hessian_in_leaf": 0.0,
    } | words(task, squared_error(task.targets(settings.softness), popularity), settings.min_data_in_leaf)
    grown = lightgbm.train(chosen, lightgbm.Dataset(task.rows[:, columns], task.tops), settings.trees)
    return Forest(rooted(columns, grown, popularity), BENEFIT_OF_DOUBT * popularity)


def settings_for(people: int) -> Settings:
    """Of many people, more in each leaf: fewer trees then say the same."""
    return Settings() if people < 20_000 else Settings(trees=50, min_data_in_leaf=50)


def squared_error(goal: Array, start: Array) -> Objective:
    """Slope and curvature of half the squared distance to `goal` (n, k) at `start` (k,), whatever was grown before.

    So every leaf holds the mean of `goal - start` of its people, and splits are those of least variance (Gini).
    """
    slope, curvature = start - goal, np.ones_like(goal)

    def objective(_scores: Array, _: lightgbm.Dataset) -> tuple[Array, Array]:
        return slope, curvature

    return objective

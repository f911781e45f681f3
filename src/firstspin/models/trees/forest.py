"""A random forest (Breiman, Random forests, Machine Learning 45, 2001), grown by LightGBM.

Each round grows one tree per genre on a bootstrap share of the users; a leaf holds a mean of listening shares. So the
bit rows that score boosted trees score the forest too. LightGBM's own forest mode sums Newton steps, which overshoot
for rare genres (docs/decisions/0010-a-forest-grown-by-lightgbm.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from firstspin.models.popularity import log_popularity, overall
from firstspin.models.predictor import Array, Scorer
from firstspin.models.scorers import Forest
from firstspin.models.task import Task
from firstspin.models.trees.boosting import Objective, matrix, parameters, rooted, varied

SAMPLE: Final = 0.632
"""Expected share of distinct users in a bootstrap sample; drawn without replacement it needs no weights."""
SMOOTHING: Final = 0.02
"""Share of its overall popularity added to every genre, so that no probability is zero."""


if TYPE_CHECKING:
    import lightgbm


@dataclass(frozen=True, slots=True)
class ForestSettings:
    """`trees` per genre, each with at most `num_leaves` leaves of at least `min_data_in_leaf` users.

    `columns_a_split`: share of the columns that each split considers. `soft_label_weight` as for the logistic model.
    """

    trees: int = 100
    num_leaves: int = 64
    min_data_in_leaf: int = 10
    columns_a_split: float = 0.4
    soft_label_weight: float | None = None


def forest(task: Task) -> Scorer:
    """The mean over the trees of each genre's listening share."""
    import lightgbm

    columns = varied(task)
    if len(task.genres) < 2 or not len(columns):
        return overall(task)
    settings = task.chosen(ForestSettings) or settings_for(len(task))
    popularity = np.exp(log_popularity(task))
    chosen = {
        "num_leaves": settings.num_leaves,
        "feature_fraction_bynode": settings.columns_a_split,
        "bagging_freq": 1,
        "bagging_fraction": SAMPLE,
        "learning_rate": 1.0 / settings.trees,
        "min_sum_hessian_in_leaf": 0.0,
    } | parameters(task, squared_error(task.targets(settings.soft_label_weight), popularity), settings.min_data_in_leaf)
    booster = lightgbm.train(chosen, lightgbm.Dataset(matrix(task, columns), task.tops), settings.trees)
    return Forest(rooted(columns, booster, popularity), SMOOTHING * popularity)


def settings_for(people: int) -> ForestSettings:
    """The default settings: fewer trees with larger leaves for many users."""
    return ForestSettings() if people < 20_000 else ForestSettings(trees=50, min_data_in_leaf=50)


def squared_error(target: Array, start: Array) -> Objective:
    """Gradient and Hessian of half the squared error to `target` (n, k) at `start` (k,), the same in every round.

    A leaf then holds the mean of `target - start` of its users, and splits minimise the variance (Gini).
    """
    gradient, hessian = start - target, np.ones_like(target)

    def objective(_scores: Array, _: lightgbm.Dataset) -> tuple[Array, Array]:
        return gradient, hessian

    return objective

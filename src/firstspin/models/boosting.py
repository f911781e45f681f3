"""LightGBM: many small trees, as many as help people they have not learned from.

LightGBM's own multiclass objective knows one right genre a person. Ours is the same cross entropy to any division of
the listening.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import lightgbm
import numpy as np

from firstspin.features import CATEGORY, COUNT, NUMBER, RANK
from firstspin.models.bitrows import tables
from firstspin.models.popularity import log_popularity, overall
from firstspin.models.predictor import Array, Scorer, log_probabilities, probabilities
from firstspin.models.scorers import Trees
from firstspin.models.task import Indexes, Task, folds

Objective = Callable[[Array, lightgbm.Dataset], tuple[Array, Array]]

COLUMNS: Final = (NUMBER, CATEGORY, RANK, COUNT)
FEW: Final = 60
"""With fewer people no part can be kept aside to tell when to stop."""


@dataclass(frozen=True, slots=True)
class Settings:
    """LightGBM's own words. `rounds`: the most; fewer where a part kept aside stops improving for `patience` rounds.

    `softness` as for the logistic model.
    """

    num_leaves: int = 4
    learning_rate: float = 0.1
    min_data_in_leaf: int = 10
    lambda_l2: float = 1.0
    feature_fraction: float = 0.5
    rounds: int = 400
    patience: int = 15
    softness: float = 0.5


def boosting(task: Task) -> Scorer:
    """Trees for everyone's listening: the number of rounds is learned from four fifths, the trees then from all."""
    columns = varied(task)
    if len(task.genres) < 2 or not len(columns):
        return overall(task)
    settings = task.chosen(Settings) or settings_for(len(task))
    rounds = _rounds(task, columns, settings)
    return rooted(columns, _grown(task, columns, settings, rounds), log_popularity(task))


def settings_for(people: int) -> Settings:
    """Longer steps where there are people enough to make up for them."""
    return Settings() if people < 20_000 else Settings(num_leaves=8, learning_rate=0.2, min_data_in_leaf=50, patience=5)


def varied(task: Task) -> Indexes:
    """The columns for trees that tell at least two people apart; LightGBM refuses to learn from none."""
    columns = task.encoder.of_kind(*COLUMNS)
    differ = [len(np.unique(task.rows[:, column])) > 1 for column in columns]
    kept: Indexes = columns[np.array(differ, dtype=bool)]
    return kept


def words(task: Task, objective: Objective, least_people: int) -> dict[str, object]:
    """What all our trees have in common, in LightGBM's words."""
    return {
        "objective": objective,
        "metric": "none",
        "num_class": len(task.genres),
        "min_data_in_leaf": min(least_people, max(1, len(task) // 20)),
        "min_data_in_bin": 1,
        "max_bin": 127,
        "seed": task.seed,
        "num_threads": 1,  # trees this small are no faster on two, and many times slower where a core is shared
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }


def rooted(columns: Indexes, booster: lightgbm.Booster, base: Array) -> Trees:
    """The trees, their first k standing on `base` (k,): so LightGBM's text is the whole model."""
    for number, tree in enumerate(booster.dump_model(num_iteration=1)["tree_info"]):
        for leaf in range(tree["num_leaves"]):
            booster.set_leaf_output(number, leaf, booster.get_leaf_output(number, leaf) + base[number])
    text = booster.model_to_string()
    return Trees.of(columns, text, tables(text))


def soft_cross_entropy(goal: Array) -> Objective:
    """Slope and curvature of the cross entropy to `goal` (n, k), the curvature times k / (k - 1) as LightGBM has it."""
    k = goal.shape[1]

    def objective(scores: Array, _: lightgbm.Dataset) -> tuple[Array, Array]:
        chances = probabilities(scores)
        return chances - goal, k / (k - 1) * chances * (1.0 - chances)

    return objective


def _rounds(task: Task, columns: Indexes, settings: Settings) -> int:
    if len(task) < FEW:
        return min(20, settings.rounds)
    rest, part = next(folds(len(task), 5, task.seed))
    found = _grown(task.take(rest), columns, settings, settings.rounds, watch=task.take(part))
    return max(1, round(int(found.best_iteration) * 1.1))  # a little more for a little more people


def _grown(
    task: Task, columns: Indexes, settings: Settings, rounds: int, watch: Task | None = None
) -> lightgbm.Booster:
    """So many rounds of trees, from overall popularity on; fewer where those who `watch` gain nothing by more."""
    base = log_popularity(task)
    chosen = {
        "num_leaves": settings.num_leaves,
        "learning_rate": settings.learning_rate,
        "lambda_l2": settings.lambda_l2,
        "feature_fraction": settings.feature_fraction,
    } | words(task, soft_cross_entropy(task.targets(settings.softness)), settings.min_data_in_leaf)
    learned = _dataset(task, columns, base)
    if watch is None:
        return lightgbm.train(chosen, learned, rounds)
    goal = watch.targets(settings.softness)

    def loss(scores: Array, _: lightgbm.Dataset) -> tuple[str, float, bool]:
        return "cross entropy", -float((goal * log_probabilities(scores)).sum(axis=1).mean()), False

    stop = lightgbm.early_stopping(settings.patience, verbose=False)
    watching = [_dataset(watch, columns, base)]
    return lightgbm.train(chosen, learned, rounds, valid_sets=watching, feval=loss, callbacks=[stop])


def _dataset(task: Task, columns: Indexes, base: Array) -> lightgbm.Dataset:
    return lightgbm.Dataset(task.rows[:, columns], task.tops, init_score=np.repeat(base, len(task)))

"""LightGBM: gradient-boosted trees of few leaves, early stopping on a hold-out.

LightGBM's multiclass objective takes one true class per row. The objective here is the same cross entropy with soft
labels: any distribution of listening over the genres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from firstspin.models.coded_rows import CodedRows, parts
from firstspin.models.features import CATEGORY, COUNT, NUMBER, RANK
from firstspin.models.popularity import log_popularity, overall
from firstspin.models.predictor import Array, Scorer, log_probabilities, probabilities
from firstspin.models.scorers import TreeScorer
from firstspin.models.task import Indexes, Task, folds
from firstspin.models.trees.bitrows import tables

if TYPE_CHECKING:
    import lightgbm
    from scipy.sparse import csr_matrix

Single = NDArray[np.float32]
Objective = Callable[[Array, "lightgbm.Dataset"], tuple[Array | Single, Array | Single]]

COLUMNS: Final = (NUMBER, CATEGORY, RANK, COUNT)
MANY_USERS: Final = 20_000
BLOCK: Final = 2**12
"""Users whose gradients are computed at a time."""
MIN_FOR_EARLY_STOPPING: Final = 60
"""Below this number of users there is no hold-out for early stopping."""
HOLD_OUT_PART: Final = 5
"""One part in so many is held out for early stopping, then the model is trained again with it."""
MAX_HELD_OUT: Final = 2**16
"""Of more than ten times as many users only so many are held out, and the model is not trained again with them."""


@dataclass(frozen=True, slots=True)
class BoostingSettings:
    """LightGBM's parameters. `rounds`: the maximum; early stopping ends after `patience` rounds without improvement.

    `soft_label_weight` as for the logistic model.
    """

    num_leaves: int = 4
    learning_rate: float = 0.1
    min_data_in_leaf: int = 10
    lambda_l2: float = 1.0
    feature_fraction: float = 0.5
    rounds: int = 400
    patience: int = 15
    soft_label_weight: float | None = None


def boosting(task: Task) -> Scorer:
    """Boosted trees: early stopping on a hold-out of one fifth sets the number of rounds, then all users are used.

    Of more than ten times `MAX_HELD_OUT` users the model that stopped early is the result.
    """
    columns = varied(task)
    if len(task.genres) < 2 or not len(columns):
        return overall(task)
    settings = task.chosen(BoostingSettings) or settings_for(len(task))
    rounds = min(20, settings.rounds)
    if len(task) >= MIN_FOR_EARLY_STOPPING:
        held_out = hold_out_parts(len(task))
        rest, part = next(folds(len(task), held_out, task.seed))
        train, hold_out = (_softened(task.take(which), settings) for which in (rest, part))
        stopped = _grown(train, columns, settings, settings.rounds, hold_out)
        if held_out > HOLD_OUT_PART:
            return rooted(columns, stopped, log_popularity(train))
        rounds = max(1, round(int(stopped.best_iteration) * 1.1))  # the final model trains on a quarter more users
        del train, hold_out, stopped
    return rooted(columns, _grown(_softened(task, settings), columns, settings, rounds), log_popularity(task))


def hold_out_parts(users: int) -> int:
    """One part in so many of n users is held out for early stopping.

    >>> hold_out_parts(500_000), hold_out_parts(5_000_000)
    (5, 77)
    """
    return HOLD_OUT_PART if users <= 10 * MAX_HELD_OUT else -(-users // MAX_HELD_OUT)


def settings_for(people: int) -> BoostingSettings:
    """The default settings: of many users, more and faster rounds of trees that see all columns.

    Of more than ten times `MAX_HELD_OUT` users, trees are larger and leaves shrunk more, which takes fewer rounds.
    """
    if people < MANY_USERS:
        return BoostingSettings()
    many = BoostingSettings(learning_rate=0.2, min_data_in_leaf=50, feature_fraction=1.0, rounds=1500, patience=10)
    if people <= 10 * MAX_HELD_OUT:
        return many
    return replace(many, num_leaves=8, min_data_in_leaf=1000, lambda_l2=100.0)


def varied(task: Task) -> Indexes:
    """(m,) the columns for trees that are not constant. LightGBM refuses to train on none."""
    columns = task.encoder.of_kind(*COLUMNS)
    first, differs = task.rows[:1][:, columns], np.zeros(len(columns), dtype=bool)
    for part in parts(len(task)):
        values = task.rows[part][:, columns]
        differs |= ((values != first) & ~(np.isnan(values) & np.isnan(first))).any(axis=0)
    varying: Indexes = columns[differs]
    return varying


def matrix(task: Task, columns: Indexes) -> Array | csr_matrix:
    """(n, p) the values of these columns, sparse where the task has no array of them: LightGBM bins both."""
    return task.sparse(columns) if isinstance(task.rows, CodedRows) else task.rows[:, columns]


def parameters(task: Task, objective: Objective, min_data_in_leaf: int) -> dict[str, object]:
    """The LightGBM parameters that boosting and forest share."""
    return {
        "objective": objective,
        "metric": "none",
        "num_class": len(task.genres),
        "min_data_in_leaf": min(min_data_in_leaf, max(1, len(task) // 20)),
        "min_data_in_bin": 1,
        "max_bin": 127,
        "seed": task.seed,
        "num_threads": 1,  # trees this small are no faster with two, and many times slower where a core is shared
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }


def rooted(columns: Indexes, booster: lightgbm.Booster, base: Array) -> TreeScorer:
    """The scorer of a booster; `base` (k,) is added to the leaves of the first k trees, so the text is complete."""
    for number, tree in enumerate(booster.dump_model(num_iteration=1)["tree_info"]):
        for leaf in range(tree["num_leaves"]):
            booster.set_leaf_output(number, leaf, booster.get_leaf_output(number, leaf) + base[number])
    text = booster.model_to_string()
    return TreeScorer.of(columns, text, tables(text))


def soft_cross_entropy(target: Array) -> Objective:
    """Gradient and Hessian of the cross entropy to `target` (n, k); the Hessian times k / (k - 1), as in LightGBM.

    They are computed in blocks that stay in the cache, and as LightGBM stores them: numpy's passes over all users cost
    as much as the trees.
    """
    n, k = target.shape
    gradient, hessian = (np.empty((n, k), dtype=np.float32, order="F") for _ in range(2))

    def objective(scores: Array, train_set: lightgbm.Dataset) -> tuple[Single, Single]:
        train_set.init_score = None  # LightGBM has its own copy; this one takes n k doubles
        for part in parts(n, BLOCK):
            p = probabilities(scores[part])
            gradient[part] = p - target[part]
            hessian[part] = k / (k - 1) * p * (1.0 - p)
        return gradient, hessian

    return objective


def _softened(task: Task, settings: BoostingSettings) -> Task:
    """The task with its soft labels in place of the shares, so that many users' are in memory once."""
    return replace(task, shares=task.targets(settings.soft_label_weight))


def _grown(
    task: Task, columns: Indexes, settings: BoostingSettings, rounds: int, hold_out: Task | None = None
) -> lightgbm.Booster:
    """`rounds` rounds of trees, starting from overall popularity; fewer by early stopping on `hold_out`.

    The shares of these tasks are their soft labels.
    """
    import lightgbm

    base = log_popularity(task)
    chosen = {
        "num_leaves": settings.num_leaves,
        "learning_rate": settings.learning_rate,
        "lambda_l2": settings.lambda_l2,
        "feature_fraction": settings.feature_fraction,
    } | parameters(task, soft_cross_entropy(task.shares), settings.min_data_in_leaf)
    train_set = _dataset(task, columns, base)
    if hold_out is None:
        return lightgbm.train(chosen, train_set, rounds)
    target = hold_out.shares

    def loss(scores: Array, _: lightgbm.Dataset) -> tuple[str, float, bool]:
        logs = [(target[part] * log_probabilities(scores[part])).sum(axis=1) for part in parts(len(target), BLOCK)]
        return "cross entropy", -float(np.concatenate(logs).mean()), False

    stop = lightgbm.early_stopping(settings.patience, verbose=False)
    valid_sets = [_dataset(hold_out, columns, base)]
    return lightgbm.train(chosen, train_set, rounds, valid_sets=valid_sets, feval=loss, callbacks=[stop])


def _dataset(task: Task, columns: Indexes, base: Array) -> lightgbm.Dataset:
    import lightgbm

    return lightgbm.Dataset(matrix(task, columns), task.tops, init_score=np.repeat(base, len(task)))

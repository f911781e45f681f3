"""The model to ship: chosen by cross-validation among a logistic model, trees and both together, and never one that
the business rule beats on people it has not learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from scipy.optimize import minimize

from firstspin.models.boosting import boosting
from firstspin.models.logistic import logistic
from firstspin.models.popularity import popularity
from firstspin.models.predictor import Array, Scorer, log_probabilities, order
from firstspin.models.scorers import Blend
from firstspin.models.task import Indexes, Task, folds, log_loss

TRAINERS: Final[Mapping[str, Callable[[Task], Scorer]]] = {
    "popularity": popularity,  # in a team, it pulls the others towards what is safe
    "logistic": logistic,
    "lightgbm": boosting,
}
TEAMS: Final[Sequence[tuple[str, ...]]] = (
    ("popularity", "logistic"),
    ("popularity", "lightgbm"),
    ("popularity", "logistic", "lightgbm"),
)
SHOWN: Final = 3
LEAST: Final = 20
"""With fewer people nothing can be compared: the rule is shipped."""


def auto(task: Task) -> Scorer:
    """The team with the least log loss on people kept aside, its members' weights learned there too; or the rule."""
    if len(task) < LEAST or len(task.genres) < 2:
        return popularity(task)
    aside, seen = _out_of_fold(task)
    tops = task.tops[aside]
    weighed = {team: _weights([seen[name] for name in team], tops) for team in TEAMS}
    mixed = {team: _mixed([seen[name] for name in team], weights) for team, weights in weighed.items()}
    best = min(TEAMS, key=lambda team: log_loss(mixed[team], tops))
    if _hits(mixed[best], tops).mean() <= _hits(seen["popularity"], tops).mean():
        return popularity(task)
    members = tuple(TRAINERS[name](task) for name in best)
    return Blend(members, tuple(weighed[best]))


def _out_of_fold(task: Task) -> tuple[Indexes, dict[str, Array]]:
    """Who was kept aside, and the scores each candidate then gives them; fewer parts where there are many people."""
    parts = list(folds(len(task), 5, task.seed))[: _parts(len(task))]
    found: dict[str, list[Array]] = {name: [] for name in TRAINERS}
    for rest, part in parts:
        learn, watch = task.take(rest), replace(task.take(part), seed=task.seed)
        for name, train in TRAINERS.items():
            found[name].append(train(learn).scores(watch.rows))
    aside = np.concatenate([part for _, part in parts])
    return aside, {name: np.concatenate(scores) for name, scores in found.items()}


def _parts(people: int) -> int:
    return 5 if people < 5_000 else 2 if people < 20_000 else 1


def _weights(scores: Sequence[Array], tops: Indexes) -> list[float]:
    """How much each member counts, so that the log loss is least."""
    logs = [log_probabilities(part) for part in scores]

    def loss(weights: Array) -> float:
        return log_loss(_mixed(logs, weights.tolist()), tops)

    found = minimize(loss, np.full(len(logs), 1 / len(logs)), bounds=[(0, 3)] * len(logs))
    return [float(weight) for weight in np.round(found.x, 3)]


def _mixed(scores: Sequence[Array], weights: Sequence[float]) -> Array:
    total = np.zeros_like(scores[0])
    for part, weight in zip(scores, weights, strict=True):
        total += part * weight
    return total


def _hits(scores: Array, tops: Indexes) -> Array:
    hit: Array = (order(scores)[:, :SHOWN] == tops[:, None]).any(axis=1).astype(np.float64)
    return hit

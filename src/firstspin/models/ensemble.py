"""`auto`: a weighted ensemble fitted on a hold-out, or the business rule where the ensemble does not beat it there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from firstspin.models.linear.logistic import logistic
from firstspin.models.network import network
from firstspin.models.popularity import popularity
from firstspin.models.predictor import RULE, Array, Scorer, log_probabilities
from firstspin.models.scorers import Blend
from firstspin.models.task import Indexes, Task, best_loss, folds, log_losses
from firstspin.models.trees.boosting import boosting

TRAINERS: Final[Mapping[str, Callable[[Task], Scorer]]] = {
    "popularity": popularity,  # shrinks the others towards overall popularity
    "logistic": logistic,
    "lightgbm": boosting,
    "network": network,
}
SMALL: Final = ("popularity", "logistic")
LARGE: Final = tuple(TRAINERS)
SOFT_LABEL_WEIGHTS: Final = (0.5, 1.0)
MAX_USERS: Final = 2**19
"""Of more users a random sample is used. Twice as many would lower log loss by 0.002, extrapolated (docs/scale.md)."""
MIN_USERS: Final = 20
"""Below this number of users no comparison is possible: the rule is shipped."""
GATE_FOLDS: Final = 5
STANDARD_ERRORS: Final = 2.0
MIN_WEIGHT: Final = 0.05
"""Members with a smaller weight are left out of the ensemble."""


def auto(task: Task) -> Scorer:
    """The small ensemble, or the large one where that is significantly better on the hold-out; or the rule.

    The weights form a logarithmic opinion pool (Genest and Zidek, Statistical Science 1, 1986). They need not sum to
    one, so they include the temperature. At most MAX_USERS users are used.
    """
    task = task.sample(MAX_USERS)
    if len(task) < MIN_USERS or len(task.genres) < 2:
        return popularity(task)
    task, parts = with_target(task)
    trained = [{name: each.once(name, train) for name, train in TRAINERS.items()} for each, _ in parts]
    hold_out = np.concatenate([part for _, part in parts])
    scores = {
        name: np.concatenate(
            [each[name].scores(task.rows[part]) for each, (_, part) in zip(trained, parts, strict=True)]
        )
        for name in TRAINERS
    }
    weights = chosen_weights(scores, task.tops[hold_out])
    if not weights:
        return popularity(task)
    # with a single hold-out the training part is large enough: its members are shipped as they are
    members = trained[0] if len(parts) == 1 else {name: task.once(name, TRAINERS[name]) for name in weights}
    return Blend(tuple(members[name] for name in weights), tuple(weights.values()), task.soft_label_weight)


def with_target(task: Task) -> tuple[Task, list[tuple[Task, Indexes]]]:
    """The task with the better soft-label weight, and its splits: the training part and the positions (m,) held out.

    The better one gives the linear model the lower log loss on the hold-out, at the best temperature: trained on
    listening shares alone, a model is too flat.
    """
    splits = [(task.take(rest), part) for rest, part in _parts(task)]
    candidates = {
        weight: [(replace(each, soft_label_weight=weight), part) for each, part in splits]
        for weight in SOFT_LABEL_WEIGHTS
    }
    best = min(candidates, key=lambda weight: _linear_loss(task, candidates[weight]))
    is_own = best == task.soft_label_weight  # then models that were trained on this task are members
    return task if is_own else replace(task, soft_label_weight=best), candidates[best]


def _linear_loss(task: Task, splits: Sequence[tuple[Task, Indexes]]) -> float:
    scores = [each.once("logistic", logistic).scores(task.rows[part]) for each, part in splits]
    return best_loss(np.concatenate(scores), task.tops[np.concatenate([part for _, part in splits])])


def chosen_weights(scores: Mapping[str, Array], tops: Indexes) -> dict[str, float]:
    """The weights of the better ensemble, given each member's hold-out scores (n, k); empty if the rule is best.

    The large ensemble must be better by two standard errors of the paired log loss: between equals the small one is
    safer. The rule is shipped where the ensemble's log loss is not below the rule's, cross-fitted.
    """
    small, large = _weights(scores, SMALL, tops), _weights(scores, LARGE, tops)
    gains = log_losses(_mixed(scores, small), tops) - log_losses(_mixed(scores, large), tops)
    chosen = large if gains.mean() > STANDARD_ERRORS * gains.std() / np.sqrt(len(tops)) else small
    return chosen if _gains(scores, list(chosen), tops).mean() > 0 else {}


def _gains(scores: Mapping[str, Array], members: Sequence[str], tops: Indexes) -> Array:
    """(n,) log loss of the rule minus that of the ensemble, both with weights fitted on other users (cross-fitting)."""
    gains = np.zeros(len(tops))
    for rest, part in folds(len(tops), GATE_FOLDS, 0):
        losses = []
        for names in ((RULE,), members):
            weights = _weights({name: scores[name][rest] for name in names}, names, tops[rest])
            losses.append(log_losses(_mixed({name: scores[name][part] for name in names}, weights), tops[part]))
        gains[part] = losses[0] - losses[1]
    return gains


def _parts(task: Task) -> list[tuple[Indexes, Indexes]]:
    """(train, hold-out) positions: five folds, two for many users, and a single tenth from 20,000 users."""
    if len(task) < 20_000:
        return list(folds(len(task), 5, task.seed))[: 5 if len(task) < 5_000 else 2]
    return list(folds(len(task), 10, task.seed))[:1]


def _weights(scores: Mapping[str, Array], members: Sequence[str], tops: Indexes) -> dict[str, float]:
    """The weights with minimal log loss; members under `MIN_WEIGHT` are left out."""
    from scipy.optimize import minimize

    logs = [log_probabilities(scores[name]) for name in members]

    def loss(weights: Array) -> float:
        return float(log_losses(sum(w * log for w, log in zip(weights, logs, strict=True)), tops).mean())

    solution = minimize(loss, np.full(len(logs), 1 / len(logs)), bounds=[(0, 3)] * len(logs))
    weights = dict(zip(members, np.round(solution.x, 3).tolist(), strict=True))
    remaining = [name for name in members if weights[name] >= MIN_WEIGHT]
    return weights if len(remaining) in (0, len(members)) else _weights(scores, remaining, tops)


def _mixed(scores: Mapping[str, Array], weights: Mapping[str, float]) -> Array:
    total: Array = np.sum([scores[name] * weight for name, weight in weights.items()], axis=0)
    return total

"""The model to ship: a team of models whose parts are learned on people kept aside, and never one that the business
rule beats there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from scipy.optimize import minimize

from firstspin.models.boosting import boosting
from firstspin.models.logistic import logistic
from firstspin.models.network import network
from firstspin.models.popularity import popularity
from firstspin.models.predictor import Array, Scorer, log_probabilities, order
from firstspin.models.scorers import Blend
from firstspin.models.task import Indexes, Task, folds, log_losses

TRAINERS: Final[Mapping[str, Callable[[Task], Scorer]]] = {
    "popularity": popularity,  # in a team, it pulls the others towards what is safe
    "logistic": logistic,
    "lightgbm": boosting,
    "network": network,
}
SMALL: Final = ("popularity", "logistic")
LARGE: Final = tuple(TRAINERS)
SHOWN: Final = 3
LEAST: Final = 20
"""With fewer people nothing can be compared: the rule is shipped."""
CLEARLY: Final = 2.0
WORTH_HAVING: Final = 0.05
"""Whoever counts for less in a team is left out of it."""


def auto(task: Task) -> Scorer:
    """A small team, or a large one where that is clearly better on people kept aside; or the rule.

    Weights are a logarithmic opinion pool's (Genest and Zidek, Statistical Science 1, 1986). They need not sum to one,
    so they settle how bold the probabilities are, too.
    """
    if len(task) < LEAST or len(task.genres) < 2:
        return popularity(task)
    parts = _parts(task)
    trained = [{name: train(task.take(rest)) for name, train in TRAINERS.items()} for rest, _ in parts]
    aside = np.concatenate([part for _, part in parts])
    seen = {
        name: np.concatenate(
            [each[name].scores(task.rows[part]) for each, (_, part) in zip(trained, parts, strict=True)]
        )
        for name in TRAINERS
    }
    weights = chosen_weights(seen, task.tops[aside])
    if not weights:
        return popularity(task)
    # of so many people that one part was kept aside, the others were enough
    members = trained[0] if len(parts) == 1 else {name: TRAINERS[name](task) for name in weights}
    return Blend(tuple(members[name] for name in weights), tuple(weights.values()))


def chosen_weights(seen: Mapping[str, Array], tops: Indexes) -> dict[str, float]:
    """How much each member of the better team counts, given scores of people kept aside; none, if the rule is best.

    The large team must be better by two standard errors, paired over people: between equals the smaller is safer.
    """
    small, large = _weights(seen, SMALL, tops), _weights(seen, LARGE, tops)
    gains = log_losses(_mixed(seen, small), tops) - log_losses(_mixed(seen, large), tops)
    chosen = large if gains.mean() > CLEARLY * gains.std() / np.sqrt(len(tops)) else small
    return chosen if _hits(_mixed(seen, chosen), tops) > _hits(seen["popularity"], tops) else {}


def _parts(task: Task) -> list[tuple[Indexes, Indexes]]:
    """Who learns and who is kept aside, in turns; of many people a tenth, once."""
    if len(task) < 20_000:
        return list(folds(len(task), 5, task.seed))[: 5 if len(task) < 5_000 else 2]
    return list(folds(len(task), 10, task.seed))[:1]


def _weights(seen: Mapping[str, Array], team: Sequence[str], tops: Indexes) -> dict[str, float]:
    """How much each of the team counts, so that the log loss is least; who counts for next to nothing is left out."""
    logs = [log_probabilities(seen[name]) for name in team]

    def loss(weights: Array) -> float:
        return float(log_losses(sum(w * log for w, log in zip(weights, logs, strict=True)), tops).mean())

    found = minimize(loss, np.full(len(logs), 1 / len(logs)), bounds=[(0, 3)] * len(logs))
    weights = dict(zip(team, np.round(found.x, 3).tolist(), strict=True))
    kept = [name for name in team if weights[name] >= WORTH_HAVING]
    return weights if len(kept) in (0, len(team)) else _weights(seen, kept, tops)


def _mixed(seen: Mapping[str, Array], weights: Mapping[str, float]) -> Array:
    total: Array = np.sum([seen[name] * weight for name, weight in weights.items()], axis=0)
    return total


def _hits(scores: Array, tops: Indexes) -> float:
    return float((order(scores)[:, :SHOWN] == tops[:, None]).any(axis=1).mean())

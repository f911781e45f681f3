"""Explanations: the effect of each answer of a registration on the probability of each genre shown.

The effects are Shapley values (L. S. Shapley, A value for n-person games, 1953): the answers are withheld in every
combination, which for a handful of questions is one small batch through the same scorer. So the values are exact for
any model, need no training code, and add up to the joint effect of all answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from typing import Final

import msgspec
import numpy as np

from firstspin.data.schema import LISTENS
from firstspin.models.predictor import Array, Predictor, order, probabilities
from firstspin.records import (
    SHOWN_GENRES,
    InputError,
    Recommendation,
    Registration,
    Source,
    is_answered,
    without_answers,
)
from firstspin.serving.bundle import Bundle
from firstspin.serving.content import recommendation
from firstspin.serving.policy import DEFAULTS, Decision, PolicySettings, decide

MAX_ANSWERS: Final = 8
"""With more answers, the last ones are explained together: 2 to the power of this many subsets are scored."""
MAX_SUBSETS: Final = 2**MAX_ANSWERS
"""Maximum number of registrations that an explanation scores: the measure of its work."""

FURTHER: Final = "further answers"


class Reason(msgspec.Struct, frozen=True):
    """One genre: its probability, the baseline probability with no answers, and the effect of each answer (`moved`).

    `rule` is the probability that the business rule gives it.
    """

    genre: str
    probability: float
    without_answers: float
    moved: dict[str, float]
    rule: float


class Explanation(msgspec.Struct, frozen=True):
    """The reasons of the genres shown, best first, and the answer of the business rule (`rule`) to compare with.

    It has the names of the questions, never the answers.
    """

    model: str
    source: Source
    genres: tuple[Reason, ...]
    rule: Recommendation | None = None


class ModelFailed(InputError):
    """The model failed with this error, so the business rule answers and there is no explanation."""

    def __init__(self, failure: str) -> None:
        super().__init__(f"there is no explanation: the model failed ({failure}), and the rule answers in its place")
        self.failure = failure


def explain(registration: Registration, bundle: Bundle | None, settings: PolicySettings = DEFAULTS) -> Explanation:
    """The explanation of a registration's ranking, for the genres of an answer.

    For each genre, `without_answers` plus the sum of `moved` is its `probability` (each to six decimals). An answer
    that the policy does not use, as an age under the minimum, has no effect and is not named. Listens that moved the
    ranking are one more answer, `listens`. Raises Refusal where the
    settings refuse the registration, and ModelFailed where the rule answers because the model fails.
    """
    asked, decision = registration, decide(registration, None, bundle, None, settings)
    if bundle is None:
        return Explanation(decision.model, decision.source, ())
    if decision.failure:
        raise ModelFailed(decision.failure)
    predictor = bundle.predictor
    if decision.by_rule:
        predictor, registration = bundle.rule, Registration(genres=registration.genres)
    answers = given(registration, dict.fromkeys(predictor.encoder.questions))
    scores = _with_every_subset(predictor, registration, answers)
    moves = bundle.weighed(asked)[1] if decision.moved else None
    if moves is not None:  # the listens are one more player
        answers = [*answers, (LISTENS,)]
        scores = np.concatenate([scores, scores + moves])
    subsets = probabilities(scores)
    moved = shapley_values(subsets)
    first = order(subsets[-1:])[0][:SHOWN_GENRES]
    names = [FURTHER if len(names) > 1 else names[0] for names in answers]
    by_rule = bundle.rule.rank(Registration(genres=registration.genres), "rule")
    of_rule = dict(zip(by_rule.genres, by_rule.probabilities, strict=True))
    reasons = [
        Reason(
            predictor.genres[j],
            _rounded(subsets[-1, j]),
            _rounded(subsets[0, j]),
            {name: _rounded(value) for name, value in zip(names, moved[:, j], strict=True)},
            of_rule.get(predictor.genres[j], 0.0),
        )
        for j in first.tolist()
    ]
    compared = recommendation(asked, Decision(by_rule, bundle.id, True), bundle)
    return Explanation(decision.model, decision.source, tuple(reasons), compared)


def given(registration: Registration, questions: Sequence[str] | dict[str, None]) -> list[tuple[str, ...]]:
    """The answered questions, each alone, the last ones together where there are more than `MAX_ANSWERS`."""
    answered = [name for name in questions if is_answered(registration, name)]
    if len(answered) <= MAX_ANSWERS:
        return [(name,) for name in answered]
    return [*((name,) for name in answered[: MAX_ANSWERS - 1]), tuple(answered[MAX_ANSWERS - 1 :])]


def shapley_values(worth: Array) -> Array:
    """(m, k) Shapley values of m players for k values: the mean marginal contribution over all orders.

    `worth` (2^m, k): the values of each subset of players; player i is in subset number p if bit i of p is set.

    >>> shapley_values(np.array([[0.0], [1.0], [2.0], [5.0]])).tolist()
    [[2.0], [3.0]]
    """
    parts = np.arange(len(worth))
    players = len(worth).bit_length() - 1
    values = np.zeros((players, worth.shape[1]))
    size = np.array([part.bit_count() for part in parts.tolist()])
    weight = np.array([factorial(s) * factorial(players - s - 1) / factorial(players) for s in range(players)])
    for i in range(players):
        without = parts[parts & (1 << i) == 0]
        added = worth[without | (1 << i)] - worth[without]
        values[i] = (weight[size[without]][:, None] * added).sum(axis=0)
    return values


def _with_every_subset(predictor: Predictor, registration: Registration, answers: Sequence[tuple[str, ...]]) -> Array:
    """(2^m, k) scores with each subset of the answers, the empty one first and the full one last.

    Each question has its own columns, so two rows, with all answers and with none, are encoded once and combined.
    """
    encoder = predictor.encoder
    every = encoder.encode(registration)
    none = encoder.encode(without_answers(registration, *(name for names in answers for name in names)))
    of_answer = [np.isin(encoder.questions, names) for names in answers]
    rows = np.tile(none, (1 << len(answers), 1))
    for part, row in enumerate(rows):
        for i, columns in enumerate(of_answer):
            if part >> i & 1:
                row[columns] = every[columns]
    return predictor.scorer.scores(rows)


def _rounded(value: float) -> float:
    return round(float(value), 6)

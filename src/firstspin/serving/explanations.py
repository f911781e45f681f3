"""Why these genres: how much each answer of a newcomer moved the probability of each genre shown.

The shares are Shapley values (L. S. Shapley, A value for n-person games, 1953): the answers are withheld in every
combination, which for a handful of questions is one small batch through the same scorer that answered. So they are
exact, hold for any model, need nothing of what trained it, and add up to what the answers changed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from typing import Final

import msgspec
import numpy as np

from firstspin.models.predictor import Array, Predictor, order, probabilities
from firstspin.records import SHOWN_GENRES, InputError, Registration, Source, is_answered, without_answers
from firstspin.serving.bundle import Bundle
from firstspin.serving.policy import DEFAULTS, PolicySettings, decide

MOST: Final = 8
"""Of a service that asks for more, the last answers are explained together: 2 to the power of this are scored."""
PARTS: Final = 2**MOST
"""How many registrations an explanation scores at most: the measure of its work."""

FURTHER: Final = "further answers"


class Reason(msgspec.Struct, frozen=True):
    """One genre: its probability, its baseline without answers, and what each answer given added to that."""

    genre: str
    probability: float
    without_answers: float
    moved: dict[str, float]


class Explanation(msgspec.Struct, frozen=True):
    """The reasons of the genres shown, best first. It names the questions answered, never the answers."""

    model: str
    source: Source
    genres: tuple[Reason, ...]


class ModelFailed(InputError):
    """There is no explanation: the model failed with this error, and the business rule answers in its place."""

    def __init__(self, failure: str) -> None:
        super().__init__(f"there is no explanation: the model failed ({failure}), and the rule answers in its place")
        self.failure = failure


def explain(
    registration: Registration,
    bundle: Bundle | None,
    settings: PolicySettings = DEFAULTS,
    shown: int = SHOWN_GENRES,
) -> Explanation:
    """Why a registration is answered as it is, for the first `shown` genres.

    Of each genre, `without_answers` and the sum of `moved` make its `probability` (each to six decimals). An answer
    that the policy leaves unused, as an age under the minimum, moves nothing and is not named. Raises Refusal where the
    settings refuse the registration, and ModelFailed where the rule answers because the model fails.
    """
    decision = decide(registration, None, bundle, None, settings)
    if bundle is None:
        return Explanation(decision.model, decision.source, ())
    if decision.failure:
        raise ModelFailed(decision.failure)
    predictor = bundle.predictor
    if decision.by_rule:
        predictor, registration = bundle.rule, Registration(genres=registration.genres)
    answers = given(registration, dict.fromkeys(predictor.encoder.questions))
    chances = _with_every_part(predictor, registration, answers)
    moved = shapley_values(chances)
    first = order(chances[-1:])[0][:shown]
    names = [FURTHER if len(names) > 1 else names[0] for names in answers]
    reasons = [
        Reason(
            predictor.genres[j],
            _rounded(chances[-1, j]),
            _rounded(chances[0, j]),
            {name: _rounded(value) for name, value in zip(names, moved[:, j], strict=True)},
        )
        for j in first.tolist()
    ]
    return Explanation(decision.model, decision.source, tuple(reasons))


def given(registration: Registration, questions: Sequence[str] | dict[str, None]) -> list[tuple[str, ...]]:
    """The questions that were answered, each alone, or the last ones together where they are more than `MOST`."""
    answered = [name for name in questions if is_answered(registration, name)]
    if len(answered) <= MOST:
        return [(name,) for name in answered]
    return [*((name,) for name in answered[: MOST - 1]), tuple(answered[MOST - 1 :])]


def shapley_values(worth: Array) -> Array:
    """(m, k) what each of m players adds to k sums, on average over all orders in which they could come.

    `worth` (2^m, k): the sums with each part of the players; player i is in part number p if bit i of p is set.

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


def _with_every_part(predictor: Predictor, registration: Registration, answers: Sequence[tuple[str, ...]]) -> Array:
    """(2^m, k) chances with each part of the answers given, none of them first and all of them last.

    Each question has columns of its own, so both rows, with all answers and with none, are encoded once and mixed.
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
    return probabilities(predictor.scorer.scores(rows))


def _rounded(value: float) -> float:
    return round(float(value), 6)

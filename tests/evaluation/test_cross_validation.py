"""Models are scored on held-out users only, with the same answers as one by one."""

from __future__ import annotations

from datetime import datetime

import made_people
import numpy as np
import pytest

from firstspin.evaluation import cross_validation
from firstspin.models import registry
from firstspin.models.predictor import Predictor
from firstspin.models.task import Task
from firstspin.records import Examples, InputError


def prepare(users: Examples) -> Task:
    return registry.prepare(users, made_people.GENRES)


def fit(name: str, examples: Examples) -> Predictor:
    return registry.fit(name, prepare(examples))


def silent(step: str, done: float) -> None: ...


def test_every_user_is_held_out_once_and_never_in_the_training_set_then() -> None:
    splits = cross_validation.stratified_folds(np.arange(103) % 7, 5, seed=1)
    assert sorted(np.concatenate([split.hold_out for split in splits]).tolist()) == list(range(103))
    for split in splits:
        assert not set(split.hold_out) & set(split.train)
        assert len(split.hold_out) + len(split.train) == 103


def test_a_split_by_date_learns_only_from_labels_known_by_then() -> None:
    examples = made_people.examples(200)
    split = cross_validation.by_date(examples, datetime(2025, 4, 1), label_days=60)
    assert split.hold_out.tolist() == list(range(90, 200))  # registered from 1 April on
    assert split.train.tolist() == list(range(31))  # registered by 31 January, so known by 1 April


def test_a_split_with_an_empty_side_is_refused() -> None:
    with pytest.raises(InputError, match="0 registered later"):
        cross_validation.by_date(made_people.examples(50), datetime(2026, 1, 1), label_days=60)


def test_outcomes_agree_with_asking_one_by_one() -> None:
    examples = made_people.examples(120)
    predictor = fit("logistic", examples)
    ask = made_people.examples(40, seed=5)
    found = cross_validation.answer(predictor, ask)
    for i, registration in enumerate(ask.registrations):
        ranking = predictor.rank(registration)
        truth = ask.genres[ask.tops[i]]
        assert found.position[i] == ranking.genres.index(truth)
        assert found.probability[i] == pytest.approx(ranking.probabilities[found.position[i]], abs=1e-6)
        assert [ask.genres[j] for j in found.shown[i] if j >= 0] == list(ranking.genres[:5])


def test_a_genre_absent_from_training_is_a_miss() -> None:
    examples = made_people.examples(100)
    without_jazz = Examples(
        examples.user_ids[:50],
        examples.registrations[:50],
        examples.registered_at[:50],
        ("Blues", "Pop"),
        np.arange(50) % 2,
        np.eye(2)[np.arange(50) % 2],
    )
    found = cross_validation.answer(fit("popularity", without_jazz), examples)
    missing = np.isin(examples.tops, [1, 3])
    assert (found.position[missing] == -1).all()
    assert (found.probability[missing] == 0).all()
    assert (found.position[~missing] >= 0).all()


def test_held_out_users_have_the_order_of_their_answers() -> None:
    examples = made_people.examples(60)
    splits = cross_validation.stratified_folds(np.arange(60) % 4, 3, seed=2)
    validated = cross_validation.cross_validate(examples, splits, ["popularity"], prepare, registry.fit, silent)
    found, predictors = validated["popularity"].answers, validated["popularity"].predictors
    asked = cross_validation.held_out(examples, splits)
    for split, start in zip(splits, (0, 20, 40), strict=True):
        alone = cross_validation.answer(fit("popularity", examples.take(split.train)), examples.take(split.hold_out))
        assert found.position[start : start + 20].tolist() == alone.position.tolist()
        again = cross_validation.answer(predictors[start // 20], examples.take(split.hold_out))
        assert again.position.tolist() == alone.position.tolist()
        assert asked.user_ids[start : start + 20] == tuple(examples.user_ids[i] for i in split.hold_out)


def test_side_by_side_or_one_after_the_other_the_outcomes_are_the_same() -> None:
    examples = made_people.examples(90)
    splits = cross_validation.stratified_folds(examples.tops, 3, seed=0)
    names = ["popularity", "logistic", "overall"]
    alone, together = (
        cross_validation.cross_validate(examples, splits, names, prepare, registry.fit, silent, at_once)
        for at_once in (1, 3)
    )
    assert list(alone) == list(together) == names
    for name in names:
        assert alone[name].answers.probability.tobytes() == together[name].answers.probability.tobytes()
        assert alone[name].answers.shown.tobytes() == together[name].answers.shown.tobytes()


def test_progress_rises_to_one() -> None:
    examples = made_people.examples(60)
    told: list[float] = []
    splits, names = cross_validation.stratified_folds(examples.tops, 3, seed=0), ["popularity", "overall"]
    cross_validation.cross_validate(examples, splits, names, prepare, registry.fit, lambda _, done: told.append(done))
    assert told[0] == 0
    assert told[-1] == 1
    assert len(told) == 8


def test_a_model_that_fails_stops_the_rest() -> None:
    examples = made_people.examples(60)
    trained: list[str] = []

    def failing(name: str, task: Task) -> Predictor:
        trained.append(name)
        registry.fit("logistic", task)
        raise InputError(f"no model is called {name!r}")

    with pytest.raises(InputError, match="no model is called"):
        cross_validation.cross_validate(
            examples, cross_validation.stratified_folds(examples.tops, 5, seed=0), ["a"] * 20, prepare, failing, silent
        )
    assert len(trained) < 100


def test_registrations_are_encoded_once_per_split_for_all_models() -> None:
    examples = made_people.examples(60)
    prepared: list[int] = []

    def counted(users: Examples) -> Task:
        prepared.append(len(users))
        return prepare(users)

    splits, names = cross_validation.stratified_folds(examples.tops, 3, seed=0), ["popularity", "overall", "logistic"]
    cross_validation.cross_validate(examples, splits, names, counted, registry.fit, silent)
    assert prepared == [40, 40, 40]

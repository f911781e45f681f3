"""Ablation on hand-made users whose answers determine what they play."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import made_people
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstspin.evaluation import ablation, cross_validation
from firstspin.evaluation.ablation import QuestionValue, Study
from firstspin.evaluation.cross_validation import Split
from firstspin.models import registry
from firstspin.models.features import QUESTIONS
from firstspin.models.predictor import Predictor
from firstspin.models.registry import Learning
from firstspin.models.task import Task, silent
from firstspin.records import Examples, Registration, without_answers

N = 600


def prepare(users: Examples) -> Task:
    return registry.prepare(users, made_people.GENRES)


def fit(examples: Examples, without: tuple[str, ...]) -> Predictor:
    return registry.fit("logistic", registry.prepare(examples, made_people.GENRES, learning=Learning(without=without)))


def study(
    examples: Examples, splits: list[Split], model: str = "logistic", questions: tuple[str, ...] = QUESTIONS
) -> Study:
    full = cross_validation.cross_validate(examples, splits, [model], prepare, registry.fit, silent)[model]
    return ablation.study(examples, splits, model, full, prepare, registry.refit, questions, 0, silent)


@cache
def studied() -> tuple[Study, dict[str, QuestionValue]]:
    """The study of 600 people, and its questions by name."""
    found = study(made_people.examples(N), cross_validation.stratified_folds(made_people.examples(N).tops, 3, seed=0))
    return found, {question.name: question for question in found.questions}


def test_only_questions_with_answers_are_studied() -> None:
    assert list(studied()[1]) == ["age", "country", "genres"]


def test_what_decides_costs_hits_and_what_is_noise_does_not() -> None:
    _, by_name = studied()
    assert by_name["genres"].lost.low > 0
    assert by_name["country"].lost.low <= 0.01
    assert by_name["genres"].lost.value > by_name["country"].lost.value


def test_the_users_who_answered_are_counted() -> None:
    examples = made_people.examples(N)
    _, by_name = studied()
    assert by_name["age"].answered == sum(told.age is not None for told in examples.registrations)
    assert by_name["genres"].answered == sum(bool(told.genres) for told in examples.registrations)


def test_lost_is_the_difference_of_two_trainings() -> None:
    examples = made_people.examples(120)
    split = Split(np.arange(80), np.arange(80, 120))
    found = study(examples, [split])
    learn, ask = examples.take(split.train), examples.take(split.hold_out)
    hits = [np.mean(cross_validation.answer(fit(learn, without), ask).position < 3) for without in ((), ("genres",))]
    genres = next(question for question in found.questions if question.name == "genres")
    assert found.full.value == pytest.approx(hits[0])
    assert genres.lost.value == pytest.approx(hits[0] - hits[1])


def test_changed_rankings_are_counted_as_by_scoring_users_one_by_one() -> None:
    examples = made_people.examples(120)
    split = Split(np.arange(80), np.arange(80, 120))
    genres = next(question for question in study(examples, [split]).questions if question.name == "genres")
    predictor = fit(examples.take(split.train), ())
    told = [registration for registration in examples.take(split.hold_out).registrations if registration.genres]
    by_hand = [
        set(predictor.rank(registration).genres[:3])
        != set(predictor.rank(msgspec.structs.replace(registration, genres=())).genres[:3])
        for registration in told
    ]
    assert genres.withheld.value == pytest.approx(np.mean(by_hand))
    assert 0 < genres.changed.value <= 1


def test_a_model_of_picks_alone_has_the_same_three_whatever_the_country() -> None:
    examples = made_people.examples(150)
    splits = cross_validation.stratified_folds(examples.tops, 3, seed=0)
    found = study(examples, splits, "popularity", ("country",))
    (country,) = found.questions
    assert (country.lost.value, country.withheld.value, country.changed.value) == (0, 0, 0)


def test_without_demographics_is_the_same_model_where_there_are_no_demographics() -> None:
    bare = replace(
        made_people.examples(90),
        registrations=tuple(Registration(genres=told.genres) for told in made_people.examples(90).registrations),
    )
    found = study(bare, cross_validation.stratified_folds(bare.tops, 3, seed=0))
    assert found.no_demographics == found.full
    assert found.demographics_lost.value == 0


def test_each_split_is_encoded_once_and_the_full_model_is_not_trained_again() -> None:
    examples = made_people.examples(120)
    splits = cross_validation.stratified_folds(examples.tops, 2, seed=0)
    full = cross_validation.cross_validate(examples, splits, ["logistic"], prepare, registry.fit, silent)["logistic"]
    prepared, trained = [], []

    def counted(users: Examples) -> Task:
        prepared.append(len(users))
        return prepare(users)

    def refit(like: Predictor, task: Task) -> Predictor:
        trained.append(tuple(dict.fromkeys(task.encoder.questions)))
        return registry.refit(like, task)

    found = ablation.study(examples, splits, "logistic", full, counted, refit, QUESTIONS, 0, silent)
    assert prepared == [60, 60]
    assert sorted(trained) == sorted(
        2
        * [
            ("gender", "country", "genres"),  # without age
            ("age", "gender", "genres"),  # without country
            ("age", "gender", "country"),  # without genres
            ("country", "genres"),  # without age and gender
        ]
    )
    assert found == study(examples, splits)


def test_gaps_name_the_groups_served_best_and_worst() -> None:
    found, _ = studied()
    gaps = {gap.by: gap for gap in found.gaps}
    assert gaps.keys() == {"picks", "age", "country"}
    assert gaps["country"].distance.value >= 0
    assert {gaps["country"].best, gaps["country"].worst} == {"US", "DE"}
    assert [gap.by for gap in found.gaps_without_demographics] == [gap.by for gap in found.gaps]


answers = st.lists(st.one_of(st.none(), st.sampled_from(["US", "DE", "HU"])), min_size=1, max_size=30)


@given(answers, st.integers(0, 99))
def test_a_swapped_answer_is_different_and_that_of_another_user(countries: list[str | None], seed: int) -> None:
    people = [Registration(country=country, age=30) for country in countries]
    changed = ablation.with_anothers_answer(people, "country", np.random.default_rng(seed))
    if len(set(countries)) < 2:
        assert changed == people
    else:
        for before, after in zip(people, changed, strict=True):
            assert after.country != before.country
            assert after.country in countries
            assert after.age == 30


def test_withholding_leaves_the_other_answers() -> None:
    told = Registration(age=30, gender="f", country="US", genres=("Pop",))
    assert without_answers(told, "age", "genres") == Registration(gender="f", country="US")

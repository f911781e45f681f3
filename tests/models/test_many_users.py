"""Of many users, the rows are codes and sums are taken in parts: the models are those of an array of rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightgbm
import made_people
import numpy as np
import pytest
from made_columns import columns

from firstspin import learn
from firstspin.data.further_fields import with_further_fields
from firstspin.data.registrations.coded import coded
from firstspin.evaluation.cross_validation import stratified_folds, stratified_split
from firstspin.models import coded_rows, ensemble, registry, task
from firstspin.models.coded_rows import CodedRows, knows_silence
from firstspin.models.features import fit_encoder
from firstspin.models.linear import logistic, templates
from firstspin.models.predictor import log_probabilities, probabilities
from firstspin.models.trees import boosting
from firstspin.records import Examples

USERS = 400


@pytest.fixture(scope="module")
def in_objects() -> Examples:
    return made_people.examples(USERS)


@pytest.fixture(scope="module")
def in_columns(in_objects: Examples) -> Examples:
    return replace(in_objects, registrations=coded(columns(in_objects.registrations)))


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 64 users are many."""

    def parts(n: int, at_once: int = 64) -> list[slice]:
        return coded_rows.parts(n, min(at_once, 64))

    for module in (task, templates, logistic, boosting):
        monkeypatch.setattr(module, "parts", parts)
    for module in (task, logistic, coded_rows):
        monkeypatch.setattr(module, "AT_ONCE", 64)


def test_the_encoder_is_that_of_objects(in_objects: Examples, in_columns: Examples) -> None:
    encoders = [fit_encoder(users, known_genres=made_people.GENRES) for users in (in_objects, in_columns)]
    assert encoders[0].state() == encoders[1].state()


def test_further_fields_are_those_of_objects(in_objects: Examples) -> None:
    extra = ("device", "visits")
    kind, rng = with_further_fields(extra), np.random.default_rng(3)
    words = ("phone", " Phone", "TV", "", "rare")
    objects = [
        kind(age=one.age, device=str(rng.choice(words[: 4 + (at < 3)])), visits=float(rng.integers(9)) or None)
        for at, one in enumerate(in_objects.registrations)
    ]
    of_objects = replace(in_objects, registrations=tuple(objects))
    of_columns = replace(in_objects, registrations=coded(columns(objects, *extra), extra))
    encoders = [fit_encoder(users, known_genres=made_people.GENRES, extra=extra) for users in (of_objects, of_columns)]
    assert encoders[0].state() == encoders[1].state()
    codes = CodedRows(encoders[1], coded(columns(objects, *extra), extra))
    assert codes[:].tobytes() == encoders[0].matrix(objects).tobytes()


def test_rows_are_looked_up_by_position_and_without_questions(in_columns: Examples) -> None:
    encoder = fit_encoder(in_columns, known_genres=made_people.GENRES)
    codes, rows = CodedRows(encoder, in_columns.registrations), encoder.matrix(in_columns.registrations)
    which = np.array([7, 0, 399, 7])
    assert len(codes) == USERS
    assert codes[which].tobytes() == rows[which].tobytes()
    assert codes.take(which)[1:3].tobytes() == rows[which][1:3].tobytes()
    assert codes[390:1000].tobytes() == rows[390:].tobytes()
    assert codes[5:3].shape == (0, rows.shape[1])
    left = codes.without({"age", "genres"})[which]
    assert left.tobytes() == rows[which][:, encoder.columns_without({"age", "genres"})].tobytes()


def test_silent_users_are_counted_as_objects_are(in_objects: Examples) -> None:
    encoder = fit_encoder(in_objects, known_genres=made_people.GENRES)
    for silent in (9, 10):
        some = [*in_objects.registrations[:20], *[type(in_objects.registrations[0])()] * silent]
        assert knows_silence(encoder, some) == knows_silence(encoder, coded(columns(some))) == (silent == 10)


@pytest.mark.parametrize("model", ["single_pick", "age_gender", "logistic", "lightgbm", "forest", "network"])
@pytest.mark.usefixtures("in_parts")
def test_models_are_those_of_an_array(model: str, in_objects: Examples, in_columns: Examples) -> None:
    in_array, in_codes = (registry.prepare(users, made_people.GENRES) for users in (in_objects, in_columns))
    assert isinstance(in_codes.rows, CodedRows)
    scores = [registry.fit(model, of).scorer.scores(in_codes.rows[:]) for of in (in_array, in_codes)]
    assert np.allclose(*map(probabilities, scores), atol=1e-9)


@pytest.mark.usefixtures("in_parts")
def test_a_part_of_many_users_is_an_array_where_it_is_small(in_columns: Examples) -> None:
    everyone = registry.prepare(in_columns, made_people.GENRES)
    some, most = everyone.sample(50), everyone.sample(300)
    assert isinstance(some.rows, np.ndarray)
    assert isinstance(most.rows, CodedRows)
    assert everyone.sample(USERS) is everyone
    assert np.array_equal(everyone.sample(50).rows[:], some.rows, equal_nan=True)
    assert not np.array_equal(replace(everyone, seed=1).sample(50).rows[:], some.rows, equal_nan=True)


def test_auto_is_trained_on_a_sample_and_says_so(in_columns: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "MAX_USERS", 15)  # so few that the rule is shipped
    everyone = registry.prepare(in_columns, made_people.GENRES)
    sampled, rule = registry.fit("auto", everyone), registry.fit("popularity", everyone.sample(15))
    assert sampled.made_of == "business rule; trained on 15 random users of 400"
    assert np.array_equal(*(of.scorer.scores(everyone.rows[:]) for of in (sampled, rule)))
    again = registry.refit(sampled, everyone)
    assert np.array_equal(*(of.scorer.scores(everyone.rows[:]) for of in (sampled, again)))
    assert again.made_of == sampled.made_of
    measured = registry.fit("auto", everyone.take(np.arange(15)))
    assert measured.made_of == "business rule"
    assert registry.refit(measured, everyone).made_of == sampled.made_of  # only the hold-out made the sample needless


@pytest.mark.usefixtures("in_parts")
def test_the_trees_of_many_users_are_those_that_stopped_early(
    in_columns: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boosting, "MAX_HELD_OUT", 30)
    train, trained = lightgbm.train, list[lightgbm.Booster]()

    def recorded(*positional: Any, **named: Any) -> lightgbm.Booster:
        trained.append(train(*positional, **named))
        return trained[-1]

    monkeypatch.setattr(lightgbm, "train", recorded)
    everyone = registry.prepare(in_columns, made_people.GENRES)
    scorer = boosting.boosting(everyone)
    _, part = next(task.folds(USERS, 14, everyone.seed))
    assert len(part) == 29
    held_out = everyone.take(part)
    losses = -(held_out.targets() * log_probabilities(scorer.scores(held_out.rows[:]))).sum(axis=1)
    assert [booster.best_score["valid_0"]["cross entropy"] for booster in trained] == [pytest.approx(losses.mean())]


def test_the_trees_of_few_users_are_trained_again_with_their_hold_out() -> None:
    most = 10 * boosting.MAX_HELD_OUT
    assert [boosting.hold_out_parts(users) for users in (60, most, most + 1)] == [5, 5, 11]
    assert [boosting.settings_for(users).num_leaves for users in (60, most, most + 1)] == [4, 4, 8]


def test_the_hold_out_of_many_users_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "MAX_HELD_OUT", 10)
    assert [learn.hold_out_parts(users) for users in (5, 50, 51, 100, 101)] == [5, 5, 6, 10, 11]


def test_one_split_is_the_first_of_the_folds() -> None:
    tops = np.random.default_rng(1).integers(3, size=50)
    one, (first, *_) = stratified_split(tops, 5, 2), stratified_folds(tops, 5, 2)
    assert np.array_equal(one.train, first.train)
    assert np.array_equal(one.hold_out, first.hold_out)

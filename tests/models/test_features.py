from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from predictor_contract import every_kind_of_newcomer, people

from firstspin.data.further_fields import with_further_fields
from firstspin.models import registry
from firstspin.models.features import HAT, NUMBER, PICKED, Encoder, fit_encoder
from firstspin.models.registry import Learning
from firstspin.records import InputError, Registration

KNOWN = ("Hip Hop", "Jazz", "Rock")


def asked() -> list[Registration]:
    """Ages 20 to 59, mostly Swedes, and one from Norway: too seldom for a column of its own."""
    ages = [20 + i for i in range(40)]
    genders = ["female", "Male"] * 20
    countries = ["SE"] * 39 + ["NO"]
    return [
        Registration(age=age, gender=gender, country=country, genres=("Rock",))
        for age, gender, country in zip(ages, genders, countries, strict=True)
    ]


def fitted(registrations: list[Registration] | None = None, **choice: list[str]) -> Encoder:
    registrations = registrations or asked()
    return fit_encoder(people(registrations, ["Rock"] * len(registrations)), known_genres=KNOWN, **choice)


def shown(encoder: Encoder, registration: Registration) -> dict[str, float]:
    """The columns that are not zero, by name."""
    row = encoder.encode(registration)
    return {name: float(value) for name, value in zip(encoder.columns, row, strict=True) if value != 0}


def only(encoder: Encoder, question: str, registration: Registration) -> dict[str, float]:
    of_question = {name for name, q in zip(encoder.columns, encoder.questions, strict=True) if q == question}
    return {name: value for name, value in shown(encoder, registration).items() if name in of_question}


def test_picks_keep_their_order_and_count_once() -> None:
    picks = Registration(genres=("Rock", " Hip\u00a0Hop", "Rock", "Yodel"))
    assert only(fitted(), "genres", picks) == {
        "picked=Rock": 1.0,
        "rank=Rock": 1.0,
        "picked=Hip Hop": 1.0,
        "rank=Hip Hop": 0.5,
        "picks": 2.0,
        "picks~2": 1.0,
    }


def test_no_picks_and_only_unknown_picks_look_the_same() -> None:
    encoder = fitted()
    assert only(encoder, "genres", Registration()) == {"picks~0": 1.0}
    assert only(encoder, "genres", Registration(genres=("Yodel",))) == {"picks~0": 1.0}


def test_a_missing_age_is_nan_for_trees_and_a_flag_for_sums() -> None:
    age = only(fitted(), "age", Registration())
    assert math.isnan(age.pop("age"))
    assert age == {"age missing": 1.0}


def test_picks_are_compared_without_regard_to_case_and_one_spelled_exactly_goes_first() -> None:
    encoder = fit_encoder(people([], []), known_genres=("Hip Hop", "R&B", "Rock", "rock"))
    for picks, picked in {
        ("HIP HOP", "r&b"): {"Hip Hop", "R&B"},
        ("Rock", "rock"): {"Rock", "rock"},
        ("ROCK",): {"Rock"},
        ("hip\u00a0hop", "Hip Hop"): {"Hip Hop"},
    }.items():
        columns = only(encoder, "genres", Registration(genres=picks))
        assert {name.removeprefix("picked=") for name in columns if name.startswith("picked=")} == picked


def test_a_gender_is_compared_without_regard_to_case_and_an_unheard_one_counts_as_missing() -> None:
    encoder = fitted()
    assert only(encoder, "gender", Registration(gender="FEMALE ")) == {"gender=female": 1.0}
    assert only(encoder, "gender", Registration(gender="male")) == {"gender=male": 1.0}
    assert only(encoder, "gender", Registration(gender="unheard of")) == {"gender missing": 1.0}
    assert only(encoder, "gender", Registration()) == {"gender missing": 1.0}


def test_a_country_seen_seldom_is_other_as_is_one_never_seen() -> None:
    """The column `=other` is trained here: one user was from Norway."""
    encoder = fitted()
    assert only(encoder, "country", Registration(country="se")) == {"country=se": 1.0}
    assert only(encoder, "country", Registration(country="NO")) == {"country=other": 1.0}
    assert only(encoder, "country", Registration(country="Atlantis")) == {"country=other": 1.0}


def test_an_encoder_tells_whether_training_had_rare_values_and_one_of_an_earlier_version_had() -> None:
    state = fitted().state()
    _, gender, country, _ = state["questions"]
    assert gender == {"name": "gender", "values": ["female", "male"], "has_rare": False}
    assert country == {"name": "country", "values": ["se"]}
    assert Encoder.from_state(state).state() == state
    del gender["has_rare"]
    assert only(Encoder.from_state(state), "gender", Registration(gender="unheard of")) == {"gender=other": 1.0}
    for wrong in (0, None, "no"):
        gender["has_rare"] = wrong
        with pytest.raises(InputError, match="question of an unknown kind"):
            Encoder.from_state(state)


@pytest.mark.parametrize("name", ["logistic", "forest", "lightgbm", "network"])
def test_an_unseen_value_changes_no_answer_where_training_had_no_rare_ones(name: str) -> None:
    registrations = [Registration(gender=("female", "male", None)[i % 3], genres=("Rock",)) for i in range(90)]
    users = people(registrations, [("Rock", "Jazz", "Pop")[i % 3] for i in range(90)])
    model = registry.fit(name, registry.prepare(users, ["Jazz", "Pop", "Rock"], extra=(), learning=Learning()))
    unseen, silent, male = (model.rank(Registration(gender=gender)) for gender in ("Q", None, "male"))
    assert unseen.probabilities == silent.probabilities != male.probabilities


@given(st.integers(0, 120))
def test_the_hats_of_an_age_sum_to_one_and_give_the_age_back_between_the_knots(age: int) -> None:
    encoder = fitted()
    row = encoder.encode(Registration(age=age))
    hats = [i for i in encoder.of_kind(HAT).tolist() if encoder.questions[i] == "age"]
    knots = np.array([float(encoder.columns[i].split("~")[1]) for i in hats])
    assert row[hats].sum() == pytest.approx(1)
    assert (row[hats] >= 0).all()
    assert row[hats] @ knots == pytest.approx(np.clip(age, knots[0], knots[-1]), abs=1e-3)


@given(st.lists(st.sampled_from(every_kind_of_newcomer()), max_size=12))
def test_a_registration_is_encoded_alike_alone_and_among_others(registrations: list[Registration]) -> None:
    encoder = fitted()
    together = encoder.matrix(registrations)
    assert together.shape == (len(registrations), len(encoder.columns))
    for row, registration in zip(together, registrations, strict=True):
        assert row.tobytes() == encoder.encode(registration).tobytes()


@given(st.lists(st.sampled_from(every_kind_of_newcomer()), max_size=12))
def test_the_columns_of_the_picks_are_the_flags_that_are_set_in_their_order(registrations: list[Registration]) -> None:
    encoder = fitted()
    flags = encoder.of_kind("picked")
    picked = encoder.picked_columns(registrations)
    for columns, row in zip(picked, encoder.matrix(registrations), strict=True):
        assert sorted(columns) == flags[row[flags] == 1].tolist()
        assert [row[column + len(flags)] for column in columns] == [1 / (i + 1) for i in range(len(columns))]
    assert encoder.without(["genres"]).picked_columns(registrations) == [[] for _ in registrations]


def test_saved_as_json_the_encoder_comes_back_the_same() -> None:
    encoder = fitted()
    back = Encoder.from_state(json.loads(json.dumps(encoder.state())))
    assert (back.columns, back.questions, back.kinds) == (encoder.columns, encoder.questions, encoder.kinds)
    newcomers = every_kind_of_newcomer()
    assert back.matrix(newcomers).tobytes() == encoder.matrix(newcomers).tobytes()


def test_one_answer_seen_in_training_is_a_match() -> None:
    encoder = fitted()
    for known in ({"age": 30}, {"gender": "male"}, {"country": "SE"}, {"genres": ("Yodel", "Jazz")}):
        assert encoder.matches(Registration(**known))
    for unknown in ({}, {"gender": "unheard of"}, {"country": "Atlantis"}, {"genres": ("Yodel",)}):
        assert not encoder.matches(Registration(**unknown))


def test_a_question_left_out_has_no_columns_and_its_answer_no_effect() -> None:
    encoder = fitted(without=["age", "gender"])
    assert set(encoder.questions) == {"country", "genres"}
    assert shown(encoder, Registration(age=30, gender="male")) == shown(encoder, Registration())
    assert not encoder.matches(Registration(age=30, gender="male"))


def test_further_fields_join_as_categories_or_numbers() -> None:
    asking_more = with_further_fields(["device", "friends"])
    registrations = [asking_more(device=["phone", "Desktop"][i % 2], friends=float(i)) for i in range(40)]
    encoder = fitted(registrations, extra=["device", "friends"])
    assert only(encoder, "device", asking_more(device="desktop")) == {"device=desktop": 1.0}
    assert only(encoder, "device", asking_more(device=7.0)) == {"device missing": 1.0}
    assert only(encoder, "friends", asking_more(friends=3.0))["friends"] == 3.0
    for no_number in (asking_more(), asking_more(friends="many"), asking_more(friends=math.nan)):
        assert only(encoder, "friends", no_number)["friends missing"] == 1.0


def test_a_question_without_any_answer_has_columns_all_the_same() -> None:
    encoder = fitted([Registration(genres=("Rock",))])
    assert [encoder.columns[i] for i in encoder.of_kind(NUMBER)] == ["age"]
    assert only(encoder, "age", Registration(age=44))["age"] == 44


def test_each_known_genre_can_be_picked() -> None:
    encoder = fitted()
    assert [encoder.columns[i] for i in encoder.of_kind(PICKED)] == [f"picked={genre}" for genre in KNOWN]


def test_a_form_without_a_further_field_did_not_get_it_answered() -> None:
    asked = with_further_fields(("device",))
    registrations = [asked(age=20 + i, device=("phone", "car")[i % 2]) for i in range(40)]  # type: ignore[call-arg]
    encoder = fitted(registrations, extra=["device"])
    assert np.array_equal(encoder.encode(Registration(age=31)), encoder.encode(asked(age=31)), equal_nan=True)
    assert np.array_equal(encoder.matrix([Registration(age=31)])[0], encoder.encode(asked(age=31)), equal_nan=True)
    assert not encoder.matches(Registration())

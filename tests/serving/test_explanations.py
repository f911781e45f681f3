"""What each answer moved adds up to what all of them moved, and is what the slow definition says."""

from __future__ import annotations

from itertools import permutations

import made_people
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from library import Recommender
from made_bundles import pack

from firstspin.data.further_fields import with_further_fields
from firstspin.records import Registration
from firstspin.serving import explanations

ANSWERS = ("age", "gender", "country", "genres")


@pytest.fixture(scope="module", params=["logistic", "forest", "network"])
def recommender(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Recommender:
    return Recommender(pack(tmp_path_factory.mktemp("explain") / "b", request.param))


newcomers = st.builds(
    Registration,
    age=st.one_of(st.none(), st.integers(0, 120)),
    gender=st.sampled_from([None, "female", "never heard of"]),
    country=st.sampled_from([None, "US", "DE"]),
    genres=st.lists(st.sampled_from([*made_people.GENRES, "Yodel"]), max_size=3).map(tuple),
)


@settings(max_examples=60)
@given(newcomers)
def test_reasons_add_up_to_the_answer_that_was_given(recommender: Recommender, registration: Registration) -> None:
    answer = recommender.rank(registration)
    found = explanations.explain(registration, recommender.bundle)
    assert found.source == answer.source
    assert tuple(reason.genre for reason in found.genres) == answer.genres[:5]
    for reason, chance in zip(found.genres, answer.probabilities, strict=False):
        assert reason.probability == pytest.approx(chance, abs=1e-6)
        assert reason.without_answers + sum(reason.moved.values()) == pytest.approx(reason.probability, abs=5e-6)


def by_brute_force(recommender: Recommender, registration: Registration) -> dict[str, float]:
    """What each answer adds to the first genre, averaged over every order in which a newcomer could tell them."""
    predictor = recommender.bundle.predictor
    told = [name for name in ANSWERS if getattr(registration, name) not in (None, ())]
    genre = predictor.genres.index(predictor.rank(registration).genres[0])

    def chance(names: tuple[str, ...]) -> float:
        only = Registration(**{name: getattr(registration, name) for name in names})
        return float(predictor.probabilities([only])[0, genre])

    orders = list(permutations(told))
    moved = dict.fromkeys(told, 0.0)
    for names in orders:
        for i, name in enumerate(names):
            moved[name] += (chance(names[: i + 1]) - chance(names[:i])) / len(orders)
    return moved


@settings(max_examples=20)
@given(newcomers.filter(lambda told: told.age is None or told.age >= 13))
def test_reasons_agree_with_brute_force(recommender: Recommender, registration: Registration) -> None:
    found = explanations.explain(registration, recommender.bundle).genres[0].moved
    assert found == pytest.approx(by_brute_force(recommender, registration), abs=2e-6)


def test_who_tells_nothing_gets_no_reasons(recommender: Recommender) -> None:
    found = explanations.explain(Registration(), recommender.bundle)
    assert found.source == "popular"
    assert all(not reason.moved and reason.probability == reason.without_answers for reason in found.genres)


def test_under_age_only_the_picks_are_a_reason(recommender: Recommender) -> None:
    found = explanations.explain(Registration(age=12, gender="female", genres=("Jazz",)), recommender.bundle)
    assert found.source == "under-age"
    assert all(reason.moved.keys() == {"genres"} for reason in found.genres)


def test_a_pick_that_comes_true_moved_its_genre_up(recommender: Recommender) -> None:
    found = explanations.explain(Registration(age=20, genres=("Rock",)), recommender.bundle)
    moved = {reason.genre: reason.moved["genres"] for reason in found.genres}
    assert moved["Rock"] == max(moved.values()) > 0


def test_no_answer_itself_is_told(recommender: Recommender) -> None:
    told = msgspec.json.encode(
        explanations.explain(Registration(age=47, gender="unmistakable", country="DE"), recommender.bundle)
    )
    assert b"unmistakable" not in told
    assert b'"47"' not in told


def test_beyond_eight_answers_the_last_are_explained_together() -> None:
    names = tuple(f"q{i}" for i in range(9))
    registration = with_further_fields(dict.fromkeys(names, "text"))(age=30, **dict.fromkeys(names, "x"))  # type: ignore[arg-type]
    groups = explanations.given(registration, ("age", "gender", *names))
    assert groups == [("age",), *((f"q{i}",) for i in range(6)), ("q6", "q7", "q8")]


@given(st.integers(0, 4), st.integers(0, 99))
def test_shapley_values_share_out_everything_and_know_a_dummy(players: int, seed: int) -> None:
    worth = np.random.default_rng(seed).random((2**players, 3))
    values = explanations.shapley_values(worth)
    assert values.sum(axis=0) == pytest.approx(worth[-1] - worth[0])
    with_dummy = np.concatenate([worth, worth])  # one more player, who changes nothing
    assert explanations.shapley_values(with_dummy)[-1] == pytest.approx(np.zeros(3))
    assert explanations.shapley_values(with_dummy)[:-1] == pytest.approx(values)

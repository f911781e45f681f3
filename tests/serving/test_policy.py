"""One policy answers everyone: whatever is missing, and the same alone as in any batch."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import made_people
import numpy as np
import pytest
from library import Recommender
from made_bundles import pack

from firstspin.records import Registration
from firstspin.serving.explanations import explain
from firstspin.serving.policy import top


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    folder: Path = tmp_path_factory.mktemp("bundle")
    return Recommender(pack(folder / "b"))


ANSWERS = [
    Registration(age=age, gender=gender, country=country, genres=genres)
    for age, gender, country, genres in product(
        (None, 0, 12, 13, 31, 120),
        (None, "female", "\u202eodd"),
        (None, "US", "Atlantis"),
        ((), ("Rock",), ("Rock", "Jazz", "Rock"), ("Polka",)),
    )
]


def test_everyone_gets_every_genre_once_with_chances_that_fall(recommender: Recommender) -> None:
    for registration in ANSWERS:
        ranking = recommender.rank(registration)
        assert sorted(ranking.genres) == sorted(made_people.GENRES)
        assert list(ranking.probabilities) == sorted(ranking.probabilities, reverse=True)
        assert sum(ranking.probabilities) == pytest.approx(1, abs=1e-5)


def test_one_alone_and_in_a_batch_agree_to_the_last_bit(recommender: Recommender) -> None:
    assert list(recommender.rankings(ANSWERS)) == [recommender.rank(registration) for registration in ANSWERS]


def test_the_source_says_what_answered(recommender: Recommender) -> None:
    assert recommender.rank(Registration(genres=("Rock",))).source == "model"
    assert recommender.rank(Registration(age=31)).source == "model"
    assert recommender.rank(Registration()).source == "popular"
    assert recommender.rank(Registration(genres=("Polka",))).source == "popular"
    assert recommender.rank(Registration(age=12, genres=("Rock",))).source == "under-age"


def test_a_child_is_told_apart_by_picks_alone(recommender: Recommender) -> None:
    child = Registration(age=9, gender="female", country="US", genres=("Rock",))
    assert recommender.rank(child) == recommender.rank(Registration(age=11, genres=("Rock",)))
    assert recommender.rank(child).genres[0] == "Rock"


def test_the_whole_answer_is_full_and_never_twice_the_same(recommender: Recommender) -> None:
    answer = recommender.recommend(Registration(genres=("Jazz",)))
    tiles = [station for carousel in answer.carousels for station in carousel.station_ids]
    assert len(tiles) == len(set(tiles))
    assert len(answer.stations) == 5
    assert answer.message is not None
    assert answer.message.station_id == answer.stations[0].station_id
    assert answer.message.reason == "Because you picked Jazz"


def test_of_people_who_tell_nothing_a_model_that_met_none_does_not_speak(tmp_path: Path) -> None:
    met_none = Recommender(pack(tmp_path / "b", knows_silence=False))
    shares = np.bincount(made_people.examples(120).tops) + 0.5
    expected = sorted(zip(made_people.GENRES, shares / shares.sum(), strict=True), key=lambda pair: -pair[1])
    for nothing in (Registration(), Registration(gender="unheard of", genres=("Polka",))):
        ranking = met_none.rank(nothing)
        assert ranking == next(met_none.rankings([nothing]))
        assert (ranking.source, ranking.genres) == ("popular", tuple(genre for genre, _ in expected))
        assert ranking.probabilities == pytest.approx([share for _, share in expected], abs=1e-6)
        explained = explain(nothing, met_none.bundle)
        assert [reason.probability for reason in explained.genres] == list(ranking.probabilities)
        assert not any(any(reason.moved.values()) for reason in explained.genres)
    assert met_none.rank(Registration(age=31)).source == "model"


def test_top_keeps_the_best(recommender: Recommender) -> None:
    ranking = recommender.rank(Registration(genres=("Rock",)))
    assert top(ranking, 2).genres == ranking.genres[:2]

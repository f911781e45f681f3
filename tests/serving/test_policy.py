"""One policy answers everyone: whatever is missing, and the same alone as in any batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import made_people
import msgspec
import numpy as np
import pytest
from library import Recommender
from made_bundles import pack

from firstspin.models.prediction_sets import PredictionSets
from firstspin.records import Registration, Rows
from firstspin.serving.explanations import explain
from firstspin.serving.policy import DEFAULTS, PolicySettings, decide, decide_many, top
from firstspin.serving.responses import Responses


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


class Watched:
    """A model that remembers what it was given."""

    def __init__(self, predictor: Any) -> None:
        self.encoder, self.genres = self, predictor.genres
        self._predictor = predictor
        self.encoded: list[Registration] = []
        self.ranked = 0

    def encode_matched(self, registration: Registration) -> Any:
        self.encoded.append(registration)
        return self._predictor.encoder.encode_matched(registration)

    def matrix_matched(self, registrations: Sequence[Registration]) -> Any:
        self.encoded.extend(registrations)
        return self._predictor.encoder.matrix_matched(registrations)

    def rank_row(self, row: Any, source: Any, moves: Any = None) -> Any:
        self.ranked += 1
        return self._predictor.rank_row(row, source, moves)

    def rank_rows(self, rows: Any, moves: Any = ()) -> Any:
        self.ranked += len(rows)
        return self._predictor.rank_rows(rows, moves)


@pytest.mark.parametrize("is_batch", [False, True])
def test_age_and_gender_of_a_registration_under_the_minimum_age_never_reach_the_model(
    recommender: Recommender, is_batch: bool
) -> None:
    watched = Watched(recommender.bundle.predictor)
    watching = Recommender(replace(recommender.bundle, predictor=watched))  # type: ignore[arg-type]
    answers = list(watching.rankings(ANSWERS) if is_batch else map(watching.rank, ANSWERS))
    assert answers == [recommender.rank(registration) for registration in ANSWERS]
    assert watched.encoded == [one for one in ANSWERS if one.age is None or one.age >= 13]
    assert watched.ranked == len(watched.encoded)


@pytest.mark.parametrize("is_batch", [False, True])
def test_a_model_that_saw_no_silence_is_not_asked_about_it(tmp_path: Path, is_batch: bool) -> None:
    loaded = pack(tmp_path / "b", knows_silence=False)
    watched = Watched(loaded.predictor)
    watching = Recommender(replace(loaded, predictor=watched))  # type: ignore[arg-type]
    asked = [Registration(), Registration(age=31), Registration(genres=("Polka",))]
    answers = list(watching.rankings(asked) if is_batch else map(watching.rank, asked))
    assert ([answer.source for answer in answers], watched.ranked) == (["popular", "model", "popular"], 1)


def test_in_a_batch_only_those_for_whom_the_model_fails_are_answered_by_the_rule(recommender: Recommender) -> None:
    class Picky(Watched):
        def encode_matched(self, registration: Registration) -> Any:
            if registration.country == "Atlantis":
                raise FloatingPointError("no answer")
            return super().encode_matched(registration)

        def matrix_matched(self, registrations: Sequence[Registration]) -> Any:
            for registration in registrations:
                self.encode_matched(registration)
            return super().matrix_matched(registrations)

    picky = replace(recommender.bundle, predictor=Picky(recommender.bundle.predictor))  # type: ignore[arg-type]
    decisions = list(decide_many(ANSWERS, None, picky, DEFAULTS))
    for registration, decision in zip(ANSWERS, decisions, strict=True):
        fails = registration.country == "Atlantis" and (registration.age is None or registration.age >= 13)
        assert decision.failure == ("FloatingPointError" if fails else "")
        assert (decision.source == "rule") == fails
        assert decision == decide(registration, None, picky, None, DEFAULTS)


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


def test_calibrated_rows_are_there_where_the_model_ranks_and_change_nothing_else(tmp_path: Path) -> None:
    packed = pack(tmp_path / "b", rows=PredictionSets(0.9, 620_000))
    off, on = Recommender(packed), Recommender(packed, PolicySettings(calibrated_rows=True))
    responses = Responses(packed)
    assert list(on.rankings(ANSWERS)) == list(off.rankings(ANSWERS))
    for one, decision in zip(ANSWERS, decide_many(ANSWERS, None, packed, on.settings), strict=True):
        assert decision == on.decide(one)
        answer = on.recommend(one)
        assert responses.json(one, decision) == msgspec.json.encode(answer)
        assert (answer.rows is None) == (answer.source == "under-age")
        assert msgspec.structs.replace(answer, rows=None) == off.recommend(one)
        assert b"rows" not in responses.json(one, off.decide(one))
    sure, unsure = on.recommend(Registration(genres=("Pop",))), on.recommend(Registration())
    assert sure.rows == Rows(1, 0.9)
    assert unsure.rows == Rows(2, 0.9)
    assert on.decide(Registration(genres=("Rock",)), failure="it failed").rows is None


def test_a_bundle_without_calibrated_rows_answers_without_them(recommender: Recommender) -> None:
    on = replace(recommender, settings=PolicySettings(calibrated_rows=True))
    assert [on.recommend(one) for one in ANSWERS[:20]] == [recommender.recommend(one) for one in ANSWERS[:20]]


def test_top_keeps_the_best(recommender: Recommender) -> None:
    ranking = recommender.rank(Registration(genres=("Rock",)))
    assert top(ranking, 2).genres == ranking.genres[:2]

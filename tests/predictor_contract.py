"""What every model promises; a model's test inherits it and names the model."""

from __future__ import annotations

from itertools import product
from typing import ClassVar

import numpy as np
import pytest
from made_columns import columns

from firstspin.data.registrations.coded import coded
from firstspin.models import scorers
from firstspin.models.coded_rows import CodedRows
from firstspin.models.features import Encoder
from firstspin.models.predictor import Predictor
from firstspin.models.registry import Learning, fit, prepare
from firstspin.records import Examples, InputError, Registration

GENRES = ("Folk", "Jazz", "Pop", "Rock")
KNOWN = (*GENRES, "Talk")


def people(registrations: list[Registration], tops: list[str], genres: tuple[str, ...] = GENRES) -> Examples:
    """Examples by hand: nine tenths of the listening went to the top genre, the rest to the others alike."""
    chosen = np.array([genres.index(top) for top in tops], dtype=np.int64)
    shares = np.full((len(tops), len(genres)), 0.1 / max(len(genres) - 1, 1))
    shares[np.arange(len(tops)), chosen] = 0.9 if len(genres) > 1 else 1.0
    days = np.arange(len(tops)).astype("timedelta64[D]")
    at = (np.datetime64("2025-01-01T00:00:00", "s") + days).astype("datetime64[s]")
    return Examples(tuple(f"u{i}" for i in range(len(tops))), tuple(registrations), at, genres, chosen, shares)


def checkerboard(squares: int = 10) -> Examples:
    """Whoever picks a genre plays it. Pop is picked most, then Rock, Jazz and Folk, so popularity tells them apart."""
    registrations, tops = [], []
    for i in range(squares):
        for genre, times in (("Pop", 5), ("Rock", 4), ("Jazz", 3), ("Folk", 2)):
            for j in range(times):
                age = None if (i + j) % 4 == 0 else 20 + (7 * i + j) % 40
                gender = ("female", "male", None)[(i + j) % 3]
                registrations.append(Registration(age=age, gender=gender, country=("SE", "US")[j % 2], genres=(genre,)))
                tops.append(genre)
    return people(registrations, tops)


def every_kind_of_newcomer() -> list[Registration]:
    """Each question answered as in training, answered as never before, or not at all."""
    ages = (31, 0, 120, None)
    genders = ("female", "Male", "unheard of", None)
    countries = ("US", "Atlantis", None)
    picks = (("Rock",), ("Jazz", "Pop", "Jazz"), ("Talk",), ("  Folk ", "Yodel"), ("Yodel",), ())
    return [
        Registration(age=age, gender=gender, country=country, genres=genres)
        for age, gender, country, genres in product(ages, genders, countries, picks)
    ]


class PredictorContract:
    name: ClassVar[str]
    heeds_picks: ClassVar[bool] = True

    @pytest.fixture(scope="class")
    @classmethod
    def predictor(cls) -> Predictor:
        return cls.fitted(checkerboard())

    @classmethod
    def fitted(cls, examples: Examples, seed: int = 7) -> Predictor:
        return fit(cls.name, prepare(examples, KNOWN, learning=Learning(seed=seed)))

    def test_whoever_picked_it_plays_it(self, predictor: Predictor) -> None:
        for genre in GENRES:
            first = predictor.rank(Registration(age=31, gender="female", country="US", genres=(genre,))).genres[0]
            assert first == (genre if self.heeds_picks else "Pop")

    def test_without_an_answer_the_popular_comes_first(self, predictor: Predictor) -> None:
        assert predictor.rank(Registration()).genres[0] == "Pop"

    def test_every_newcomer_gets_every_genre_once(self, predictor: Predictor) -> None:
        for registration in every_kind_of_newcomer():
            ranking = predictor.rank(registration, source="asked")
            assert sorted(ranking.genres) == list(GENRES)
            assert ranking.source == "asked"
            assert sum(ranking.probabilities) == pytest.approx(1, abs=1e-5)
            assert list(ranking.probabilities) == sorted(ranking.probabilities, reverse=True)

    def test_alone_or_in_any_batch_the_answer_is_the_same_to_the_last_bit(self, predictor: Predictor) -> None:
        newcomers = every_kind_of_newcomer()
        alone = np.concatenate([predictor.probabilities([one]) for one in newcomers])
        rankings = [predictor.rank(one) for one in newcomers]
        assert list(predictor.rankings(newcomers)) == rankings
        for size in (1, 2, 3, 7, 8, 15, 16, 33, 64, 100, len(newcomers)):
            for start in (0, 5):
                batch = predictor.probabilities(newcomers[start : start + size])
                assert batch.tobytes() == alone[start : start + size].tobytes()

    @pytest.mark.parametrize("k", [1, 3, len(GENRES)])
    def test_by_columns_the_ranking_is_the_same_to_the_last_bit(self, predictor: Predictor, k: int) -> None:
        newcomers = every_kind_of_newcomer()
        rows, _ = CodedRows(predictor.encoder, coded(columns(newcomers))).matched(0, len(newcomers))
        places, chances = predictor.rank_places(rows, k)
        for place, chance, ranking in zip(
            places.tolist(), chances.tolist(), predictor.rankings(newcomers), strict=True
        ):
            assert tuple(predictor.genres[i] for i in place) == ranking.genres[:k]
            assert tuple(chance) == ranking.probabilities[:k]

    def test_probabilities_and_ranking_agree(self, predictor: Predictor) -> None:
        newcomers = every_kind_of_newcomer()
        for chances, ranking in zip(predictor.probabilities(newcomers), predictor.rankings(newcomers), strict=True):
            shown = {genre: round(float(p), 6) for genre, p in zip(predictor.genres, chances, strict=True)}
            assert dict(zip(ranking.genres, ranking.probabilities, strict=True)) == shown

    def test_trained_twice_it_is_the_same_to_the_last_bit(self, predictor: Predictor) -> None:
        newcomers = every_kind_of_newcomer()
        again = self.fitted(checkerboard())
        assert again.scores(newcomers).tobytes() == predictor.scores(newcomers).tobytes()

    def test_kept_as_arrays_or_text_it_comes_back_the_same(self, predictor: Predictor) -> None:
        state = predictor.scorer.state()
        assert all(isinstance(value, str) or value.dtype != object for value in state.values())
        back = Predictor(
            Encoder.from_state(predictor.encoder.state()),
            predictor.genres,
            scorers.load(predictor.scorer.kind, state),
            predictor.name,
        )
        newcomers = every_kind_of_newcomer()
        assert back.scores(newcomers).tobytes() == predictor.scores(newcomers).tobytes()

    def test_nobody_to_answer_is_no_error(self, predictor: Predictor) -> None:
        assert predictor.probabilities([]).shape == (0, len(GENRES))
        assert list(predictor.rankings([])) == []

    @pytest.mark.parametrize("n", [1, 2, 3, 5])
    def test_a_handful_of_people_is_enough_to_answer(self, n: int) -> None:
        few = checkerboard(1).take(np.arange(n) * 2)
        predictor = self.fitted(few)
        chances = predictor.probabilities(every_kind_of_newcomer())
        assert np.isfinite(chances).all()
        assert np.allclose(chances.sum(axis=1), 1)

    def test_where_everyone_plays_the_same_it_says_so(self) -> None:
        everyone = checkerboard(2).registrations
        predictor = self.fitted(people(list(everyone), ["Jazz"] * len(everyone), ("Jazz",)))
        assert predictor.rank(Registration(genres=("Rock",))).probabilities == (1.0,)

    def test_a_genre_that_was_nobodys_top_is_still_ranked(self) -> None:
        without_folk = checkerboard()
        kept = np.flatnonzero(without_folk.tops != GENRES.index("Folk"))
        ranking = self.fitted(without_folk.take(kept)).rank(Registration(genres=("Rock",)))
        assert sorted(ranking.genres) == list(GENRES)

    def test_a_service_that_asks_nothing_gets_a_model(self) -> None:
        nothing = Learning(without=("age", "gender", "country", "genres"), seed=1)
        predictor = fit(self.name, prepare(checkerboard(), KNOWN, learning=nothing))
        assert predictor.rank(Registration(genres=("Folk",))).genres[0] == "Pop"

    def test_nobody_to_learn_from_is_refused(self) -> None:
        with pytest.raises(InputError, match="nobody to learn from"):
            self.fitted(checkerboard().take(np.array([], dtype=np.int64)))

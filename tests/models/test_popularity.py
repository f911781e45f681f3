from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from predictor_contract import KNOWN, PredictorContract, checkerboard, people

from firstspin.models.registry import fit, prepare
from firstspin.models.scorers import RuleScorer
from firstspin.records import Registration


class TestPopularity(PredictorContract):
    name = "popularity"


class TestSinglePick(PredictorContract):
    name = "single_pick"


class TestOverall(PredictorContract):
    name = "overall"
    heeds_picks = False


class TestAgeGender(PredictorContract):
    name = "age_gender"
    heeds_picks = False


def test_an_age_band_and_gender_get_what_is_popular_among_them() -> None:
    boys = [Registration(age=16, gender="male")] * 60
    women = [Registration(age=60, gender="Female")] * 60
    told = fit("age_gender", prepare(people(boys + women, ["Rock"] * 60 + ["Jazz"] * 60), KNOWN))
    assert told.rank(Registration(age=17, gender="MALE", genres=("Jazz",))).genres[0] == "Rock"
    assert told.rank(Registration(age=55, gender="female", genres=("Rock",))).genres[0] == "Jazz"


def test_a_small_cell_is_shrunk_towards_overall_popularity() -> None:
    many, one = [Registration(age=30)] * 99, [Registration(age=70)]
    told = fit("age_gender", prepare(people(many + one, ["Pop"] * 99 + ["Folk"]), KNOWN))
    chances = dict(zip(told.genres, told.probabilities(one)[0], strict=True))
    assert chances["Folk"] == pytest.approx((1 + 20 * 1.5 / 102) / 21)
    assert told.rank(Registration()).genres[0] == "Pop"


def test_picks_come_first_by_popularity_then_the_rest_by_popularity() -> None:
    rule = fit("popularity", prepare(checkerboard(), KNOWN))
    assert rule.rank(Registration(genres=("Folk", "Rock"))).genres == ("Rock", "Folk", "Pop", "Jazz")
    assert rule.rank(Registration(genres=("Talk", "Jazz"))).genres == ("Jazz", "Pop", "Rock", "Folk")
    assert rule.rank(Registration()).genres == ("Pop", "Rock", "Jazz", "Folk")


def test_the_order_of_the_picks_is_no_matter_to_the_rule() -> None:
    rule = fit("popularity", prepare(checkerboard(), KNOWN))
    answers = {rule.rank(Registration(genres=picks)) for picks in permutations(("Jazz", "Folk", "Rock"))}
    assert len(answers) == 1


def test_picks_come_first_even_where_they_never_come_true() -> None:
    nobody_plays_the_pick = people([Registration(genres=("Folk",))] * 9, ["Pop"] * 5 + ["Rock"] * 3 + ["Jazz"])
    rule = fit("popularity", prepare(nobody_plays_the_pick, KNOWN))
    assert rule.rank(Registration(genres=("Folk",))).genres == ("Folk", "Pop", "Rock", "Jazz")


@pytest.mark.parametrize("name", ["popularity", "single_pick", "overall"])
def test_scores_of_picks_alone_are_those_of_their_rows_to_the_last_bit(name: str) -> None:
    rule = fit(name, prepare(checkerboard(), KNOWN))
    words = (*KNOWN, "rock", "JAZZ", "no genre")
    picks = [picked for n in range(4) for picked in permutations(words, n)] + [words, (*words, *words)]
    registrations = [Registration(genres=picked) for picked in picks]
    assert isinstance(rule.scorer, RuleScorer)
    for some in (registrations, registrations[-1:], []):
        scores = rule.scorer.scores_of_picks(rule.encoder.picked_columns(some))
        assert scores.tobytes() == rule.scorer.scores(rule.encoder.matrix(some)).tobytes()


def test_with_one_pick_only_the_most_popular_pick_counts() -> None:
    baseline = fit("single_pick", prepare(checkerboard(), KNOWN))
    assert baseline.rank(Registration(genres=("Folk", "Jazz"))).genres == ("Jazz", "Pop", "Rock", "Folk")


def test_the_probabilities_say_how_often_picks_come_true() -> None:
    half_true = people([Registration(genres=("Jazz",))] * 8, ["Jazz", "Pop"] * 4)
    rule = fit("popularity", prepare(half_true, KNOWN))
    chances = dict(zip(rule.genres, rule.probabilities([Registration(genres=("Jazz",))])[0], strict=True))
    assert chances["Jazz"] == pytest.approx(0.5, abs=0.1)
    assert np.isclose(sum(chances.values()), 1)

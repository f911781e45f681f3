from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from predictor_contract import KNOWN, PredictorContract, checkerboard, people

from firstspin.models.registry import fit
from firstspin.records import Registration


class TestPopularity(PredictorContract):
    name = "popularity"


class TestSinglePick(PredictorContract):
    name = "single_pick"


class TestOverall(PredictorContract):
    name = "overall"
    heeds_picks = False


def test_picks_come_first_by_popularity_then_the_rest_by_popularity() -> None:
    rule = fit("popularity", checkerboard(), known_genres=KNOWN)
    assert rule.rank(Registration(genres=("Folk", "Rock"))).genres == ("Rock", "Folk", "Pop", "Jazz")
    assert rule.rank(Registration(genres=("Talk", "Jazz"))).genres == ("Jazz", "Pop", "Rock", "Folk")
    assert rule.rank(Registration()).genres == ("Pop", "Rock", "Jazz", "Folk")


def test_the_order_of_the_picks_is_no_matter_to_the_rule() -> None:
    rule = fit("popularity", checkerboard(), known_genres=KNOWN)
    answers = {rule.rank(Registration(genres=picks)) for picks in permutations(("Jazz", "Folk", "Rock"))}
    assert len(answers) == 1


def test_picks_come_first_even_where_they_never_come_true() -> None:
    nobody_plays_the_pick = people([Registration(genres=("Folk",))] * 9, ["Pop"] * 5 + ["Rock"] * 3 + ["Jazz"])
    rule = fit("popularity", nobody_plays_the_pick, known_genres=KNOWN)
    assert rule.rank(Registration(genres=("Folk",))).genres == ("Folk", "Pop", "Rock", "Jazz")


def test_with_one_pick_only_the_most_popular_pick_counts() -> None:
    baseline = fit("single_pick", checkerboard(), known_genres=KNOWN)
    assert baseline.rank(Registration(genres=("Folk", "Jazz"))).genres == ("Jazz", "Pop", "Rock", "Folk")


def test_the_probabilities_say_how_often_picks_come_true() -> None:
    half_true = people([Registration(genres=("Jazz",))] * 8, ["Jazz", "Pop"] * 4)
    rule = fit("popularity", half_true, known_genres=KNOWN)
    chances = dict(zip(rule.genres, rule.probabilities([Registration(genres=("Jazz",))])[0], strict=True))
    assert chances["Jazz"] == pytest.approx(0.5, abs=0.1)
    assert np.isclose(sum(chances.values()), 1)

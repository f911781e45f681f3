"""A random forest, grown by LightGBM, whose leaves hold listening shares."""

from __future__ import annotations

import lightgbm
import made_people
import numpy as np
import pytest
from predictor_contract import GENRES, KNOWN, PredictorContract, checkerboard, people

from firstspin.models import registry
from firstspin.models.predictor import Predictor
from firstspin.models.scorers import Forest
from firstspin.records import Registration


class TestForest(PredictorContract):
    name = "forest"

    def test_without_an_answer_the_popular_comes_first(self, predictor: Predictor) -> None:
        """Not so with trees here: everyone they learned from picked something. They still rank every genre."""
        assert sorted(predictor.rank(Registration()).genres) == sorted(GENRES)


def test_a_leaf_holds_the_mean_share_of_its_users() -> None:
    """One question tells two groups apart: whichever of them a tree saw, it can only say what they all played."""
    registrations = [Registration(gender="female"), Registration(gender="male")] * 40
    examples = people(registrations, ["Jazz", "Rock"] * 40)
    predictor = registry.fit("forest", registry.prepare(examples, KNOWN))
    assert isinstance(predictor.scorer, Forest)
    female, male = predictor.scorer.trees.scores(predictor.encoder.matrix(registrations[:2]))
    jazz, rock = GENRES.index("Jazz"), GENRES.index("Rock")
    often, seldom = (1 + 0.9) / 2, (0 + 0.1 / 3) / 2  # half the top genre alone, half the shares of listening
    assert [female[jazz], female[rock]] == pytest.approx([often, seldom], abs=1e-6)
    assert [male[jazz], male[rock]] == pytest.approx([seldom, often], abs=1e-6)


def test_the_shares_add_up_to_one() -> None:
    examples = made_people.examples(400)
    predictor = registry.fit("forest", registry.prepare(examples, made_people.GENRES))
    assert isinstance(predictor.scorer, Forest)
    shares = predictor.scorer.trees.scores(predictor.encoder.matrix(examples.registrations))
    assert shares.sum(axis=1).mean() == pytest.approx(1, abs=0.02)


def test_the_text_in_the_bundle_is_a_whole_model_to_lightgbm() -> None:
    examples = checkerboard()
    predictor = registry.fit("forest", registry.prepare(examples, KNOWN))
    assert isinstance(predictor.scorer, Forest)
    rows, trees = predictor.encoder.matrix(examples.registrations), predictor.scorer.trees
    expected = lightgbm.Booster(model_str=trees.text).predict(rows[:, trees.columns], raw_score=True)
    assert np.array_equal(trees.scores(rows), expected)

"""LightGBM's trees: scores without LightGBM are equal to the bit."""

from __future__ import annotations

import lightgbm
import numpy as np
from predictor_contract import GENRES, KNOWN, PredictorContract, checkerboard

from firstspin.models import registry
from firstspin.models.predictor import Predictor
from firstspin.models.scorers import TreeScorer
from firstspin.records import Registration


class TestLightGBM(PredictorContract):
    name = "lightgbm"

    def test_without_an_answer_the_popular_comes_first(self, predictor: Predictor) -> None:
        """Not so with trees here: everyone they learned from picked something. They still rank every genre."""
        assert sorted(predictor.rank(Registration()).genres) == sorted(GENRES)


def test_scores_are_those_of_lightgbm_itself_to_the_last_bit() -> None:
    examples = checkerboard()
    predictor = registry.fit("lightgbm", registry.prepare(examples, KNOWN))
    assert isinstance(predictor.scorer, TreeScorer)
    rows = predictor.encoder.matrix(examples.registrations)
    booster = lightgbm.Booster(model_str=predictor.scorer.text)
    expected = booster.predict(rows[:, predictor.scorer.columns], raw_score=True)
    assert np.array_equal(predictor.scorer.scores(rows), expected)

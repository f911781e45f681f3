"""`auto` ships the model with the best hold-out score, and never one that the business rule beats."""

from __future__ import annotations

from dataclasses import replace

import made_people
import numpy as np
import pytest
from predictor_contract import PredictorContract, checkerboard

from firstspin.models import registry
from firstspin.models.ensemble import LARGE, chosen_weights, with_target
from firstspin.models.predictor import Predictor, probabilities
from firstspin.models.scorers import Blend, RuleScorer
from firstspin.models.task import Task
from firstspin.records import Examples


class TestAuto(PredictorContract):
    name = "auto"

    def test_where_the_picks_say_all_the_rule_is_not_left_behind(self, predictor: Predictor) -> None:
        for registration in checkerboard().registrations:
            assert predictor.rank(registration).genres[0] == registration.genres[0]


@pytest.fixture(scope="module")
def trained() -> tuple[Task, Predictor]:
    task = registry.prepare(made_people.examples(400), made_people.GENRES)
    return task, registry.fit("auto", task)


def shuffled(examples: Examples) -> Examples:
    """The same answers, with other people's listening: nothing can be learned from them."""
    mixed = np.random.default_rng(0).permutation(len(examples))
    return Examples(
        examples.user_ids,
        examples.registrations,
        examples.registered_at,
        examples.genres,
        examples.tops[mixed],
        examples.shares[mixed],
    )


def test_with_a_pattern_in_the_data_an_ensemble_is_shipped(trained: tuple[Task, Predictor]) -> None:
    _, predictor = trained
    assert isinstance(predictor.scorer, Blend)
    shares = [float(member.split()[0]) for member in predictor.made_of.split(" + ")]
    assert sum(shares) == pytest.approx(1)
    for share, weight in zip(shares, predictor.scorer.weights, strict=True):
        assert share == pytest.approx(weight / sum(predictor.scorer.weights), abs=0.01)


def test_the_members_of_an_ensemble_are_named_as_in_tables() -> None:
    task = registry.prepare(made_people.examples(400), made_people.GENRES)
    rule, linear = (registry.fit(name, task).scorer for name in ("popularity", "logistic"))
    named = registry._made_of(Blend((rule, linear, linear), (0.4, 0.4, 0.4)))
    assert named == "0.34 business rule + 0.33 logistic + 0.33 logistic"
    assert registry._made_of(rule) == "business rule"


def test_with_too_few_users_the_rule_is_shipped() -> None:
    predictor = registry.fit("auto", registry.prepare(made_people.examples(12), made_people.GENRES))
    assert isinstance(predictor.scorer, RuleScorer)


def test_noise_is_not_shipped_as_knowledge() -> None:
    """Answers that say nothing: in the long run the shipped model may not lose to the rule."""
    examples = shuffled(made_people.examples(600))
    predictor = registry.fit("auto", registry.prepare(examples, made_people.GENRES))
    fresh = shuffled(made_people.examples(2000, seed=5))
    ours = predictor.probabilities(fresh.registrations)
    rule = registry.fit("popularity", registry.prepare(examples, made_people.GENRES)).probabilities(fresh.registrations)
    hit = [(p.argsort(axis=1)[:, -3:] == fresh.tops[:, None]).any(axis=1).mean() for p in (ours, rule)]
    assert hit[0] >= hit[1] - 0.02


def scores_of(genre: np.ndarray, sure: float) -> np.ndarray:
    """Scores (n, 4) of a model that is this sure of a genre each, and takes the others for alike."""
    return sure * np.eye(4)[genre]


class TestWeights:
    rng = np.random.default_rng(1)
    tops = rng.integers(0, 4, 4000)
    hints = np.where(rng.random(4000) < 0.7, tops, rng.integers(0, 4, 4000))
    others = np.where(rng.random(4000) < 0.7, tops, rng.integers(0, 4, 4000))
    nothing = np.zeros((4000, 4))

    def test_two_that_know_different_things_both_count(self) -> None:
        seen = dict.fromkeys(LARGE, self.nothing)
        seen |= {"logistic": scores_of(self.hints, 2.0), "network": scores_of(self.others, 2.0)}
        weights = chosen_weights(seen, self.tops)
        assert weights["logistic"] > 0.5
        assert weights["network"] > 0.5

    def test_an_over_confident_member_has_a_smaller_weight(self) -> None:
        """0.7 + 0.3/4 of the hints are right, so the score of a right hint should be log(0.775 / 0.075) = 2.34."""
        seen = dict.fromkeys(LARGE, self.nothing) | {"logistic": scores_of(self.hints, 4.67)}
        assert abs(chosen_weights(seen, self.tops)["logistic"] - 0.5) < 0.03

    def test_between_equals_the_small_ensemble_is_chosen(self) -> None:
        alike = scores_of(self.hints, 2.0)
        seen = {"popularity": self.nothing, "logistic": alike, "lightgbm": alike, "network": alike}
        assert set(chosen_weights(seen, self.tops)) <= {"popularity", "logistic"}

    def test_where_the_rule_is_the_truth_an_ensemble_is_rarely_shipped(self) -> None:
        """Members that are the truth with noise: weights fitted on the same users would look better in half of all."""
        shipped = 0
        for seed in range(20):
            rng = np.random.default_rng(seed)
            truth = rng.normal(size=(400, 8))
            below = probabilities(truth).cumsum(axis=1)
            tops = (rng.random((400, 1)) >= below / below[:, -1:]).sum(axis=1)
            noisy = {name: truth + rng.normal(size=truth.shape) for name in LARGE}
            shipped += bool(chosen_weights(noisy | {"popularity": truth}, tops))
        assert shipped <= 2

    def test_without_an_ensemble_better_than_the_rule_there_are_no_weights(self) -> None:
        seen = dict.fromkeys(LARGE, self.nothing) | {"popularity": scores_of(self.tops, 2.0)}
        assert chosen_weights(seen, self.tops) == {}


def test_trained_again_an_ensemble_keeps_its_members_and_weights(trained: tuple[Task, Predictor]) -> None:
    task, predictor = trained
    assert isinstance(predictor.scorer, Blend)
    again, bare = registry.refit(predictor, task), registry.refit(predictor, task.without(("genres",)))
    people = made_people.examples(30, seed=2).registrations
    assert again.scores(people).tobytes() == predictor.scores(people).tobytes()
    assert isinstance(bare.scorer, Blend)
    assert bare.scorer.weights == predictor.scorer.weights
    assert [member.kind for member in bare.scorer.members] == [member.kind for member in predictor.scorer.members]
    assert "genres" not in bare.encoder.questions


def test_the_target_is_the_shares_where_they_say_more_than_the_top_genre_and_the_top_genre_otherwise() -> None:
    """Where each user hears one genre besides noise, the shares only blur it."""
    spread = registry.prepare(made_people.examples(400), made_people.GENRES)
    noise = np.random.default_rng(2).dirichlet(np.ones(len(spread.genres)), len(spread))
    assert with_target(spread)[0].soft_label_weight == 1.0
    assert with_target(replace(spread, shares=noise))[0].soft_label_weight == 0.5


def test_trained_again_a_shipped_rule_is_the_rule() -> None:
    predictor = registry.fit("auto", registry.prepare(made_people.examples(12), made_people.GENRES))
    again = registry.refit(predictor, registry.prepare(made_people.examples(400), made_people.GENRES))
    assert isinstance(again.scorer, RuleScorer)


def test_an_ensemble_has_the_members_that_were_trained_with_its_target_before() -> None:
    task, _ = with_target(registry.prepare(made_people.examples(400), made_people.GENRES))
    alone = [registry.fit(name, task).scorer for name in ("popularity", "logistic", "lightgbm", "network")]
    ensemble = registry.fit("auto", task).scorer
    assert isinstance(ensemble, Blend)
    assert all(any(member is one for one in alone) for member in ensemble.members)

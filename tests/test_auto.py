"""`auto` ships what does best on people it has not learned from, and never what the rule beats."""

from __future__ import annotations

import made_people
import numpy as np
from predictor_contract import KNOWN, PredictorContract, checkerboard

from firstspin.models import registry
from firstspin.models.scorers import Blend, Rule
from firstspin.records import Examples


class TestAuto(PredictorContract):
    name = "auto"


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


def test_where_there_is_a_pattern_a_team_is_shipped() -> None:
    predictor = registry.fit("auto", made_people.examples(400), known_genres=made_people.GENRES)
    assert isinstance(predictor.scorer, Blend)


def test_where_the_picks_say_all_the_rule_is_not_left_behind() -> None:
    examples = checkerboard()
    predictor = registry.fit("auto", examples, known_genres=KNOWN)
    for registration in examples.registrations:
        assert predictor.rank(registration).genres[0] == registration.genres[0]


def test_with_hardly_anyone_to_learn_from_the_rule_is_shipped() -> None:
    predictor = registry.fit("auto", made_people.examples(12), known_genres=made_people.GENRES)
    assert isinstance(predictor.scorer, Rule)


def test_noise_is_not_shipped_as_knowledge() -> None:
    """Answers that say nothing: in the long run the shipped model may not lose to the rule."""
    examples = shuffled(made_people.examples(600))
    predictor = registry.fit("auto", examples, known_genres=made_people.GENRES)
    fresh = shuffled(made_people.examples(2000, seed=5))
    ours = predictor.probabilities(fresh.registrations)
    rule = registry.fit("popularity", examples, known_genres=made_people.GENRES).probabilities(fresh.registrations)
    hit = [(p.argsort(axis=1)[:, -3:] == fresh.tops[:, None]).any(axis=1).mean() for p in (ours, rule)]
    assert hit[0] >= hit[1] - 0.02

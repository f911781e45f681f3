"""The scorecard agrees with a slow version: each figure with an interval, each lift paired with a baseline."""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import cache
from pathlib import Path

import made_people
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from firstspin.data.ground_truth import GroundTruth
from firstspin.evaluation import cross_validation, scorecard
from firstspin.evaluation.bootstrap import Figure, PairedLift
from firstspin.evaluation.cross_validation import HoldOutAnswers
from firstspin.evaluation.metrics import SEEN_SHARE, RankingMetric
from firstspin.evaluation.scorecard import BASELINES, Scorecard
from firstspin.models import registry
from firstspin.models.predictor import Predictor
from firstspin.models.task import Task, silent
from firstspin.records import Examples, InputError

N = 400


def prepare(users: Examples) -> Task:
    return registry.prepare(users, made_people.GENRES)


def fit(name: str, examples: Examples) -> Predictor:
    return registry.fit(name, prepare(examples))


@cache
def evaluated() -> tuple[dict[str, HoldOutAnswers], Examples, Scorecard]:
    examples = made_people.examples(N)
    splits = cross_validation.stratified_folds(np.arange(N) % 3, 4, seed=0)
    names = [*BASELINES, "logistic"]
    validated = cross_validation.cross_validate(examples, splits, names, prepare, registry.fit, silent)
    found = {name: one.answers for name, one in validated.items()}
    asked = cross_validation.held_out(examples, splits)
    return found, asked, scorecard.score(found, asked, {"protocol": "test"}, {"labelled": N}, seed=0)


def before(users: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Of genres with nothing before them."""
    return np.zeros(users, dtype=np.int32), np.zeros((users, 6), dtype=np.int32)


def outcome(first: list[int], hits: list[int]) -> HoldOutAnswers:
    """What people were shown first, at a chance of one half, and whether it was right."""
    position = np.where(np.array(hits) == 1, 0, 4)
    shown = np.stack([np.array(first), *[np.full(len(first), -1)] * 4], axis=1)
    half = np.full(len(first), 0.5)
    return HoldOutAnswers(position, half, shown, half, *before(len(first)))


def test_cohorts_and_confusion_are_those_of_the_named_model() -> None:
    found, asked, card = evaluated()
    about = scorecard.score(found, asked, {"protocol": "test"}, {"labelled": N}, seed=0, about="single_pick")
    assert (card.best, about.best) == ("logistic", "single_pick")
    assert about.figures == card.figures
    assert all("single_pick" not in segment.lifts for segment in about.segments)
    assert about.confusion != card.confusion


def test_a_model_that_sees_the_pattern_beats_every_baseline_with_an_interval_clear_of_zero() -> None:
    _, _, card = evaluated()
    assert card.people == N
    assert card.best == "logistic"
    assert card.lifts["logistic"].keys() == set(BASELINES)
    for baseline in BASELINES:
        lift = card.lifts["logistic"][baseline]["hit@1"].difference
        assert 0 < lift.low < lift.value < lift.high


@pytest.mark.parametrize(
    ("low", "high", "protocol", "advice"),
    [
        (0.001, 0.03, {}, ""),
        (
            0.0,
            0.03,
            {},
            "auto is not shown to be better than the business rule (lift in hit@3 -2.0% ±1",
        ),
        (-0.07, 0.05, {}, "auto is not shown to be better than the business rule"),
        (-0.07, -0.01, {}, "auto is worse than the business rule"),
        (-0.07, 0.05, {"seen": True}, ""),
    ],
)
def test_a_model_without_a_shown_lift_over_the_rule_comes_with_advice(
    low: float, high: float, protocol: dict[str, object], advice: str
) -> None:
    lift = PairedLift(Figure(-0.01, low, high), Figure(-0.02, -0.13, 0.09))
    figures = {name: dict.fromkeys(RankingMetric, Figure(0.5, 0.4, 0.6)) for name in ("popularity", "auto")}
    protocol = {"protocol": "test", **({SEEN_SHARE: 1.0} if protocol else {})}
    card = Scorecard(protocol, {}, 100, "auto", figures, {"auto": {"popularity": {"hit@3": lift}}})
    assert card.advice().startswith(advice)
    assert bool(card.advice()) == bool(advice)
    assert card.advice() in repr(card)
    assert card.advice() in card._repr_html_()
    assert "popularity" not in repr(card) + card._repr_html_()


@pytest.mark.parametrize("made_of", ["business rule", "business rule; trained on 524,288 random users of 1,000,000"])
def test_a_trained_ensemble_that_is_the_rule_is_named(made_of: str) -> None:
    card = Scorecard({"protocol": "test", "made_of": made_of}, {}, 100, "auto", {}, {})
    assert card.advice().startswith("auto is the business rule, because no ensemble has a lower log loss")


def test_figures_are_plain_means() -> None:
    found, _, card = evaluated()
    for name, row in card.figures.items():
        positions = found[name].position.tolist()
        assert row["hit@3"].value == pytest.approx(sum(0 <= p < 3 for p in positions) / N, abs=1e-6)
        assert row["log_loss"].value == pytest.approx(-sum(math.log(c) for c in found[name].probability) / N, abs=1e-6)


def test_relative_lift_and_difference_tell_the_same() -> None:
    _, _, card = evaluated()
    better, base = card.figures["logistic"]["hit@3"].value, card.figures["popularity"]["hit@3"].value
    lift = card.lifts["logistic"]["popularity"]["hit@3"]
    assert lift.difference.value == pytest.approx(better - base, abs=2e-6)
    assert lift.relative.value == pytest.approx(better / base - 1, abs=2e-6)


def test_the_cohorts_of_an_attribute_add_up_to_all_users() -> None:
    _, _, card = evaluated()
    by_picks = [segment for segment in card.segments if segment.by == "picks"]
    assert [segment.name for segment in by_picks] == ["0", "1", "2", "3-5"]
    assert sum(segment.people for segment in by_picks) == N
    mean = sum(segment.people * segment.figures["logistic"].value for segment in by_picks) / N
    assert mean == pytest.approx(card.figures["logistic"]["hit@3"].value, abs=1e-5)
    assert all(segment.lifts.keys() == set(BASELINES) for segment in card.segments)


def test_confusion_counts_agree_with_counting_by_hand() -> None:
    found, asked, card = evaluated()
    assert card.confusion is not None
    by_hand = Counter(zip(asked.tops.tolist(), found["logistic"].shown[:, 0].tolist(), strict=True))
    assert {(i, j): n for i, row in enumerate(card.confusion.counts) for j, n in enumerate(row) if n} == by_hand


def test_a_first_genre_that_is_no_top_genre_counts_as_other() -> None:
    asked = made_people.examples(2)
    card = scorecard.score({"m": outcome([-1, 0], [0, 0])}, asked, {}, {}, seed=0)
    assert card.confusion is not None
    assert [sum(row[4] for row in card.confusion.counts), sum(row[0] for row in card.confusion.counts)] == [1, 1]


def test_reliability_has_the_calibration_error_and_its_range_by_noise() -> None:
    asked = made_people.examples(200)
    right = scorecard.score({"m": outcome([0] * 200, [0, 1] * 100)}, asked, {}, {}, seed=0).reliability["m"]
    assert right.error < right.luck[1]
    assert right.excess.value == 0
    wrong = scorecard.score({"m": outcome([0] * 200, [0, 0, 0, 1] * 50)}, asked, {}, {}, seed=0).reliability["m"]
    assert wrong.error == pytest.approx(0.25)
    assert wrong.error > wrong.luck[1]
    assert wrong.excess.low > 0


def test_with_ground_truth_every_model_has_its_fraction_of_the_bayes_optimum() -> None:
    asked = made_people.examples(50)
    truth = GroundTruth(made_people.GENRES, np.tile([0.4, 0.3, 0.2, 0.1], (50, 1)))
    first_two = np.stack([np.zeros(50), np.ones(50), *[np.full(50, -1)] * 3], axis=1).astype(np.int64)
    answered = HoldOutAnswers(np.zeros(50, dtype=np.int64), np.ones(50), first_two, np.ones(50), *before(50))
    card = scorecard.score({"m": answered}, asked, {}, {}, seed=0, truth=truth)
    assert card.ceiling is not None
    assert card.ceiling.best.value == pytest.approx(0.9)
    assert card.ceiling.expected["m"].value == pytest.approx(0.7)
    assert card.ceiling.share["m"].value == pytest.approx(7 / 9, abs=1e-6)


def test_a_lift_over_a_baseline_that_never_hits_is_not_defined() -> None:
    asked = made_people.examples(4)
    found = {"overall": outcome([0] * 4, [0] * 4), "m": outcome([0] * 4, [1] * 4)}
    lift = scorecard.score(found, asked, {}, {}, seed=0).lifts["m"]["overall"]["hit@1"]
    assert lift.difference.value == 1
    assert math.isnan(lift.relative.value)


def test_the_same_seed_gives_the_same_scorecard_as_json() -> None:
    found, asked, card = evaluated()
    again = scorecard.score(found, asked, {"protocol": "test"}, {"labelled": N}, seed=0)
    kept = msgspec.json.encode(card.to_dict())
    assert msgspec.json.encode(again.to_dict()) == kept
    assert json.loads(kept)["confusion"]["genres"] == list(made_people.GENRES)
    assert card.headline().keys() == {"protocol", "people", "best", "figures", "lifts", "evidence"}


def test_a_scorecard_read_back_is_the_same(tmp_path: Path) -> None:
    _, _, card = evaluated()
    (tmp_path / "card.json").write_bytes(msgspec.json.encode(card.to_dict()))
    assert scorecard.read_scorecard(tmp_path / "card.json") == card


def test_figures_that_are_not_defined_are_read_back_as_such(tmp_path: Path) -> None:
    found = {"overall": outcome([0] * 4, [0] * 4), "m": outcome([0] * 4, [1] * 4)}
    card = scorecard.score(found, made_people.examples(4), {}, {}, seed=0)
    (tmp_path / "card.json").write_bytes(msgspec.json.encode(card.to_dict()))
    lift = scorecard.read_scorecard(tmp_path / "card.json").lifts["m"]["overall"]["hit@1"]
    assert math.isnan(lift.relative.value)


def test_a_file_that_is_no_scorecard_is_refused(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text('{"people": 3}')
    with pytest.raises(InputError, match="is not a scorecard"):
        scorecard.read_scorecard(tmp_path / "card.json")

"""The learning curve on hand-made users, and its sentence on hand-made figures."""

from __future__ import annotations

import json
from pathlib import Path

import made_people
import msgspec
import numpy as np
import pytest

from firstspin.evaluation.bootstrap import Figure
from firstspin.evaluation.cross_validation import Split
from firstspin.evaluation.learning_curve import (
    CurvePoint,
    LearningCurve,
    _better_from,
    learning_curve,
    parse_sizes,
    write_curve,
)
from firstspin.models import registry
from firstspin.models.predictor import Predictor
from firstspin.models.task import Task, silent
from firstspin.records import Examples, InputError

N = 500


def prepare(users: Examples) -> Task:
    return registry.prepare(users, made_people.GENRES)


def curve_of(sizes: tuple[int, ...], trained: list[tuple[str, ...]] | None = None) -> LearningCurve:
    examples = made_people.examples(N)
    users = np.arange(N)
    splits = [Split(users[users % 2 == odd], users[users % 2 != odd]) for odd in (0, 1)]

    def prepared(some: Examples) -> Task:
        if trained is not None:
            trained.append(some.user_ids)
        return prepare(some)

    return learning_curve(examples, splits, sizes, "logistic", prepared, registry.fit, silent, seed=3)


def test_more_users_make_the_model_better_and_the_rule_no_worse() -> None:
    curve = curve_of((30, 120, 250))
    assert curve.held_out == N
    first, _, last = curve.points
    assert [point.users for point in curve.points] == [30, 120, 250]
    assert last.model["log_loss"].value < first.model["log_loss"].value
    assert curve.better_from in (30, 120, 250)
    assert curve.doubled["log_loss"].value < 0
    for point in curve.points:
        difference = point.model["hit@3"].value - point.rule["hit@3"].value
        assert point.difference["hit@3"].value == pytest.approx(difference, abs=2e-6)


def test_the_users_of_a_smaller_size_are_among_those_of_a_larger_one() -> None:
    trained: list[tuple[str, ...]] = []
    curve_of((40, 90), trained)
    assert sorted(map(len, trained)) == [40, 40, 90, 90]
    small, large = ([set(one) for one in trained if len(one) == size] for size in (40, 90))
    assert all(any(one < other for other in large) for one in small)


def test_the_same_seed_gives_the_same_curve() -> None:
    assert curve_of((40, 90)) == curve_of((40, 90))


def test_a_size_above_the_users_of_a_split_is_an_error() -> None:
    with pytest.raises(InputError, match="251 training users: there are 250 in a split"):
        curve_of((100, 251))


def test_a_curve_of_the_rule_has_no_difference() -> None:
    examples = made_people.examples(60)
    splits = [Split(np.arange(30), np.arange(30, 60))]

    def fit(name: str, task: Task) -> Predictor:
        return registry.fit(name, task)

    curve = learning_curve(examples, splits, (20,), "popularity", prepare, fit, silent, seed=0)
    assert curve.better_from is None
    assert curve.doubled == {}
    assert curve.points[0].difference["log_loss"] == Figure(0.0, 0.0, 0.0)


@pytest.mark.parametrize(("text", "sizes"), [("100,200", (100, 200)), (" 400, 100,100", (100, 400)), ("7", (7,))])
def test_sizes_are_read_in_rising_order(text: str, sizes: tuple[int, ...]) -> None:
    assert parse_sizes(text) == sizes


@pytest.mark.parametrize("text", ["", "100,", "0", "-5", "1e3", "a", "100;200", "٣", "9999999999"])
def test_other_sizes_are_an_error(text: str) -> None:
    with pytest.raises(InputError, match="numbers of training users"):
        parse_sizes(text)


def point(users: int, low: float, high: float) -> CurvePoint:
    figures = {"hit@3": Figure(0.5, 0.4, 0.6), "log_loss": Figure(2.0, 1.9, 2.1)}
    return CurvePoint(users, figures, figures, figures | {"log_loss": Figure((low + high) / 2, low, high)})


def test_better_from_is_the_first_of_the_points_that_all_are_better() -> None:
    better, unclear = (-0.2, -0.1), (-0.1, 0.1)
    assert _better_from([point(1, *better), point(2, *unclear), point(4, *better), point(8, *better)]) == 4
    assert _better_from([point(1, *better), point(2, *unclear)]) is None
    assert _better_from([point(1, *better), point(2, *better)]) == 1


def test_the_sentence_names_the_number_and_the_trend(tmp_path: Path) -> None:
    doubled = {"hit@3": Figure(0.01, 0.002, 0.018), "log_loss": Figure(-0.05, -0.06, -0.04)}
    curve = LearningCurve("auto", 700, (point(100, -0.1, 0.1), point(1200, -0.2, -0.1)), 1200, doubled)
    assert curve.sentence() == (
        "From 1,200 training users on, auto has a significantly lower log loss than the business rule. If the trend of "
        "the last points goes on, 2,400 users would change hit@3 by +0.010 (+0.002 to +0.018) and log loss by -0.050 "
        "(-0.060 to -0.040)."
    )
    unclear = msgspec.structs.replace(curve, better_from=None, doubled={})
    assert unclear.sentence() == "No significant difference in log loss to the business rule with 1,200 training users."
    worse = msgspec.structs.replace(unclear, points=(point(100, -0.2, -0.1), point(1200, 0.1, 0.2)))
    assert worse.sentence() == (
        "With 1,200 training users, auto has a significantly higher log loss than the business rule."
    )
    write_curve(curve, tmp_path / "curve.json")
    assert json.loads((tmp_path / "curve.json").read_bytes())["points"][1]["users"] == 1200

"""The input of a report on hand-made people."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from functools import cache

import made_people
import numpy as np

from firstspin.data.ground_truth import GroundTruth
from firstspin.evaluation import ablation, cross_validation, scorecard
from firstspin.evaluation.bootstrap import Figure
from firstspin.evaluation.learning_curve import CurvePoint, LearningCurve
from firstspin.evaluation.listens_curve import METRICS, STRATEGIES, ListensCurve, ListensGroup, ListensPoint
from firstspin.evaluation.report import page, patterns
from firstspin.evaluation.report.parts import BundleFacts, Material
from firstspin.evaluation.scorecard import BASELINES
from firstspin.models import registry
from firstspin.models.predictor import Predictor
from firstspin.models.registry import Learning
from firstspin.models.task import Task
from firstspin.records import Examples, LabelRule


def prepare(users: Examples) -> Task:
    return registry.prepare(users, made_people.GENRES)


def fit(name: str, examples: Examples, without: tuple[str, ...] = ()) -> Predictor:
    return registry.fit(name, registry.prepare(examples, made_people.GENRES, learning=Learning(without=without)))


def silent(step: str, done: float) -> None: ...


@cache
def material(known: bool = True) -> Material:
    examples = made_people.examples(240)
    splits = cross_validation.stratified_folds(examples.tops, 2, seed=0)
    validated = cross_validation.cross_validate(
        examples, splits, [*BASELINES, "logistic"], prepare, registry.fit, silent
    )
    found = {name: one.answers for name, one in validated.items()}
    asked = cross_validation.held_out(examples, splits)
    truth = GroundTruth(made_people.GENRES, np.tile([0.4, 0.3, 0.2, 0.1], (240, 1))) if known else None
    data: dict[str, object] = {"registered": 300, "dropped": {"no listen in the window": 60}}
    card = scorecard.score(found, asked, {"protocol": "2 folds"}, data, seed=0, truth=truth)
    study = ablation.study(
        examples,
        splits,
        "logistic",
        validated["logistic"],
        prepare,
        registry.refit,
        ("age", "country", "genres"),
        0,
        silent,
    )
    about = BundleFacts(
        "0badcafe", "logistic", "", "firstspin 0", 4, ("age", "genres"), {"labelled": 240, "from": "2025"}
    )
    rule = LabelRule(data_ends=datetime(2026, 1, 1))
    grid = patterns.answers_and_genres(fit("logistic", examples), examples)
    return Material(
        examples, rule, replace(card, questions=study), grid, about, name="made people", written=date(2026, 2, 1)
    )


def curve_of(*sizes: int) -> LearningCurve:
    """A learning curve of `auto` that begins at the hit@3 of the rule, and is better from the second point on."""

    def at(value: float, half: float) -> Figure:
        return Figure(round(value, 6), round(value - half, 6), round(value + half, 6))

    points = tuple(
        CurvePoint(
            users,
            {"hit@3": at(0.5 + 0.1 * i, 0.04), "log_loss": at(2.0 - 0.1 * i, 0.05)},
            {"hit@3": at(0.45, 0.04), "log_loss": at(2.0, 0.05)},
            {"hit@3": at(0.05 + 0.1 * i, 0.03), "log_loss": at(-0.1 * i, 0.05)},
        )
        for i, users in enumerate(sizes)
    )
    doubled = {"hit@3": at(0.01, 0.002), "log_loss": at(-0.05, 0.01)} if len(sizes) > 1 else {}
    return LearningCurve("auto", 240, points, sizes[1] if len(sizes) > 1 else None, doubled, "0badcafe")


def listens_curve_of(*numbers: int, optimum: bool = True) -> ListensCurve:
    """hit@3 of evidence rises by .02 a point from .6; the parents stay at .6 and .5; the optimum is at .9."""

    def at(value: float) -> Figure:
        return Figure(round(value, 6), round(value - 0.03, 6), round(value + 0.03, 6))

    def point(i: int, number: int) -> ListensPoint:
        values = dict(zip(STRATEGIES, (0.6 + 0.02 * i, 0.6, 0.5, 0.5), strict=True))
        figures = {name: {metric: at(value) for metric in METRICS} for name, value in values.items()}
        best = (at(0.9), at(0.7)) if optimum else (None, None)
        return ListensPoint(number, 100 - number, figures, {metric: at(0.02 * i) for metric in METRICS}, *best)

    points = tuple(point(i, number) for i, number in enumerate(numbers))
    named = (("gender", "female"), ("picks", "3-5"), ("month", "2025-01"))
    groups = tuple(ListensGroup(*name, 40, points) for name in named)
    return ListensCurve("auto", 100, points, groups, 84, (), "0badcafe")


@cache
def plain() -> str:
    """The page about the made people, which takes seconds to draw."""
    return page.page(material(), silent)


def least(content: str = "") -> str:
    """The smallest page that the service accepts as a report; nothing is drawn for it."""
    return f"""<meta name="bundle" content="0badcafe"> style-src 'sha256-A=' <style></style><main>{content}</main>"""


def html(bundle: str) -> str:
    """The same page about a bundle of this id."""
    return plain().replace(material().manifest.bundle, bundle)

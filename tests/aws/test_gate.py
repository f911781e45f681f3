"""A bundle takes another's place only where it is better, and the refusal says in which figure it is not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from firstspin.aws.gate import judge
from firstspin.evaluation.metrics import RankingMetric
from firstspin.serving.bundle import Manifest


def manifest(value: float | None, rule: float = 0.3, metric: str = "hit@3", people: str = "f") -> Manifest:
    """Of a bundle whose model scores `value` and the business rule beside it `rule`."""
    figures = {} if value is None else {"lightgbm": {metric: interval(value)}, "popularity": {metric: interval(rule)}}
    part = {"model": "lightgbm", "made_of": "", "kind": "bitrows", "genres": ["Rock"]}
    told: dict[str, Any] = {
        "format": 1,
        "created_by": "",
        "predictor": part,
        "rule": part,
        "encoder": {},
        "known_genres": ["Rock"],
        "extra": {},
        "label": {},
        "data": {"fingerprint": people},
        "scorecard": {"figures": figures},
        "golden": [],
        "files": {},
    }
    return msgspec.convert(told, Manifest)


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def test_the_better_one_passes() -> None:
    verdict = judge(manifest(0.61), manifest(0.6))
    assert verdict.passes
    assert verdict.why == (
        "its hit@3 of 0.6100 (0.5900 to 0.6300) beats the 0.6000 (0.5800 to 0.6200) of the bundle that serves, "
        "measured on the same people"
    )


@pytest.mark.parametrize("value", [0.59, 0.6])
def test_one_that_is_worse_or_no_better_does_not(value: float) -> None:
    verdict = judge(manifest(value, people="others"), manifest(0.6))
    assert not verdict.passes
    assert "does not beat the 0.6000" in verdict.why
    assert "each measured on people of its own" in verdict.why


def test_one_that_does_not_beat_the_business_rule_does_not_whatever_serves() -> None:
    verdict = judge(manifest(0.6, rule=0.61), manifest(0.2))
    assert not verdict.passes
    assert "does not beat the business rule's 0.6100" in verdict.why


def test_one_that_was_never_measured_does_not() -> None:
    assert "never measured" in judge(manifest(None), manifest(0.2)).why
    assert "never measured" in judge(msgspec.structs.replace(manifest(0.6), scorecard=None), manifest(0.2)).why


def test_where_the_serving_one_was_never_measured_any_that_beats_its_rule_passes() -> None:
    assert judge(manifest(0.4), manifest(None)).passes
    assert not judge(manifest(0.2), manifest(None)).passes


def test_of_a_loss_less_is_better() -> None:
    better = judge(manifest(1.6, rule=2.0, metric="log_loss"), manifest(1.7, metric="log_loss"), RankingMetric.LOG_LOSS)
    assert better.passes
    worse = judge(manifest(1.8, rule=2.0, metric="log_loss"), manifest(1.7, metric="log_loss"), RankingMetric.LOG_LOSS)
    assert not worse.passes

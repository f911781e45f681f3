from __future__ import annotations

import pytest

from firstspin.experiment.rules import Metric, Rules, checked_rules, parse_metric, parse_weights, percentile
from firstspin.records import InputError


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("clicked", Metric("clicked")),
        ("clicked:binary", Metric("clicked", "binary")),
        ("seconds:ratio=sessions", Metric("seconds", "ratio", "sessions")),
        ("seconds:continuous:cap=7200", Metric("seconds", "continuous", cap=7200.0)),
        ("seconds:continuous:cap=p99.5:margin=0.05", Metric("seconds", "continuous", cap="p99.5", margin=0.05)),
        ("clicked:binary:margin=0.1", Metric("clicked", "binary", margin=0.1)),
    ],
)
def test_a_metric_is_read_as_it_is_written(text: str, metric: Metric) -> None:
    assert parse_metric(text) == metric


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs a column"),
        (":binary", "needs a column"),
        ("clicked:often", "'often'"),
        ("seconds:ratio", "'ratio'"),
        ("seconds:ratio=", "'ratio='"),
        ("seconds:continuous:cap=lots", "'lots' is not a number"),
        ("seconds:continuous:cap=0", "above 0"),
        ("seconds:continuous:cap=nan", "above 0"),
        ("seconds:continuous:cap=p100", "below p100"),
        ("seconds:continuous:cap=p5", "from p50"),
        ("seconds:cap=5", "only a continuous metric has a cap"),
        ("seconds:continuous:margin=5", "between 0 and 1"),
    ],
)
def test_a_metric_that_makes_no_sense_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_metric(text)


def test_a_percentile_is_a_share_and_a_number_is_none() -> None:
    assert percentile(Metric("s", "continuous", cap="p99")) == pytest.approx(0.99)
    assert percentile(Metric("s", "continuous", cap=60.0)) is None


def test_weights_are_read_as_they_are_written_even_with_odd_names() -> None:
    assert parse_weights("A=1,the b=2.5") == {"A": 1.0, "the b": 2.5}
    assert parse_weights("a=b=3") == {"a=b": 3.0}


@pytest.mark.parametrize("text", ["A", "A=", "A=1,,B=1", "=1", "A=0", "A=-1", "A=inf", "A=1,A=2"])
def test_weights_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_weights(text)


CLICKED = (Metric("clicked", "binary"),)


def test_without_weights_all_arms_found_weigh_the_same() -> None:
    assert checked_rules(Rules(control="a", metrics=CLICKED), ["a", "b"]).weights == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (Rules(control="c", metrics=CLICKED), "control 'c' is not among the arms, a and b"),
        (Rules(control="c", metrics=CLICKED, weights={"a": 1, "b": 1}), "control 'c' is not among the arms, a and b"),
        (
            Rules(control="a", metrics=CLICKED, weights={"a": 1.0}),
            "weights are of a; the outcomes have the arms a and b",
        ),
        (Rules(control="a", metrics=CLICKED, weights={"A": 1, "B": 1}), "of A and B; the outcomes have the arms a"),
        (Rules(control="a", metrics=()), "a metric is missing"),
        (Rules(control="a", metrics=CLICKED, alpha=0.9), "alpha"),
        (Rules(control="a", metrics=CLICKED, peeking="obrien-fleming"), "number of days"),
    ],
)
def test_rules_that_do_not_fit_the_arms_are_refused(rules: Rules, words: str) -> None:
    with pytest.raises(InputError, match=words):
        checked_rules(rules, ["a", "b"])


def test_a_column_of_ids_in_place_of_the_arm_is_not_listed_in_full() -> None:
    arms = [f"user {number}" for number in range(10_000)]
    with pytest.raises(InputError, match="arms user 0, user 1, user 2, user 3, user 4 and 9,995 more") as refused:
        checked_rules(Rules(control="a", metrics=CLICKED, weights={"a": 1.0, "b": 1.0}), arms)
    assert "user" not in refused.value.bare


def test_one_arm_is_no_experiment() -> None:
    with pytest.raises(InputError, match="only arm is 'a'"):
        checked_rules(Rules(control="a", metrics=CLICKED), ["a"])

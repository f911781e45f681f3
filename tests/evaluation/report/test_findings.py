"""Statements about several groups at once: false alarms are rare together, ties are named, small groups are not."""

from __future__ import annotations

import numpy as np
import pytest

from firstspin.evaluation.bootstrap import Figure
from firstspin.evaluation.report.findings import among, apart, difference, is_clear, leaders, simultaneous


def test_simultaneous_intervals_are_those_of_bonferroni() -> None:
    figures = [Figure(0.10, 0.10 - 1.959964 * 0.02, 0.10 + 1.959964 * 0.02)] * 10
    # z of 0.05 / 20 in the upper tail is 2.807034
    for figure in simultaneous(figures):
        assert figure == Figure(0.10, pytest.approx(0.10 - 2.807034 * 0.02), pytest.approx(0.10 + 2.807034 * 0.02))
    assert among(figures[0], 10) == simultaneous(figures)[0]
    assert simultaneous(figures[:1])[0].low == pytest.approx(figures[0].low)
    assert simultaneous([]) == []


def test_of_twenty_equal_groups_one_is_called_different_in_one_report_of_twenty() -> None:
    rng = np.random.default_rng(0)
    reports, alone = 0, 0
    for _ in range(400):
        groups = rng.random((20, 100))
        figures = [difference(group, np.delete(groups, i, axis=0).ravel()) for i, group in enumerate(groups)]
        alone += any(map(is_clear, figures))
        reports += any(map(is_clear, simultaneous(figures)))
    assert reports / 400 <= 0.08
    assert alone / 400 >= 0.4  # what an uncorrected report would claim


def test_a_small_group_in_which_nobody_played_a_rare_genre_is_not_different() -> None:
    others = np.zeros(2000)
    others[:10] = 1.0  # half a percent
    assert not is_clear(difference(np.zeros(50), others))
    assert is_clear(difference(np.ones(50), others))


def test_the_difference_of_two_independent_figures() -> None:
    figure = apart(Figure(0.5, 0.47, 0.53), Figure(0.4, 0.36, 0.44))
    assert figure == Figure(pytest.approx(0.1), pytest.approx(0.05), pytest.approx(0.15))


def test_values_that_look_equal_are_tied() -> None:
    assert leaders({"a": 3.0, "b": 5.0, "c": 5.0}, 0) == ["b", "c"]
    assert leaders({"a": 0.1234, "b": 0.1233}, 3) == ["a", "b"]
    assert leaders({"a": 0.1234, "b": 0.1233}, 4) == ["a"]

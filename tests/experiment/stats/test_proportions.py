from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import kstest

from firstspin.experiment.stats.proportions import (
    TwoByTwo,
    difference_interval,
    difference_z,
    ratio_interval,
    ratio_z,
    table,
)

RUNS = 20_000
SIZE = 20_000


def all_corners_and_many_more() -> TwoByTwo:
    """Nobody, one, half, all but one and everybody, of arms of one user and of a million, and 2,000 arms at random."""
    corner = [(x, n) for n in (1, 2, 7, 100, 1_000_000) for x in sorted({0, min(1, n), n // 2, n - 1, n})]
    pairs = np.array([(*one, *zero) for one in corner for zero in corner]).T
    rng = np.random.default_rng(1)
    n = rng.integers(1, 100_000, (2, 2_000))
    x = rng.binomial(n, rng.random((2, 2_000)) ** 3)
    return table(*(np.concatenate(both) for both in zip(pairs, (x[0], n[0], x[1], n[1]), strict=True)))


MANY = all_corners_and_many_more()


def swapped(t: TwoByTwo) -> TwoByTwo:
    return TwoByTwo(t.clicked_control, t.n_control, t.clicked, t.n)


def rate_by_search(t: TwoByTwo, difference: float) -> float:
    """The control's most likely rate at this difference: where the slope of the likelihood is 0."""
    x1, n1, x0, n0 = (float(x) for x in t)

    def slope(rate: float) -> float:
        other = rate + difference
        return x1 / other - (n1 - x1) / (1 - other) + x0 / rate - (n0 - x0) / (1 - rate)

    low, high = max(0.0, -difference), min(1.0, 1 - difference)
    inside = (high - low) * 1e-12
    return float(brentq(slope, low + inside, high - inside, xtol=1e-15))


@given(
    n=st.tuples(st.integers(2, 100_000), st.integers(2, 100_000)),
    share=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    difference=st.floats(-0.9, 0.9),
)
def test_the_difference_is_tested_at_the_most_likely_rates(
    n: tuple[int, int], share: tuple[float, float], difference: float
) -> None:
    # at least one user each way, so that the likelihood peaks inside
    clicked = [1 + round((size - 2) * part) for size, part in zip(n, share, strict=True)]
    t = table(clicked[0], n[0], clicked[1], n[1])
    rate0 = rate_by_search(t, difference)
    rate1 = rate0 + difference
    variance = (rate1 * (1 - rate1) / n[0] + rate0 * (1 - rate0) / n[1]) * sum(n) / (sum(n) - 1)
    z = (clicked[0] / n[0] - clicked[1] / n[1] - difference) / np.sqrt(variance)
    assert float(difference_z(t, np.asarray(difference))) == pytest.approx(z, rel=1e-6, abs=1e-6)


def test_equal_rates_are_one_hypothesis_whether_as_ratio_or_as_difference() -> None:
    as_ratio, as_difference = ratio_z(MANY, np.ones_like(MANY.n)), difference_z(MANY, np.zeros_like(MANY.n))
    np.testing.assert_allclose(as_ratio, as_difference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("alpha", [1e-12, 0.001, 0.05, 0.1])
def test_an_interval_ends_where_the_test_begins_to_reject(alpha: float) -> None:
    for bound in ratio_interval(MANY, alpha):
        inside = (bound > 0) & (bound < np.inf)
        np.testing.assert_allclose(p_at(ratio_z, inside, bound), alpha, rtol=1e-4)
    for bound in difference_interval(MANY, alpha):
        inside = np.abs(bound) < 1 - 1e-6
        np.testing.assert_allclose(p_at(difference_z, inside, bound), alpha, rtol=1e-4)


def p_at(z: Callable[[TwoByTwo, np.ndarray], np.ndarray], where: np.ndarray, value: np.ndarray) -> np.ndarray:
    return 2 * ndtr(-np.abs(z(TwoByTwo(*(column[where] for column in MANY)), value[where])))


def test_swapping_the_arms_mirrors_the_intervals() -> None:
    (low, high), mirrored = ratio_interval(MANY, 0.05), ratio_interval(swapped(MANY), 0.05)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(mirrored, [1 / high, 1 / low], rtol=1e-7)
    (low, high), mirrored = difference_interval(MANY, 0.05), difference_interval(swapped(MANY), 0.05)
    np.testing.assert_allclose(mirrored, [-high, -low], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("counts", [(0, 100, 0, 100), (100, 100, 100, 100), (0, 1, 0, 1), (0, 7, 0, 100)])
def test_rates_of_0_or_100_percent_are_no_evidence_of_a_difference(counts: tuple[int, ...]) -> None:
    t = table(*counts)
    assert ratio_z(t, np.asarray(1.0)) == 0
    low, high = ratio_interval(t, 0.05)
    assert low < 1 < high


def test_a_published_interval_of_a_difference_comes_out() -> None:
    # 7 of 34 against 1 of 34: Fagerland, Lydersen and Laake (2015) print (0.028, 0.34) without the factor n / (n - 1).
    t = table(7, 34, 1, 34)
    uncorrected = 2 * ndtr(-1.959963984540054 * np.sqrt(67 / 68))
    low, high = difference_interval(t, float(uncorrected))
    assert (round(float(low), 3), round(float(high), 2)) == (0.028, 0.34)


def test_many_tests_at_once_are_each_test_alone() -> None:
    low, high = ratio_interval(MANY, 0.05)
    for i in range(0, len(MANY.n), 40):
        alone = ratio_interval(TwoByTwo(*(column[i] for column in MANY)), 0.05)
        assert [float(end) for end in alone] == pytest.approx([low[i], high[i]], rel=1e-10)


def test_twenty_thousand_tests_of_alike_arms_reject_one_in_twenty_with_even_p_values() -> None:
    rng = np.random.default_rng(20_000)
    alike = table(rng.binomial(SIZE, 0.05, RUNS), SIZE, rng.binomial(SIZE, 0.05, RUNS), SIZE)
    p = 2 * ndtr(-np.abs(ratio_z(alike, np.asarray(1.0))))
    assert 0.046 < np.mean(p <= 0.05) < 0.054
    assert kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("size", [SIZE, 2_000])
@pytest.mark.parametrize("gain", [0.0, 0.087, 0.5])
def test_twenty_thousand_intervals_hold_the_true_lift_as_often_as_they_say(gain: float, size: int) -> None:
    rng = np.random.default_rng(int(1000 * gain) + size)
    seen = table(rng.binomial(size, 0.05 * (1 + gain), RUNS), size, rng.binomial(size, 0.05, RUNS), size)
    low, high = ratio_interval(seen, 0.05)
    assert 0.943 < np.mean((low <= 1 + gain) & (1 + gain <= high)) < 0.957
    low, high = difference_interval(seen, 0.05)
    assert 0.943 < np.mean((low <= 0.05 * gain) & (0.05 * gain <= high)) < 0.957

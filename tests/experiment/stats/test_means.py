from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from firstspin.experiment.stats.means import Mean, critical, fieller, ratio_t, tail

means = st.builds(Mean, st.integers(2, 10**6), st.floats(0.01, 100), st.floats(1e-8, 10))


def mean_of(values: np.ndarray) -> Mean:
    return Mean(len(values), float(values.mean()), float(values.var(ddof=1)) / len(values))


def test_t_and_its_tail_are_those_of_welchs_test_in_scipy() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.lognormal(size=40), rng.lognormal(0.4, 1.3, size=25)
    theirs = stats.ttest_ind(a, b, equal_var=False)
    one, zero = mean_of(a), mean_of(b)
    t = ratio_t(one, zero, 1.0)
    assert t == pytest.approx(theirs.statistic)
    assert 2 * tail(one, zero, abs(t)) == pytest.approx(theirs.pvalue)
    ends = theirs.confidence_interval(0.95)
    assert critical(one, zero, 0.05) * math.sqrt(one.variance + zero.variance) == pytest.approx((ends[1] - ends[0]) / 2)


@given(one=means, zero=means)
def test_fieller_ends_where_the_test_of_that_ratio_begins_to_reject(one: Mean, zero: Mean) -> None:
    ends = fieller(one, zero, 2.0)
    if ends is None:
        assert zero.mean**2 <= 4 * zero.variance
    else:
        # A ratio of 0 is an end the root of a rounding error may move by.
        assert [abs(ratio_t(one, zero, end)) for end in ends] == pytest.approx([2.0, 2.0], abs=1e-4)


@given(one=means, zero=means)
def test_swapping_the_means_mirrors_the_ratios(one: Mean, zero: Mean) -> None:
    ends, mirrored = fieller(one, zero, 2.0), fieller(zero, one, 2.0)
    if ends and mirrored:
        assert mirrored == pytest.approx((1 / ends[1], 1 / ends[0]), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-80, 1.0, 1e50])
def test_the_unit_of_measurement_does_not_matter(scale: float) -> None:
    one, zero = (Mean(n, mean * scale, variance * scale**2) for n, mean, variance in ((10, 3.0, 0.5), (20, 2.0, 0.1)))
    t = ratio_t(one, zero, 1.0)
    assert (t, tail(one, zero, t)) == pytest.approx(
        (1 / 0.6**0.5, stats.t.sf(1 / 0.6**0.5, 0.36 / (0.25 / 9 + 0.01 / 19)))
    )


def test_means_tied_by_a_covariance_are_compared_more_sharply() -> None:
    one, zero = Mean(100, 1.1, 0.01), Mean(100, 1.0, 0.01)
    assert ratio_t(one, zero, 1.0, covariance=0.005) == pytest.approx(0.1 / 0.1)
    loose, tight = fieller(one, zero, 2.0), fieller(one, zero, 2.0, covariance=0.005)
    assert loose is not None
    assert tight is not None
    assert loose[0] < tight[0] < 1.1 < tight[1] < loose[1]


@pytest.mark.parametrize("zero", [Mean(100, 0.1, 0.01), Mean(100, 0.0, 0.01), Mean(100, -5.0, 0.01)])
def test_a_control_that_may_be_zero_or_is_negative_has_no_ratio(zero: Mean) -> None:
    assert fieller(Mean(100, 1.0, 0.01), zero, 2.0) is None


def test_twenty_thousand_tests_of_alike_heavy_tails_reject_one_in_twenty_and_hold_the_truth() -> None:
    rng = np.random.default_rng(11)
    rejected, held, runs, size = 0, 0, 20_000, 2_000
    for _ in range(runs // 1000):
        listened = rng.lognormal(0, 1, (2, 1000, size)) * (rng.random((2, 1000, size)) < 0.7)
        listened[1] *= 1.087
        average, variance = listened.mean(axis=2), listened.var(axis=2, ddof=1) / size
        for i in range(1000):
            zero, one = (Mean(size, average[arm, i], variance[arm, i]) for arm in (0, 1))
            beyond = critical(one, zero, 0.05)
            ends = fieller(one, zero, beyond)
            assert ends is not None
            held += ends[0] <= 1.087 <= ends[1]
            alike = Mean(size, one.mean / 1.087, one.variance / 1.087**2)
            rejected += abs(ratio_t(alike, zero, 1.0)) > beyond
    assert 0.046 < rejected / runs < 0.054
    assert 0.943 < held / runs < 0.957


@pytest.mark.parametrize("beyond", [1e155, 1e200, math.inf])
def test_a_level_of_next_to_no_error_leaves_every_ratio_possible(beyond: float) -> None:
    one, zero = Mean(2, 1.1, 0.01), Mean(2, 1.0, 0.01)
    assert fieller(one, zero, beyond) is None
    assert fieller(one, Mean(2, 1.0, 0.0), math.inf) is None

"""Each metric agrees with a slow and obvious version of itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from firstspin.evaluation import metrics

positions = st.lists(st.integers(-1, 30), min_size=1, max_size=50)


@given(positions, st.integers(1, 10))
def test_hit_and_ndcg_agree_with_plain_versions(found: list[int], k: int) -> None:
    array = np.array(found)
    assert metrics.hit(array, k).tolist() == [1.0 if 0 <= p < k else 0.0 for p in found]
    plain = [1 / math.log2(p + 2) if 0 <= p < k else 0.0 for p in found]
    assert metrics.ndcg(array, k) == pytest.approx(plain)


def test_an_unknown_genre_costs_a_finite_log_loss() -> None:
    assert metrics.log_loss(np.array([0.0]))[0] == pytest.approx(-math.log(1e-6))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_calibration_bins_hold_every_user_once(given_chances: list[tuple[float, bool]]) -> None:
    chances = np.array([chance for chance, _ in given_chances])
    hits = np.array([float(hit) for _, hit in given_chances])
    bins = metrics.calibration(chances, hits)
    assert sum(b["people"] for b in bins) == len(chances)
    assert sum(b["people"] * b["hit_rate"] for b in bins) == pytest.approx(hits.sum())
    assert 0 <= metrics.expected_calibration_error(chances, hits) <= 1


def test_perfect_probabilities_are_well_calibrated() -> None:
    rng = np.random.default_rng(1)
    chances = rng.random(200_000)
    hits = (rng.random(200_000) < chances).astype(float)
    assert metrics.expected_calibration_error(chances, hits) < 0.005


def test_an_error_of_perfect_probabilities_is_within_luck() -> None:
    rng = np.random.default_rng(5)
    within = 0
    for _ in range(100):
        chances = rng.random(400)
        error = metrics.expected_calibration_error(chances, (rng.random(400) < chances).astype(float))
        low, high = metrics.calibration_noise(chances, rng, draws=100)
        within += low <= error <= high
    assert within >= 85


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_agrees_with_statsmodels(counted: tuple[int, int]) -> None:
    hits, n = counted
    assert metrics.wilson(hits, n) == pytest.approx(proportion_confint(hits, n, method="wilson"), abs=1e-6)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 9))
def test_blocks_of_the_bootstrap_are_no_matter(n: int, resamples: int, seed: int) -> None:
    values = np.random.default_rng(seed).random((n, 3))
    rng = np.random.default_rng(seed)
    plain = [values[rng.integers(0, n, size=n)].mean(axis=0) for _ in range(resamples)]
    drawn = metrics.paired_bootstrap(values, resamples, np.random.default_rng(seed), at_once=2 * n)
    assert drawn == pytest.approx(np.array(plain))


def test_the_bootstrap_interval_covers_the_truth_as_often_as_it_says() -> None:
    """400 simulated evaluations of 300 people; the 95% interval of a paired lift must hold the true one 92 to 98%."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        easy = rng.random(300)
        base = (easy < 0.55).astype(float)
        better = (easy + 0.02 * rng.standard_normal(300) < 0.62).astype(float)
        drawn = metrics.paired_bootstrap(np.stack([base, better], axis=1), 400, rng)
        low, high = metrics.interval(drawn[:, 1] - drawn[:, 0])
        covered += low <= 0.07 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_pairing_makes_the_interval_of_a_difference_narrow() -> None:
    rng = np.random.default_rng(3)
    values = rng.random((500, 1))
    drawn = metrics.paired_bootstrap(np.hstack([values, values + 0.1]), 300, rng)
    low, high = metrics.interval(drawn[:, 1] - drawn[:, 0])
    assert (low, high) == pytest.approx((0.1, 0.1))

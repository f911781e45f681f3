"""Bins of held-out users: of at least 50, covering every probability."""

from __future__ import annotations

import numpy as np
import pytest

from firstspin.models.calibration import MIN_BIN, HoldOutCalibration, bin_of, hold_out_bins


def bins(n: int, seed: int = 0) -> HoldOutCalibration:
    rng = np.random.default_rng(seed)
    millionths = rng.integers(0, 1_000_001, n)
    picks = ["1" if i % 3 else "6+" for i in range(n)]
    return HoldOutCalibration(tuple(hold_out_bins("model", picks, 3, millionths, rng.random(n) * 1e6 < millionths)))


@pytest.mark.parametrize("n", [1, 49, 50, 51, 160, 5_000])
def test_every_user_is_in_one_bin_of_all_and_large_bands_have_their_own(n: int) -> None:
    kinds = bins(n).by_kind()
    assert sum(one.users for one in kinds["model", "all", 3]) == n
    assert all(one.users >= min(n, MIN_BIN) for of in kinds.values() for one in of)
    assert ("model", "6+", 3) in kinds or n < 150
    assert all(of[0].first == 0 for of in kinds.values())


def test_a_probability_falls_into_the_bin_of_its_band_or_of_all() -> None:
    kinds = bins(5_000).by_kind()
    assert all(bin_of(kinds, "model", "1", 3, place) in kinds["model", "1", 3] for place in range(20))
    found = bin_of(kinds, "model", "2", 3, 19)
    assert found is kinds["model", "all", 3][-1]
    assert bin_of(kinds, "listens", "1", 3, 4) is None


def test_the_excess_is_the_mean_probability_minus_the_share_of_hits() -> None:
    one = hold_out_bins("rule", ["0"] * 100, 1, np.full(100, 700_000), np.arange(100) < 60)[0]
    assert one.excess == pytest.approx(0.1)
    assert one.variance == pytest.approx(61 / 102 * 41 / 102 / 100)


def test_a_model_that_was_trained_on_the_hold_out_afterwards_has_its_error_once_more() -> None:
    """The models are means: the final one, corrected, is 1.2 times the mean of the hold-out minus 0.2 of the others."""
    rng = np.random.default_rng(0)
    others, held_out = rng.random((20_000, 400)) < 0.6, rng.random((20_000, 100)) < 0.6
    final = np.concatenate([others, held_out], axis=1).mean(axis=1)
    excess = others.mean(axis=1) - held_out.mean(axis=1)
    refit = hold_out_bins("rule", ["0"] * 100, 1, np.full(100, 600_000), np.arange(100) < 60, refit=0.2)[0]
    assert (final - excess).var() == pytest.approx(refit.variance, rel=0.04)

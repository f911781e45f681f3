"""A model that is worse than its business rule is reported, and one that is not is reported at most once in twenty."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from firstspin.watch.below_rule import ALPHA, e_value, rule_comparisons


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (3, 0), (0, 4), (7, 5), (40, 60), (60, 40)])
def test_the_e_value_is_the_mean_likelihood_ratio(wins: int, losses: int) -> None:
    p = (np.arange(100_000) + 0.5) / 200_000 + 0.5
    mean = np.exp(wins * np.log(2 * p) + losses * np.log(2 - 2 * p)).mean()
    assert e_value(wins, losses) == pytest.approx(mean, rel=1e-6)


def test_the_e_value_of_equal_hits_has_the_mean_one() -> None:
    """Over all outcomes of n fair coins, exactly."""
    for n in range(8):
        mean = sum(Fraction(comb(n, wins), 2**n) * Fraction(e_value(wins, n - wins)) for wins in range(n + 1))
        assert float(mean) == pytest.approx(1.0)


def test_any_number_of_users_has_an_e_value() -> None:
    assert e_value(100_000, 0) > 1e300
    assert e_value(0, 100_000) == pytest.approx(1 / 100_001)
    assert e_value(500_000, 500_000) < 1


def test_with_a_look_after_each_user_a_model_as_good_as_the_rule_is_seldom_reported() -> None:
    rng = np.random.default_rng(0)
    wins = np.cumsum(rng.random((300, 400)) < 0.5, axis=1).tolist()
    reported = [any(e_value(w, n - w) >= 1 / ALPHA for n, w in enumerate(of, 1)) for of in wins]
    assert np.mean(reported) <= ALPHA


def test_a_model_with_fewer_hits_than_the_rule_is_below_it() -> None:
    worse = Counter({(True, True): 50, (True, False): 10, (False, True): 40, (False, False): 100})
    equal = Counter({(True, True): 50, (True, False): 25, (False, True): 25, (False, False): 100})
    few = Counter({(False, True): 9})
    below, level = rule_comparisons({"a": worse, "b": equal, "c": few})
    assert (below.model, below.users, below.observed, below.by_rule, below.is_below) == ("a", 200, 0.3, 0.45, True)
    assert (level.model, level.observed, level.by_rule, level.is_below) == ("b", 0.375, 0.375, False)


def test_a_model_that_is_better_is_not_below() -> None:
    [one] = rule_comparisons({"a": Counter({(True, False): 40, (False, True): 10})})
    assert not one.is_below

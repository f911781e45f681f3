"""What early listens are worth: found where they tell, nothing where they are noise, defaults where there are few."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from firstspin.data.labels.early_listens import EarlyListens
from firstspin.models.evidence.scoring import Evidence, EvidenceSettings, default_evidence
from firstspin.models.evidence.training import HeldOut, fit_settings, log_ratios, moved
from firstspin.models.task import mean_log_loss
from firstspin.records import Listen

K = 4


def users(n: int, own: float, seed: int = 0) -> HeldOut:
    """n users of equal scores with six early listens each: a share `own` to their top genre, the rest at random."""
    rng = np.random.default_rng(seed)
    tops = rng.integers(K, size=n)
    person = np.repeat(np.arange(n), 6)
    genres = np.where(rng.random(len(person)) < own, tops[person], rng.integers(K, size=len(person)))
    picked = rng.random(len(person)) < 0.3
    return HeldOut(np.zeros((n, K)), tops, EarlyListens(person, genres, rng.exponential(300, len(person)) + 1, picked))


def test_telling_listens_lower_the_log_loss() -> None:
    train, test = users(1_000, 0.4), users(1_000, 0.4, seed=1)
    ratios = log_ratios(train.early, train.tops, K)
    settings = fit_settings(train, ratios, np.random.default_rng(0))
    assert settings.users == 1_000
    assert settings.log_loss_without == pytest.approx(np.log(K), abs=1e-6)
    assert settings.log_loss == pytest.approx(
        mean_log_loss(moved(test.scores, test.early, ratios, settings), test.tops), abs=0.25
    )
    # all six listens; Bayes: with P(h | g) known and no saturation, by simulation .83
    assert mean_log_loss(moved(test.scores, test.early, ratios, settings), test.tops) < 1.0


def test_listens_that_only_try_the_picks_count_less() -> None:
    telling, rng = users(2_000, 0.4), np.random.default_rng(3)
    early = telling.early
    tries = rng.random(len(early.users)) < 0.5  # half of the listens try the one pick, whatever the top genre
    pick = rng.integers(K, size=2_000)[early.users]
    genres = np.where(tries, pick, early.genres)
    trying = replace(telling, early=replace(early, genres=genres, picked=genres == pick))
    settings = fit_settings(trying, log_ratios(trying.early, trying.tops, K), np.random.default_rng(0))
    assert settings.picked < 0.5
    same = fit_settings(telling, log_ratios(early, telling.tops, K), np.random.default_rng(0))
    assert same.picked == pytest.approx(1.0, abs=0.25)  # there a pick changes nothing


def test_noise_is_not_used() -> None:
    noise = users(1_000, 0.0)
    settings = fit_settings(noise, log_ratios(noise.early, noise.tops, K), np.random.default_rng(0))
    assert settings.weight < 0.1
    few = [users(100, 0.0, seed) for seed in range(25)]  # by log loss alone, 3 of them have a weight
    fits = [
        fit_settings(one, log_ratios(one.early, one.tops, K), np.random.default_rng(n)) for n, one in enumerate(few)
    ]
    assert sum(fit.weight > 0 for fit in fits) <= 1


def test_too_few_users_with_early_listens_get_the_defaults() -> None:
    few = users(20, 0.4)
    ratios = log_ratios(few.early, few.tops, K)
    assert fit_settings(few, ratios, np.random.default_rng(0)) == EvidenceSettings()
    none = EarlyListens.none()
    popularity = (np.bincount(few.tops, minlength=K) + 0.5) / (20 + 0.5 * K)
    by_hand = default_evidence(tuple("abcd"), popularity.tolist(), {}).log_ratios
    assert log_ratios(none, few.tops, K) == pytest.approx(np.array(by_hand))


def test_training_and_serving_move_alike() -> None:
    some = users(50, 0.4)
    ratios = log_ratios(some.early, some.tops, K)
    settings = EvidenceSettings(0.7, 3.0, 45.0, picked=0.4)
    picks = np.random.default_rng(2).random((50, K)) < 0.3
    early = replace(some.early, picked=picks[some.early.users, some.early.genres])
    evidence = Evidence(tuple("abcd"), settings, ratios.tolist(), {str(i): i for i in range(K)})
    for user, expected in enumerate(moved(some.scores, early, ratios, settings)):
        own = some.early.users == user
        listens = [
            Listen(str(genre), float(seconds))
            for genre, seconds in zip(some.early.genres[own], some.early.seconds[own], strict=True)
        ]
        named = [f" {name.upper()}" for name, pick in zip("abcd", picks[user], strict=True) if pick]
        assert evidence.moves(listens, [*named, "polka"]) == pytest.approx(expected.tolist())


def test_early_listens_of_some_users_and_the_first_ones() -> None:
    picked = np.array([True, False, False, True, False])
    early = EarlyListens(np.array([0, 0, 2, 2, 2]), np.array([1, 2, 3, 0, 1]), np.arange(1.0, 6.0), picked)
    some = early.take(np.array([1, 2]))
    assert some.picked.tolist() == [False, True, False]
    assert (some.users.tolist(), some.genres.tolist(), some.seconds.tolist()) == ([1, 1, 1], [3, 0, 1], [3, 4, 5])
    assert early.first(1).genres.tolist() == [1, 3]
    assert early.first(np.array([0, 9, 2])).genres.tolist() == [3, 0]

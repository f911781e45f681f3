"""Off-policy evaluation on simulated logs: the estimates of a policy that was never shown, beside its true value."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from firstspin.simulation.oracle import NeverShown, never_shown, true_rates
from firstspin.simulation.world import Newcomers, World, clicks, make_world, newcomers

RUNS = 40


def looked_back(world: World, people: Newcomers, rng: np.random.Generator) -> tuple[NeverShown, ...]:
    """A log of half and half: the rule shows the first pick, the model what is likeliest; stations are genres."""
    first = [(registration.genres or ("Top 40 & Pop",))[0] for registration in people.registrations]
    best = [world.genres[i] for i in people.p.argmax(axis=1)]
    by_model = rng.random(len(first)) < 0.5
    shown = np.where(by_model, best, first)
    clicked = clicks(people, np.array([world.genres.index(genre) for genre in shown]))
    log = pa.table(
        {
            "candidates_rule": [[genre] for genre in first],
            "candidates_model": [[genre] for genre in best],
            "station_id": shown.tolist(),
            "clicked": clicked.astype(int),
        }
    )
    genres = {genre: genre for genre in world.genres}
    shares = {"rule": 1.0, "model": 1.0}
    return never_shown(people, log, shares, genres, world.genres, "Top 40 & Pop", rng)


@pytest.fixture(scope="module", params=[1_500, pytest.param(6_000, marks=pytest.mark.soak)])
def found(request: pytest.FixtureRequest) -> list[tuple[NeverShown, ...]]:
    world, rng = make_world(0), np.random.default_rng(0)
    return [looked_back(world, newcomers(world, request.param, rng), rng) for _ in range(RUNS)]


@pytest.mark.parametrize("policy", [0, 1])
@pytest.mark.parametrize("estimate", ["ips", "self_normalised", "doubly_robust"])
def test_the_intervals_hold_the_truth_as_often_as_they_say(
    found: list[tuple[NeverShown, ...]], policy: int, estimate: str
) -> None:
    values = [(getattr(run[policy].lookback, estimate).value, run[policy].truth) for run in found]
    assert sum(value.low <= truth <= value.high for value, truth in values) >= 0.85 * RUNS
    errors = np.array([value.value - truth for value, truth in values])
    assert abs(errors.mean()) < 3 * errors.std() / np.sqrt(RUNS)


def test_fewer_assumptions_cost_wider_intervals(found: list[tuple[NeverShown, ...]]) -> None:
    backs = [run[0].lookback for run in found]
    widths = [
        np.mean([getattr(back, name).value.high - getattr(back, name).value.low for back in backs])
        for name in ("doubly_robust", "self_normalised", "ips")
    ]
    assert all(narrow < 1.02 * wide for narrow, wide in pairwise(widths))
    assert all(0.2 < back.support < 0.6 for back in backs)
    assert all(run[1].lookback.support == 1 for run in found)


def test_what_both_arms_show_alike_has_no_lift() -> None:
    world = make_world(0)
    people = newcomers(world, 500, np.random.default_rng(1))
    rates = true_rates(people, people.favourite, people.favourite)
    assert rates.lift == 0
    assert true_rates(people, people.p.argmin(axis=1), people.p.argmax(axis=1)).lift > 0

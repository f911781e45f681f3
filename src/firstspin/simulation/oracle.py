"""Ground truth of a simulated experiment: true click rates, and the true values of off-policy estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from firstspin.experiment.look_back.off_policy import Lookback, evaluate_policy, first_candidates
from firstspin.simulation.world import Newcomers, click_probabilities

Genres = NDArray[np.int64]

MAX_YOUNG_AGE: Final = 40


class TrueRates(msgspec.Struct, frozen=True):
    """The true click rate of each arm's message over all users of the experiment, and the true lift.

    It is the true lift of listening per user as well: the simulated listening time does not depend on the genre.
    """

    control: float
    treatment: float
    lift: float


class NeverShown(msgspec.Struct, frozen=True):
    """A policy without exposures: its off-policy estimates, and its true value for the same users, if any."""

    policy: str
    lookback: Lookback
    truth: float | None


def true_rates(people: Newcomers, control: Genres, treatment: Genres) -> TrueRates:
    """The true click rates of messages about these genres (n,), over all users."""
    rate, rate_treated = (float(click_probabilities(people, shown).mean()) for shown in (control, treatment))
    return TrueRates(rate, rate_treated, rate_treated / rate - 1)


def never_shown(
    people: Newcomers,
    attributed: pa.Table,
    shares: Mapping[str, float],
    genre_of: Mapping[str, str],
    genres: Sequence[str],
    popular: str,
    rng: np.random.Generator,
) -> tuple[NeverShown, ...]:
    """Off-policy estimates of two policies from the log of the arms `rule` and `model`; `people` are its users by row.

    One policy shows the station `popular` to all users, the other the model's station to users under 40 and the rule's
    to the others.
    """
    by_rule, by_model = (first_candidates(attributed, arm) for arm in ("rule", "model"))
    ages = [registration.age for registration in people.registrations]
    mixed = [
        m if age is not None and age < MAX_YOUNG_AGE else r for age, r, m in zip(ages, by_rule, by_model, strict=True)
    ]
    policies = {
        "the most popular station": [popular] * len(mixed),
        f"the model under {MAX_YOUNG_AGE}, else the rule": mixed,
    }
    number = {genre: i for i, genre in enumerate(genres)}
    estimates = []
    for name, chosen in policies.items():
        lookback, supported = evaluate_policy(attributed, shares, chosen, rng, genres=genre_of)
        true = click_probabilities(people, np.array([number[genre_of[station]] for station in chosen]))
        truth = float(true[supported].mean()) if supported.any() else None
        estimates.append(NeverShown(name, lookback, truth))
    return tuple(estimates)

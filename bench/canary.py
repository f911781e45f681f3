"""Claim: a canary without a harm above its margin is stopped with a probability of at most alpha, whenever it is read.

`python bench/canary.py` simulates canaries of two weeks with a look every hour: 30,000 registrations a day, 5% of them
for the challenger. It prints the share that is ever stopped for harm, and after how long the harm is shown. A click is
known 24 hours after its message; these hours are not in the delay. `--canaries` says how many, `--seed` which.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.experiment.canary import MIN_USERS, TUNED_AT
from firstspin.experiment.stats.proportions import ratio_z, table
from firstspin.experiment.stats.sequential import one_sided_log_e

Numbers = NDArray[np.float64]

ALPHA: Final = 0.05
HOURS: Final = 24
AT_ONCE: Final = 500
"""Canaries that are simulated together, to bound the memory."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A plan, and how it turns out: `loss` is the challenger's true relative loss of the control's rate of clicks."""

    rate: float
    margin: float
    loss: float
    users_a_day: int = 30_000
    share: float = 0.05
    days: int = 14


@dataclass(frozen=True, slots=True)
class Stops:
    """Of m canaries: the hours (m,) until harm was shown, infinite where it never was; users of challengers by then."""

    hours: Numbers
    users: Numbers

    @property
    def share(self) -> float:
        """The share that was ever stopped."""
        return float(np.isfinite(self.hours).mean())


def simulate(canary: Canary, canaries: int, rng: np.random.Generator) -> Stops:
    """The stops of so many canaries, each with a look every hour."""
    parts = [_some(canary, min(AT_ONCE, canaries - done), rng) for done in range(0, canaries, AT_ONCE)]
    return Stops(np.concatenate([part.hours for part in parts]), np.concatenate([part.users for part in parts]))


def _some(canary: Canary, canaries: int, rng: np.random.Generator) -> Stops:
    users = rng.poisson(canary.users_a_day / HOURS, (canaries, canary.days * HOURS))
    n1 = rng.binomial(users, canary.share)
    clicked1, clicked0 = (
        rng.binomial(n, rate).cumsum(axis=1)
        for n, rate in ((n1, canary.rate * (1 - canary.loss)), (users - n1, canary.rate))
    )
    n1, users = n1.cumsum(axis=1), users.cumsum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # before there are users
        z = -ratio_z(
            table(clicked1, n1, clicked0, users - n1), np.full(users.shape, 1 - canary.margin), spread_as_observed=True
        )
        planned = canary.users_a_day * canary.days
        evidence = one_sided_log_e(z, users.astype(np.float64), ALPHA, tuned_for=planned * TUNED_AT)
    shown = (np.minimum(n1, users - n1) >= MIN_USERS) & (evidence >= math.log(1 / ALPHA))
    stopped, first = shown.any(axis=1), shown.argmax(axis=1)
    at = np.arange(canaries)
    return Stops(np.where(stopped, first + 1.0, np.inf), np.where(stopped, n1[at, first], n1[:, -1]).astype(np.float64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--canaries", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    print(f"{arguments.canaries:,} canaries, alpha {ALPHA:.0%}, a look every hour for 14 days\n")
    print("| clicks | margin | true loss | stopped for harm | shown after (median) | in 90% by | challenger's users |")
    print("|---|---|---|---|---|---|---|")
    for rate, margin in ((0.05, 0.1), (0.3, 0.05)):
        for loss in (0.0, margin, 0.2, 0.3, 0.5, 0.8):
            stops = simulate(Canary(rate, margin, loss), arguments.canaries, rng)
            median, late = (_hours(float(np.quantile(stops.hours, q, method="higher"))) for q in (0.5, 0.9))
            users = f"{np.median(stops.users):,.0f}"
            print(f"| {rate:.0%} | {margin:.0%} | {loss:.0%} | {stops.share:.1%} | {median} | {late} | {users} |")


def _hours(hours: float) -> str:
    return "–" if math.isinf(hours) else f"{hours:.0f} h" if hours < 48 else f"{hours / HOURS:.1f} days"


if __name__ == "__main__":
    main()

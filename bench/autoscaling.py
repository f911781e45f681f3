"""Claim: looking every 10 s, not every minute, cuts what a 20-fold spike overloads; how instances start matters more.

A simulation, second by second, of target tracking on a SageMaker variant; nothing here was measured on AWS. What is
assumed: CloudWatch's alarms of a target-tracking policy ring after 3 periods above the target and after 15 minutes
below nine tenths of it; a period's figure is there one period later; the policy asks for as many instances as bring the
load an instance to the target; an endpoint that is changing takes no further change; an instance serves `start` seconds
after it was asked for, and stops at once. Requests beyond what the instances hold in a second are not queued: the
gateway answers them by its fallback inside its budget (see docs/sagemaker.md), and they are counted as overload.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

DAY: Final = 86_400
OUT_PERIODS: Final = 3
IN_SECONDS: Final = 900
IN_SHARE: Final = 0.9
SEEDS: Final = 3

Arrivals = NDArray[np.int64]
"""Requests in each second."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How the number of instances follows the load. Times in seconds; `rps` is what one instance holds."""

    period: int
    rps: float = 200.0
    safety: float = 0.5
    start: int = 300
    least: int = 2
    most: int = 40
    out_cooldown: int = 60
    in_cooldown: int = 600

    @property
    def target(self) -> float:
        """Requests a second and instance that the policy holds."""
        return self.rps * self.safety

    def wanted(self, rate: float) -> int:
        """Instances that bring a rate to the target, within the bounds."""
        return min(max(math.ceil(rate / self.target), self.least), self.most)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it: all requests, those beyond what the instances held, and what was paid."""

    requests: int
    overload: int
    instance_seconds: int
    most: int

    @property
    def share(self) -> float:
        """Overload in all requests."""
        return self.overload / self.requests


@dataclass(slots=True)
class Fleet:
    """What serves, what was asked for and when it serves, and when the last change was asked for."""

    serving: int
    asked: int
    ready: int = 0
    changed: int = -DAY

    def settle(self, now: int) -> None:
        """Instances that were asked for come in when they are ready."""
        if now >= self.ready:
            self.serving = self.asked

    def ask(self, count: int, now: int, start: int) -> None:
        """Change the number: more come after `start` seconds, fewer at once."""
        self.ready = now + start if count > self.serving else now
        self.asked, self.changed = count, now
        self.settle(now)


def simulate(arrivals: Arrivals, policy: Policy) -> Outcome:
    """Replay the arrivals against the policy."""
    fleet = Fleet(policy.least, policy.least)
    seen: list[tuple[float, int]] = []  # of each period: requests a second, and instances that served
    overload = paid = most = 0
    for now, asked in enumerate(arrivals.tolist()):
        fleet.settle(now)
        if now and now % policy.period == 0:
            seen.append((float(arrivals[now - policy.period : now].mean()), fleet.serving))
            follow(fleet, seen[:-1], now, policy)  # the newest figure is there only a period later
        overload += max(0, asked - math.floor(fleet.serving * policy.rps))
        paid += max(fleet.serving, fleet.asked)  # paid for from the moment it was asked for
        most = max(most, fleet.asked)
    return Outcome(int(arrivals.sum()), overload, paid, most)


def follow(fleet: Fleet, seen: list[tuple[float, int]], now: int, policy: Policy) -> None:
    """Let the alarms ring and change the number of instances, if they may."""
    if now < fleet.ready or len(seen) < OUT_PERIODS:
        return
    rate = seen[-1][0]
    wanted, since = policy.wanted(rate), now - fleet.changed
    above = all(rate > serving * policy.target for rate, serving in seen[-OUT_PERIODS:])
    quiet = seen[-(IN_SECONDS // policy.period) :]
    below = all(rate < serving * policy.target * IN_SHARE for rate, serving in quiet)
    enough = len(quiet) * policy.period >= IN_SECONDS
    grows = above and wanted > fleet.asked and since >= policy.out_cooldown
    shrinks = below and enough and wanted < fleet.asked and since >= policy.in_cooldown
    if grows or shrinks:
        fleet.ask(wanted, now, policy.start)


def traffic(rng: np.random.Generator, mean: float, *, days: int = 2, spike: float = 20.0) -> Arrivals:
    """Requests each second of some days, `mean` a second: 0.3 of it at midnight, 1.7 at noon.

    On the last evening at seven comes a spike of so many times the rate, up in half a minute, for a quarter hour.
    """
    seconds = np.arange(days * DAY)
    rate = mean * (1 - 0.7 * np.cos(2 * np.pi * seconds / DAY))
    began = (days - 1) * DAY + 19 * 3600
    rate *= np.interp(seconds, [began, began + 30, began + 900, began + 930], [1, spike, spike, 1])
    return rng.poisson(rate).astype(np.int64)


def main() -> None:
    rps = Policy(60).rps
    newcomers = 50_000 / DAY
    evening = newcomers * (1 - 0.7 * math.cos(2 * math.pi * 19 / 24))
    print(
        f"50,000 registrations a day are {newcomers:.2f} a second; 20 times the evening's rate is {20 * evening:.0f},"
    )
    print(f"{20 * evening / rps:.0%} of one instance of {rps:.0f} requests/s: nothing scales.")
    print(f"Below, a service a hundred times as large ({newcomers * 100:.0f}/s), two days, medians of {SEEDS} seeds.\n")
    titles = f"{'metric':>8}{'start s':>9}{'safety':>8}{'least':>7}{'overload':>10}"
    print(f"{titles}{'of the spike':>14}{'inst.-hours':>13}{'most':>6}")
    loads = [traffic(np.random.default_rng(seed), newcomers * 100) for seed in range(SEEDS)]
    calm = [traffic(np.random.default_rng(seed), newcomers * 100, spike=1) for seed in range(SEEDS)]
    spike = float(np.median([a.sum() - b.sum() for a, b in zip(loads, calm, strict=True)]))
    for start in (60, 300):
        for safety, least in ((0.5, 2), (0.25, 2), (0.5, 8)):
            for period in (60, 10):
                policy = Policy(period, start=start, safety=safety, least=least)
                show(policy, [simulate(load, policy) for load in loads], spike)
    held = Policy(60, least=40)
    show(held, [simulate(load, held) for load in loads], spike)


def show(policy: Policy, found: list[Outcome], spike: float) -> None:
    overload = float(np.median([one.overload for one in found]))
    hours = float(np.median([one.instance_seconds for one in found]))
    share = float(np.median([one.share for one in found]))
    print(
        f"{f'{policy.period} s':>8}{policy.start:>9}{policy.safety:>8}{policy.least:>7}{share:>10.2%}"
        f"{overload / spike:>14.1%}{hours / 3600:>13.1f}{max(one.most for one in found):>6}"
    )


if __name__ == "__main__":
    main()

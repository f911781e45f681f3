"""Many months of the exploration slot: how far its off-policy estimates are from the truth."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from firstspin.simulation.exploration import POLICIES, SLOT, SlotMonth, look_back_all, make_audience, run_policy


@dataclass(frozen=True)
class Errors:
    """The mean error of the estimates, its standard error, and the share of intervals with the truth in them."""

    bias: float
    bias_error: float
    coverage: float


def errors(month: SlotMonth, runs: int) -> dict[str, Errors]:
    """By policy, over months of the same users and stations, with other clicks and other draws."""
    audience = make_audience(month)
    found: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for i in range(runs):
        rng = np.random.default_rng([month.seed, i])
        uniform, reluctance = rng.random((2, len(audience.p)))
        this = replace(month, slot=msgspec.structs.replace(month.slot, seed=i))
        drawn = replace(audience, uniform=uniform, reluctance=reluctance)
        for one in look_back_all(this, drawn, run_policy(this, drawn, POLICIES[SLOT])):
            value = one.lookback.ips.value
            if value.value is not None:  # without an interval it is not covered
                covered = value.low is not None and value.high is not None and value.low <= one.truth <= value.high
                found[one.policy].append((value.value - one.truth, covered))
    return {
        name: Errors(float(off.mean()), float(off.std() / len(off) ** 0.5), float(covered.mean()))
        for name, (off, covered) in ((name, np.array(of).T) for name, of in found.items())
    }

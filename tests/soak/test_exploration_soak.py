"""The coverage of off-policy estimates from the exploration slot's log, over many simulated months.

SLOT_RUNS says how many months; the error of a coverage of 95% is 0.35 points for the default.
"""

from __future__ import annotations

import os

import pytest
from slot_months import errors

from firstspin.serving.slot.exploration import SlotSettings
from firstspin.simulation.exploration import SlotMonth

RUNS = int(os.environ.get("SLOT_RUNS", "4000"))


@pytest.mark.soak
def test_intervals_have_their_coverage_and_estimates_no_bias() -> None:
    """With floors that give the newest station more than 50 clicks, so that the normal approximation holds."""
    slot = SlotSettings(draws=64, budget=0.2, floor=0.1, new_until=5000)
    month = SlotMonth(users_a_day=1000, updates_a_day=1, slot=slot)
    for name, of in errors(month, RUNS).items():
        assert abs(of.bias) < 4 * of.bias_error, name
        assert 0.94 <= of.coverage <= 0.96, f"{name}: {of.coverage:.1%}"

"""An experiment of two halves, and the secret of its ids."""

from __future__ import annotations

from datetime import date

from firstspin.events.schema import Secret
from firstspin.experiment.plan import Plan
from firstspin.experiment.rules import Metric
from firstspin.serving.experiment import running

SECRET = Secret(bytes(32))
PLAN = Plan(
    name="first",
    starts_on=date(2026, 1, 26),
    control="rule",
    arms={"rule": 1.0, "model": 1.0},
    metrics=(Metric("clicked", "binary"),),
    registrations_a_day=1_000,
    baseline=0.05,
    minimum_effect=0.1,
)
HALVES = running(PLAN)

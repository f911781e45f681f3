"""What makes a valid plan a doubtful one: effects nobody sees, too few users, days in the past, arms nothing serves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Final

from firstspin.experiment.plan import Plan
from firstspin.experiment.rules import listed
from firstspin.experiment.stats.sizing import WEEK, Sizing

LARGE_LIFT: Final = 0.5
"""Larger lifts are rare: of the tests that are published, most show less than 10%."""

SMALL_LIFT: Final = 0.005
MAX_CANARY: Final = 0.2
"""Share of a canary's challenger above which a harm meets many users before it is shown."""
MIN_OUTCOMES: Final = 10
"""Expected users with the outcome, by arm, below which the intervals are too wide for any use."""


def plan_warnings(plan: Plan, needed: Sizing, *, today: date, unserved: Sequence[str] = ()) -> Iterator[str]:
    """One sentence per doubt about a plan of this sizing; `unserved` are its arms that the service does not answer."""
    yield from _about_effect(plan)
    yield from _about_users(plan, needed)
    if plan.starts_on < today:
        over = plan.starts_on + timedelta(days=plan.days) <= today
        state = "the planned days are over" if over else f"{(today - plan.starts_on).days} of the days are over"
        yield f"starts_on {plan.starts_on} is in the past ({state}): users who came before the test runs are not in it."
    challenger = 1 - plan.arms[plan.control] / sum(plan.arms.values())
    if plan.harm_margin is not None and challenger > MAX_CANARY:
        yield f"The challenger answers {challenger:.0%} of the users: a canary has a small share, such as 5%."
    if plan.days % WEEK:
        yield f"{plan.days} days are not whole weeks: weekdays have unequal weights."
    if unserved:
        yield (
            f"{listed(unserved)}: firstspin serves arms named model, rule or challenger, or beginning so "
            "(model-b); for other arms another system must assign the users."
        )


def _about_effect(plan: Plan) -> Iterator[str]:
    effect, before = plan.minimum_effect, plan.baseline
    after = before * (1 + effect)
    levels = f"from {before:.2%} to {after:.2%}" if plan.deviation is None else f"from {before:g} to {after:g}"
    if effect > LARGE_LIFT:
        yield f"A lift of {effect:.0%} ({levels}) is implausible; --minimum-effect is relative: 8.7% is 0.087."
    elif effect < SMALL_LIFT:
        yield (
            f"A lift of {effect:.2%} ({levels}) is hardly measurable; --minimum-effect is relative to the baseline, "
            "not a difference in points."
        )


def _about_users(plan: Plan, needed: Sizing) -> Iterator[str]:
    share = min(plan.arms.values()) / sum(plan.arms.values())
    users = plan.registrations_a_day * plan.coverage * plan.days * share
    outcomes = users * plan.baseline if plan.deviation is None else users
    if outcomes < MIN_OUTCOMES:
        what = "users with the outcome" if plan.deviation is None else "users"
        yield f"Too few users: in {plan.days} days the smallest arm has about {outcomes:.1f} {what}."
    if needed.power_at_days < plan.power:
        aim, other = "a lift", "test for a larger lift"
        if plan.harm_margin is not None:
            aim, other = "ruling out a loss", "test with a larger margin"
        yield (
            f"Too few users: {plan.days} days have a power of {needed.power_at_days:.0%} for {aim} of "
            f"{plan.minimum_effect:.1%}, not {plan.power:.0%}. {needed.days_needed:,} days are needed; or "
            f"{other}, or with more users a day."
        )

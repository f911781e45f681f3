from __future__ import annotations

import re
from datetime import date

import msgspec
import pytest
from made_experiments import PLAN

from firstspin.experiment.plan_warnings import plan_warnings
from firstspin.experiment.stats.sizing import plan_sizing

SOUND = msgspec.structs.replace(PLAN, registrations_a_day=20_000)


def doubts(*, unserved: tuple[str, ...] = (), today: date = date(2026, 1, 20), **fields: object) -> list[str]:
    plan = msgspec.structs.replace(SOUND, **fields)
    return list(plan_warnings(plan, plan_sizing(plan), today=today, unserved=unserved))


def test_a_sound_plan_has_no_warnings() -> None:
    assert doubts() == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"minimum_effect": 8.7}, r"A lift of 870% \(from 5.00% to 48.50%\) is implausible; .* 8.7% is 0.087"),
        ({"minimum_effect": 0.004}, r"A lift of 0.40% \(from 5.00% to 5.02%\) is hardly measurable"),
        (
            {"registrations_a_day": 1_000},
            "14 days have a power of 26% for a lift of 10.0%, not 80%. 63 days are needed",
        ),
        ({"registrations_a_day": 20}, "in 14 days the smallest arm has about 7.0 users with the outcome"),
        ({"today": date(2026, 1, 28)}, r"starts_on 2026-01-26 is in the past \(2 of the days are over\)"),
        ({"today": date(2026, 11, 28)}, r"in the past \(the planned days are over\)"),
        ({"days": 10}, "10 days are not whole weeks"),
        ({"unserved": ("blue", "green")}, r"blue and green: firstspin serves arms named model, rule or challenger"),
    ],
)
def test_doubts_about_a_plan_are_named(fields: dict[str, object], words: str) -> None:
    found = doubts(**fields)
    assert [doubt for doubt in found if re.search(words, doubt)], found

"""Health and progress are always told; who is ahead is in no figure before the plan allows it."""

from __future__ import annotations

import csv
from datetime import date, timedelta
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from made_experiments import CANARY, PLAN, START, log
from msgspec import structs

from firstspin.experiment.monitor import Progress, csv_rows, monitor
from firstspin.experiment.plan import Plan, reads_at
from firstspin.experiment.rules import Metric
from firstspin.experiment.run import analyse_log
from firstspin.service.notices import causes

LOOKING = structs.replace(PLAN, peeking="obrien-fleming")


def state(folder: Path, plan: Plan, days: int, **how: object) -> Progress:
    """After so many days of users, at noon of the next day."""
    return monitor(log(folder, plan, days, **how), plan, START + timedelta(days=days, hours=12))  # type: ignore[arg-type]


def test_before_the_end_no_figure_of_a_plan_without_looking_says_who_is_ahead(tmp_path: Path) -> None:
    found = state(tmp_path, PLAN, 3)
    assert (found.status, found.day, found.users, found.is_hidden) == ("collecting", 4, 600, True)
    assert (found.metrics, found.interims) == ((), ())
    written = StringIO()
    csv.writer(written).writerows(csv_rows(found))
    text = msgspec.json.encode(found).decode() + written.getvalue() + found.sentence
    assert "40.0%" not in text
    assert "lift" not in written.getvalue()
    assert "0.4" not in written.getvalue()
    assert [day.users for day in found.daily] == [{"rule": 100, "model": 100}] * 3
    assert "does not allow looking" in found.next


def test_a_plan_with_looking_shows_the_sequential_interval_and_may_end_early(tmp_path: Path) -> None:
    found = state(tmp_path, LOOKING, 3)
    assert (found.status, found.is_hidden) == ("winner", False)
    assert [interim.day.day for interim in found.interims] == [26, 27, 28]
    alike = state(tmp_path, LOOKING, 3, clickers={"rule": 5, "model": 5})
    assert (alike.status, alike.is_hidden) == ("collecting", False)
    assert "ends it early" in alike.next


def test_after_the_end_the_result_is_shown(tmp_path: Path) -> None:
    folder = log(tmp_path, PLAN, 14)
    found = monitor(folder, PLAN, reads_at(PLAN))
    assert (found.status, found.is_hidden) == ("winner", False)
    assert ("clicked: mean", "model", "", 0.4) in set(csv_rows(found))
    log(tmp_path, PLAN, 14, clickers={"rule": 5, "model": 5})
    assert monitor(folder, PLAN, reads_at(PLAN)).status == "no difference shown"
    log(tmp_path, PLAN, 14, clickers={"rule": 40, "model": 5})
    found = monitor(folder, PLAN, reads_at(PLAN))
    assert (found.status, found.next) == ("control is better", "Keep rule.")


def test_a_guardrail_that_is_not_kept_is_a_status(tmp_path: Path) -> None:
    guarded = structs.replace(PLAN, metrics=(*PLAN.metrics, Metric("seconds", "continuous", margin=0.05)))
    found = monitor(log(tmp_path, guarded, 14), guarded, reads_at(guarded))  # nobody listened: it can't be shown
    assert (found.status, found.is_hidden) == ("guardrail not kept", False)
    assert found.next == "Keep rule, unless the possible loss is acceptable."


def test_an_unhealthy_experiment_has_no_result(tmp_path: Path) -> None:
    uneven = state(tmp_path, LOOKING, 3, rule_users=50)
    assert (uneven.status, uneven.split_sound, uneven.metrics) == ("unhealthy", False, ())
    assert uneven.e_value is not None
    assert uneven.e_value > 1000
    fallen = state(tmp_path, LOOKING, 3, source="no-model")
    assert (fallen.status, fallen.metrics) == ("unhealthy", ())
    assert "100.0% of model" in fallen.sentence
    assert [arm.fallback_share for arm in fallen.arms] == [0.0, 1.0]


def test_a_canary_says_what_its_rule_says(tmp_path: Path) -> None:
    found = state(tmp_path, CANARY, 3, clickers={"model": 30, "challenger": 30})
    assert (found.status, found.is_hidden) == ("collecting", False)
    assert found.sentence.startswith("Go on with the canary")
    assert "stops it at any time" in found.next
    found = state(tmp_path, CANARY, 3, clickers={"model": 30, "challenger": 5})
    assert (found.status, found.next) == ("stop the canary", "Keep model; the next challenger is a new plan.")
    assert [kind for kind, _, _ in causes(found)] == ["experiment.canary_stopped"]
    [evidence] = [value for figure, *_, value in csv_rows(found) if figure == "clicked: evidence of harm"]
    assert isinstance(evidence, float)
    assert evidence > 20
    alike = log(tmp_path, CANARY, 14, clickers={"model": 90, "challenger": 90})
    assert monitor(alike, CANARY, reads_at(CANARY)).status == "promote the challenger"


def test_a_challenger_that_fails_stops_its_canary(tmp_path: Path) -> None:
    found = state(tmp_path, CANARY, 2, clickers={"model": 30, "challenger": 30}, source="champion")
    assert found.status == "stop the canary"
    assert found.sentence == "Stop the canary: a fallback answered 100.0% of the users of challenger; the limit is 5%."
    _, verdict = analyse_log(tmp_path, CANARY, now=START + timedelta(days=2, hours=12))
    assert (verdict.decision, verdict.sentence) == ("stop the canary", found.sentence)


def test_users_whose_window_is_open_are_counted(tmp_path: Path) -> None:
    folder = log(tmp_path, PLAN, 3)
    assert monitor(folder, PLAN, START + timedelta(days=3)).open_windows == 200
    assert monitor(folder, PLAN, START + timedelta(days=3, hours=6)).open_windows == 0


@pytest.mark.parametrize(("hours", "status"), [(-1, "not started"), (1, "collecting")])
def test_without_a_user_it_says_what_to_do(tmp_path: Path, hours: int, status: str) -> None:
    found = monitor(log(tmp_path, PLAN, 1), PLAN, START + timedelta(hours=hours))
    assert (found.status, found.users) == (status, 0)
    assert "The experiment starts" in found.sentence or "/v1/recommendations" in found.next


def test_an_experiment_that_ended_without_a_user_is_not_collecting(tmp_path: Path) -> None:
    plan = structs.replace(PLAN, starts_on=date(2025, 1, 26))  # the users of the log come a year later
    found = monitor(log(tmp_path, plan, 1), plan, START)
    assert (found.status, found.users, found.is_hidden) == ("no users", 0, True)

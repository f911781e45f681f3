"""The pages of the running experiment: event store -> figures -> files, which the workers serve.

This runs in a process of its own, whose parent kills it when it takes too long: workers import nothing of it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any, Final

import msgspec

from firstspin.events.database import Database
from firstspin.experiment import run
from firstspin.experiment.monitor import Progress, csv_rows, monitor
from firstspin.experiment.plan import Plan
from firstspin.experiment.verdict import MetricResult, metric_table
from firstspin.files import workspace, written_beside
from firstspin.service.pages import charts
from firstspin.service.pages.experiments import LIST
from firstspin.serving.experiment import arm_policy

TONES: Final = {"unhealthy": "bad", "winner": "good", "collecting": "warn", "ready to read": "good"}


class Listed(msgspec.Struct, frozen=True):
    """An experiment in the list, from its file of figures."""

    experiment: str
    status: str
    sentence: str
    users: int
    users_needed: int
    as_of: datetime

    @property
    def name(self) -> str:
        """Its name, without the hash of its plan."""
        return self.experiment.partition("@")[0]

    @property
    def tone(self) -> str:
        """The colour of its status."""
        return TONES.get(self.status, "")


def analyse_store(database: Database, plan: Plan, folder: Path, *, now: datetime) -> None:
    """`write_pages` from the event store. Raises InputError or Unavailable where it can't be read."""
    with workspace("pages") as work:
        write_pages(run.read_log(database, plan, work), plan, folder, now=now)


def write_pages(log: Path, plan: Plan, folder: Path, *, now: datetime) -> Progress:
    """Analyse a log (see `run.read_log`) as known at `now`; write the page, memo, CSV and JSON, and the list of all.

    Raises InputError where the log can't be read or does not fit the plan.
    """
    state = monitor(log, plan, now)
    about = _about(state, plan)
    figures = StringIO()
    csv.writer(figures).writerows(csv_rows(state))
    for suffix, text in {
        "json": msgspec.json.format(msgspec.json.encode(state), indent=2).decode(),  # first: pages read it
        "html": _rendered("experiment.html.jinja", about),
        "memo": _rendered("memo.html.jinja", about),
        "csv": figures.getvalue(),
    }.items():
        _write(folder / f"{plan.name}.{suffix}", text)
    listed = [msgspec.json.decode(path.read_bytes(), type=Listed) for path in folder.glob("*.json")]
    listed.sort(key=lambda one: (one.name != plan.name, one.name))
    _write(folder / LIST, _rendered("experiment_list.html.jinja", {"experiments": listed}))
    return state


def _write(path: Path, text: str) -> None:
    with written_beside(path, shared=True) as beside:
        beside.write_text(text, encoding="utf-8")


def _rendered(template: str, values: Mapping[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(values)


def _about(state: Progress, plan: Plan) -> dict[str, Any]:
    """What the templates show beside the figures themselves."""
    classes = _classes(plan.arms)
    days = [day.users for day in state.daily]
    totals = [sum(sum(day.values()) for day in days[: number + 1]) for number in range(len(days))]
    shares = [arm.users / state.users for arm in state.arms] if state.users else []
    return {
        "state": state,
        "plan": plan,
        "name": plan.name,
        "tone": TONES.get(state.status, ""),
        "treatments": " or ".join(arm for arm in plan.arms if arm != plan.control),
        "classes": classes,
        "arm_names": " / ".join(plan.arms),
        "split": " / ".join(f"{100 * share:.1f}" for share in shares) or "–",
        "e_value": None if state.e_value is None else f"{state.e_value:.2g}",
        "fallbacks": " / ".join(f"{arm.fallback_share:.1%}" for arm in state.arms),
        "exposures": charts.bars(_by_day(state), state.days, classes, _a_day(plan), "Exposures a day, by arm"),
        "cumulative": charts.progress(
            totals,
            state.days,
            state.users_expected,
            f"{state.users:,} users so far, of {state.users_expected:,} planned",
        ),
        "interims": [(arm, charts.band(*_interims(state, arm))) for arm in _compared(state)],
        "rows": [row for measured in state.metrics for row in _rows(measured)],
    }


def _rows(measured: MetricResult) -> list[tuple[str, ...]]:
    """Metric, arm, mean, lift, interval and note of each arm."""
    return [
        (measured.metric, arm, mean, *(re.sub(r"-(?=\d)", "−", words) for words in (lift, interval)), note)
        for arm, _, mean, lift, interval, _, note in metric_table(measured, levels=True).rows
    ]


def _classes(arms: Mapping[str, float]) -> dict[str, str]:
    """The colour of each arm: the rule's, the model's for the first arm of a model, then the challenger's."""
    models = iter(("model", "challenger"))
    rules = iter(("rule",))
    return {arm: next(rules if arm_policy(arm) == "rule" else models, "other") for arm in arms}


def _by_day(state: Progress) -> list[dict[str, int]]:
    """The users of every day of the plan up to the last with a user; days without one are empty."""
    by_day = {(day.day - state.starts_on).days: day.users for day in state.daily}
    return [by_day.get(number, {}) for number in range(max(by_day, default=-1) + 1)]


def _a_day(plan: Plan) -> float:
    """The planned users of an arm a day, with equal arms."""
    return plan.registrations_a_day * plan.coverage / len(plan.arms)


def _compared(state: Progress) -> Sequence[str]:
    return list(state.interims[0].lifts) if state.interims else []


def _interims(state: Progress, arm: str) -> tuple[list[charts.Interval | None], int, str]:
    lifts = [interim.lifts[arm].relative for interim in state.interims]
    intervals = [
        None if lift.value is None or lift.low is None or lift.high is None else (lift.value, lift.low, lift.high)
        for lift in lifts
    ]
    last = next((interval for interval in reversed(intervals) if interval), None)
    ends = "not defined yet" if last is None else "{}, from {} to {}".format(*map(charts.signed, last))
    return intervals, state.days, f"Lift of {arm} over {state.control} by day; now {ends}"

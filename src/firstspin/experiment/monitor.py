"""The state of a running experiment as figures: health and progress always, results only where the plan allows them.

Before the planned end, and without a rule for interim analyses, no mean, lift or interval of an arm is in a `Progress`:
what is not there can't be shown by mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Final, Literal

import msgspec

from firstspin.experiment.analyse import analyse
from firstspin.experiment.attribution import Attributed, attribute_export, planned_outcomes
from firstspin.experiment.canary import FALLBACK_ALARM
from firstspin.experiment.plan import Plan, experiment_key, plan_rules, reads_at
from firstspin.experiment.stats.sizing import plan_sizing
from firstspin.experiment.verdict import DailyLift, Decision, Harm, MetricResult, Verdict
from firstspin.serving.experiment import arm_policy
from firstspin.serving.policy import lacks_model

Status = Literal[
    "not started",
    "collecting",
    "unhealthy",
    "no users",
    "winner",
    "control is better",
    "guardrail not kept",
    "no difference shown",
    "stop the canary",
    "promote the challenger",
]
READ: Final[dict[Decision, tuple[Status, str]]] = {
    "winner": ("winner", "Let {winner} answer all users."),
    "control is better": ("control is better", "Keep {control}."),
    "guardrail not kept": (
        "guardrail not kept",
        "Keep {control}, unless the possible loss is acceptable.",
    ),
    "no difference shown": ("no difference shown", "Keep {control}, or choose by cost: the test does not decide."),
    "stop the canary": ("stop the canary", "Keep {control}; the next challenger is a new plan."),
    "promote the challenger": ("promote the challenger", "Let the challenger's bundle answer all users."),
}
"""The status of each decision that has been made, and what to do."""


class ArmProgress(msgspec.Struct, frozen=True):
    """An arm: its planned share, its users so far, and the share of its users whom a fallback answered."""

    arm: str
    planned_share: float
    users: int
    fallback_share: float


class Day(msgspec.Struct, frozen=True):
    """The users first exposed on a day (UTC), by arm."""

    day: date
    users: dict[str, int]


class Progress(msgspec.Struct, frozen=True):
    """An experiment as known at `as_of`.

    `day` is the day of the plan, from 1, and `reads_at` its planned analysis. `users_needed` reach the plan's power;
    `power` is that of the planned days. `e_value` is the evidence against the planned split, `split_sound` its result.
    `open_windows` counts users who may still click. `metrics`, and `interims` by day, are empty while they are hidden.
    """

    experiment: str
    status: Status
    sentence: str
    next: str
    as_of: datetime
    starts_on: date
    days: int
    day: int
    reads_at: datetime
    users: int
    users_needed: int
    users_expected: int
    power: float
    minimum_effect: float
    control: str
    arms: tuple[ArmProgress, ...]
    daily: tuple[Day, ...]
    split_sound: bool
    e_value: float | None
    open_windows: int
    is_hidden: bool
    metrics: tuple[MetricResult, ...] = ()
    interims: tuple[DailyLift, ...] = ()
    harms: tuple[Harm, ...] = ()
    warnings: tuple[str, ...] = ()


def monitor(log: Path, plan: Plan, now: datetime) -> Progress:
    """The state at `now` of the experiment whose log is in a folder (see `run.read_log`).

    Raises InputError where the log can't be read or does not fit the plan.
    """
    attributed = attribute_export(log, plan, until=now)
    counts = _counts(attributed, plan)
    verdict = verdict_on(attributed, plan, now) if counts else None
    return _progress(counts, verdict, plan, now, open_windows=attributed.counted.not_yet_due)


def verdict_on(attributed: Attributed, plan: Plan, now: datetime) -> Verdict:
    """The verdict by the plan's metrics, as known at `now`; that on a canary knows whom a fallback answered.

    Raises InputError where the users do not fit the plan.
    """
    arms = _arms(_counts(attributed, plan), plan) if plan.harm_margin is not None else ()
    fallbacks = {arm.arm: arm.fallback_share for arm in arms}
    return analyse(planned_outcomes(attributed, plan), plan_rules(plan), now=now, fallbacks=fallbacks)


def _progress(
    counts: Sequence[_Count], verdict: Verdict | None, plan: Plan, now: datetime, *, open_windows: int
) -> Progress:
    is_hidden = plan.peeking == "none" and now < reads_at(plan)
    arms = _arms(counts, plan)
    sound = verdict is None or verdict.sample_ratio.sound
    status, sentence, following = _status(plan, verdict, arms, now)
    needed = plan_sizing(plan)
    evidence = verdict.sample_ratio.log10_e_value if verdict else None
    shown = verdict if verdict and not is_hidden and status != "unhealthy" else None
    return Progress(
        experiment=experiment_key(plan),
        status=status,
        sentence=sentence,
        next=following,
        as_of=now,
        starts_on=plan.starts_on,
        days=plan.days,
        day=_day(plan, now),
        reads_at=reads_at(plan),
        users=sum(arm.users for arm in arms),
        users_needed=sum(needed.users.values()),
        users_expected=round(plan.registrations_a_day * plan.coverage * plan.days),
        power=needed.power_at_days,
        minimum_effect=plan.minimum_effect,
        control=plan.control,
        arms=arms,
        daily=_daily(counts, plan),
        split_sound=sound,
        e_value=None if evidence is None else 10 ** min(evidence, 300.0),
        open_windows=open_windows,
        is_hidden=shown is None,
        metrics=shown.metrics if shown else (),
        interims=shown.daily if shown else (),
        harms=shown.harms if shown else (),
        warnings=verdict.warnings if verdict else (),
    )


def csv_rows(state: Progress) -> Iterator[tuple[object, ...]]:
    """Every figure as a row: figure, arm, day, value; the first row has these names."""
    yield "figure", "arm", "day", "value"
    for name in ("status", "as_of", "day", "days", "users", "users_needed", "power", "split_sound", "e_value"):
        yield name, "", "", getattr(state, name)
    yield "open_windows", "", "", state.open_windows
    for arm in state.arms:
        yield "planned_share", arm.arm, "", arm.planned_share
        yield "users", arm.arm, "", arm.users
        yield "fallback_share", arm.arm, "", arm.fallback_share
    for day in state.daily:
        for name, users in day.users.items():
            yield "exposures", name, day.day, users
    for harm in state.harms:
        yield f"{harm.metric}: evidence of harm", "", "", harm.e_value
    for measured in state.metrics:
        for summary in measured.arms:
            yield f"{measured.metric}: mean", summary.arm, "", summary.mean
        for beside in measured.beside_control:
            for part in ("value", "low", "high"):
                yield f"{measured.metric}: lift, {part}", beside.arm, "", getattr(beside.lift.relative, part)
    for interim in state.interims:
        for name, lift in interim.lifts.items():
            for part in ("value", "low", "high"):
                yield f"interim lift, {part}", name, interim.day, getattr(lift.relative, part)


def _day(plan: Plan, now: datetime) -> int:
    """The day of the plan, from 1: 0 before it starts, at most its number of days."""
    began = datetime.combine(plan.starts_on, time(), UTC)
    return max(0, min(plan.days, (now - began).days + 1))


def _daily(counts: Sequence[_Count], plan: Plan) -> tuple[Day, ...]:
    days: dict[date, dict[str, int]] = {}
    for counted in counts:
        of_day = days.setdefault(counted.day, dict.fromkeys(plan.arms, 0))
        of_day[counted.arm] += counted.users
    return tuple(Day(day, days[day]) for day in sorted(days))


def _arms(counts: Sequence[_Count], plan: Plan) -> tuple[ArmProgress, ...]:
    users, fallbacks = dict.fromkeys(plan.arms, 0), dict.fromkeys(plan.arms, 0)
    for counted in counts:
        users[counted.arm] += counted.users
        if arm_policy(counted.arm) != "rule" and lacks_model(counted.source):
            fallbacks[counted.arm] += counted.users
    total = sum(plan.arms.values())
    return tuple(
        ArmProgress(arm, weight / total, users[arm], fallbacks[arm] / users[arm] if users[arm] else 0.0)
        for arm, weight in plan.arms.items()
    )


class _Count(msgspec.Struct, frozen=True):
    arm: str
    day: date
    source: str
    users: int = msgspec.field(name="count_all")


def _counts(attributed: Attributed, plan: Plan) -> list[_Count]:
    """The users of the plan's arms and days, by arm, day and source of the answer."""
    columns = ["arm", "day", "source"]
    rows = attributed.table.select(columns).group_by(columns).aggregate([([], "count_all")]).to_pylist()
    end = plan.starts_on + timedelta(days=plan.days)
    return [
        counted
        for counted in msgspec.convert(rows, list[_Count])
        if counted.arm in plan.arms and plan.starts_on <= counted.day < end
    ]


def _status(
    plan: Plan, verdict: Verdict | None, arms: tuple[ArmProgress, ...], now: datetime
) -> tuple[Status, str, str]:
    """The status, its sentence, and what to do or what would change it."""
    end = f"{reads_at(plan):%-d %B %Y, %H:%M} UTC"
    if now.date() < plan.starts_on:
        return "not started", f"The experiment starts on {plan.starts_on:%-d %B %Y}.", f"It is read on {end}."
    if verdict is None:
        send = "Send newcomers to /v1/recommendations with their user_id; an exposure is stored with each answer."
        if now < reads_at(plan):
            return "collecting", "No exposure yet.", send
        return "no users", "The experiment has ended without an exposure.", f"Plan it again. {send}"
    if verdict.decision == "sample ratio mismatch":
        return "unhealthy", verdict.sentence, "Compare the users of each arm with the app's own count, then start anew."
    if verdict.decision in ("stop the canary", "promote the challenger"):
        status, following = READ[verdict.decision]
        return status, verdict.sentence, following.format(control=plan.control)
    failing = [arm for arm in arms if arm.fallback_share > FALLBACK_ALARM]
    if failing:
        shares = ", ".join(f"{arm.fallback_share:.1%} of {arm.arm}" for arm in failing)
        return (
            "unhealthy",
            f"A fallback answered instead of the model: {shares}.",
            "Look for 'the model failed' in the service's log; users answered by the rule dilute the effect.",
        )
    if verdict.decision not in READ:
        return "collecting", verdict.sentence, _would_change(plan, end)
    status, following = READ[verdict.decision]
    return status, verdict.sentence, following.format(control=plan.control, winner=verdict.winner)


def _would_change(plan: Plan, end: str) -> str:
    if plan.harm_margin is not None:
        return f"Harm, a wrong split of users or a failing challenger stops it at any time. It ends on {end}."
    if plan.peeking == "none":
        return f"Nothing before the end: this plan does not allow looking. It is read on {end}."
    return f"An interval that excludes 0 ends it early, by the rule {plan.peeking}. Otherwise it is read on {end}."

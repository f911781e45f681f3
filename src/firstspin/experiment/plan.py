"""The plan of an experiment, written down and sealed before the first user: whom, what, how long, and what counts.

The file carries the hash of what it says, and the experiment's key carries it too, so users are assigned and exposures
logged under it: a changed plan is another experiment with users of its own, never the same one read differently.

The service reads plans too, so nothing here needs a library of statistics.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Final

import msgspec

from firstspin.experiment.assign import ArmSplit, split
from firstspin.experiment.rules import Metric, Peeking, Rules, checked_rules
from firstspin.records import InputError

DAYS: Final = 14
HASH: Final = "hash"

_TINY, _LARGE = 1e-9, 1e12
_LIMITS: Final[dict[str, tuple[float, float]]] = {
    "baseline": (_TINY, _LARGE),
    "minimum_effect": (1e-6, 1e6),
    "deviation": (_TINY, _LARGE),
    "registrations_a_day": (1, 10**9),
    "coverage": (_TINY, 1),
    "alpha": (_TINY, 0.5),
    "power": (0.01, 0.999999),
    "days": (1, 365),
    "click_within_hours": (1, 24 * 365),
    "listen_within_days": (1, 365),
}
"""From and to, both included: wide enough for every experiment, and the arithmetic of sizing stays finite."""

_FIRST, _LAST = date(2000, 1, 1), date(9000, 1, 1)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An experiment as decided beforehand.

    `arms` have weights; `metrics` begins with the primary, whose mean in the control is thought to be `baseline` (with
    standard deviation `deviation`, unless it is yes or no) and whose relative lift of `minimum_effect` is to be found
    with probability `power`. Users who come in the `days` from `starts_on` (UTC) count; a click counts for
    `click_within_hours` of the message and listening for `listen_within_days`.
    """

    name: str
    starts_on: date
    control: str
    arms: dict[str, float]
    metrics: tuple[Metric, ...]
    registrations_a_day: int
    baseline: float
    minimum_effect: float
    deviation: float | None = None
    days: int = DAYS
    coverage: float = 1.0
    alpha: float = 0.05
    power: float = 0.8
    peeking: Peeking = "none"
    click_within_hours: int = 24
    listen_within_days: int = 7
    covariates: tuple[str, ...] = ()


def plan_hash(plan: Plan) -> str:
    """SHA-256 of what the plan says, as 64 hexadecimal digits; the order of the arms counts, for it assigns.

    Fields at their default are left out, so that a version with a field more leaves sealed plans as they are. That is
    why no default here may ever change.
    """
    plan = msgspec.convert(msgspec.to_builtins(plan), Plan)  # 1 is 1.0 where a number is a float
    defaults = {field.name: field.default for field in msgspec.structs.fields(Plan)}
    told = {name: value for name, value in _told(plan).items() if value != defaults[name]}
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()


def experiment_key(plan: Plan) -> str:
    """The experiment's name in every exposure, and the salt that assigns its users: "first-message@3f2a9c1b"."""
    return f"{plan.name}@{plan_hash(plan)[:8]}"


def plan_split(plan: Plan) -> ArmSplit:
    """Who gets which arm under this plan."""
    return split(experiment_key(plan), plan.arms, coverage=plan.coverage)


def plan_rules(plan: Plan) -> Rules:
    """How the results are read under this plan."""
    return Rules(
        control=plan.control,
        metrics=plan.metrics,
        weights=plan.arms,
        alpha=plan.alpha,
        peeking=plan.peeking,
        tuned_for=int(plan.registrations_a_day * plan.coverage * plan.days),
        starts_on=plan.starts_on,
        days=plan.days,
        reads_at=reads_at(plan),
        covariates=plan.covariates,
    )


def reads_at(plan: Plan) -> datetime:
    """When the last user's windows have closed, and the result may be read."""
    last = datetime.combine(plan.starts_on, time(), UTC) + timedelta(days=plan.days)
    return last + max(timedelta(hours=plan.click_within_hours), timedelta(days=plan.listen_within_days))


def checked_plan(plan: Plan) -> Plan:
    """The plan, if it can be carried out. Raises InputError."""
    if not _NAME.fullmatch(plan.name):
        raise InputError(f"name {plan.name!r}: an experiment's name is small letters, digits and hyphens, 60 at most")
    for field, (low, high) in _LIMITS.items():
        value = getattr(plan, field)
        if value is not None and not low <= value <= high:
            raise InputError(f"{field} {value!r:.40} is out of range: it is from {low:,} to {high:,}")
    if not _FIRST <= plan.starts_on <= _LAST:
        raise InputError(f"starts_on {plan.starts_on} is out of range: it is from {_FIRST} to {_LAST}")
    checked_rules(plan_rules(plan), list(plan.arms))
    plan_split(plan)
    primary = plan.metrics[0]
    if primary.kind is None:
        raise InputError(f"{primary.column}: a plan says whether its metrics are binary, continuous or a ratio")
    if (primary.kind == "binary") != (plan.deviation is None):
        raise InputError(f"{primary.column}: a deviation is given for every primary metric but a binary one")
    if primary.kind == "binary" and plan.baseline >= 1:
        raise InputError(f"baseline {plan.baseline!r} is out of range: the mean of a binary metric is below 1")
    if primary.kind == "binary" and plan.baseline * (1 + plan.minimum_effect) >= 1:
        raise InputError(f"minimum_effect {plan.minimum_effect!r}: the baseline would be lifted to 100% or more")
    return plan


def freeze(plan: Plan, path: Path) -> str:
    """Write the plan with its hash to a new file; returns the experiment's key. Raises InputError where one exists."""
    text = _toml(checked_plan(plan))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as problem:
        raise InputError(
            f"{path} is there and sealed: a changed plan is a new experiment, so give it a new file"
        ) from problem
    except OSError as problem:
        raise InputError(f"{path} can't be written: {problem.strerror}") from problem
    return experiment_key(plan)


def read_plan(path: Path) -> Plan:
    """The plan of a file that `freeze` wrote. Raises InputError where it was changed since."""
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
        sealed = fields.pop(HASH, None)
        plan = msgspec.convert(fields, Plan)
    except OSError as problem:
        raise InputError(f"{path} can't be read: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise InputError(f"{path.name} is not a plan: it is not text in UTF-8") from problem
    except tomllib.TOMLDecodeError as problem:
        raise InputError(f"{path.name} is not a plan in TOML: {problem}") from problem
    except (ValueError, RecursionError, msgspec.ValidationError) as problem:
        raise InputError(f"{path.name} is not a plan: {problem}") from problem
    if sealed != plan_hash(plan):
        raise InputError(f"{path.name} was changed after it was sealed: a changed plan is a new experiment")
    return checked_plan(plan)


def _told(fields: Plan | Metric) -> dict[str, object]:
    """What a plan or a metric says, field by field; a metric as such a dictionary too."""
    told = {name: value for name, value in msgspec.structs.asdict(fields).items() if value not in (None, ())}
    return told | {"metrics": [_told(metric) for metric in fields.metrics]} if isinstance(fields, Plan) else told


def _toml(plan: Plan) -> str:
    """The plan as TOML: plain fields first, as the format wants it, then the arms and a table a metric."""
    told = _told(plan) | {HASH: plan_hash(plan)}
    lines = [_line(name, value) for name, value in told.items() if name not in ("arms", "metrics")]
    lines += ["", "[arms]", *(_line(arm, weight) for arm, weight in plan.arms.items())]
    for metric in plan.metrics:
        lines += ["", "[[metrics]]", *(_line(name, value) for name, value in _told(metric).items())]
    return "\n".join(lines) + "\n"


def _line(name: str, value: object) -> str:
    # JSON's text, numbers and lists are TOML's; a date stands bare there
    written = value.isoformat() if isinstance(value, date) else msgspec.json.encode(value).decode()
    key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else msgspec.json.encode(name).decode()
    return f"{key} = {written}"

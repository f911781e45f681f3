"""The plan of an experiment, fixed before the first user (preregistration): arms, metrics, duration, analysis rules.

The file contains the hash of its content. The experiment's key contains the hash too, and assignments and exposures use
the key: a changed plan is a new experiment with users of its own.

The service reads plans, so this module imports no statistics library.
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
    "harm_margin": (1e-6, 0.99),
    "power": (0.01, 0.999999),
    "days": (1, 365),
    "click_within_hours": (1, 24 * 365),
    "listen_within_days": (1, 365),
}
"""Min and max, inclusive: wide enough for every experiment, and the arithmetic of sizing stays finite."""

_FIRST, _LAST = date(2000, 1, 1), date(9000, 1, 1)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A preregistered experiment.

    `arms` have weights. `metrics` begins with the primary metric: `baseline` is its expected mean in the control,
    `deviation` its standard deviation (None: binary), and `power` the probability of detecting a relative lift of
    `minimum_effect`. Users exposed within `days` from `starts_on` (UTC) are included; a click counts within
    `click_within_hours` of the message, listening within `listen_within_days`.
    With `name_arm`, answers name the experiment and the arm: their readers are not blind. With a `harm_margin` it is a
    canary: a relative loss above the margin stops it (`canary`).
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
    name_arm: bool = False
    harm_margin: float | None = None


def plan_hash(plan: Plan) -> str:
    """SHA-256 of the plan's fields, as 64 hexadecimal digits; the order of the arms is part of it.

    Fields at their default are left out, so that a later version with more fields gives sealed plans the same hash. No
    default may therefore change.
    """
    plan = msgspec.convert(msgspec.to_builtins(plan), Plan)  # 1 is 1.0 where a number is a float
    defaults = {field.name: field.default for field in msgspec.structs.fields(Plan)}
    fields = {name: value for name, value in _set_fields(plan).items() if value != defaults[name]}
    return hashlib.sha256(msgspec.json.encode(fields)).hexdigest()


def experiment_key(plan: Plan) -> str:
    """The experiment's name in every exposure, and the salt that assigns its users: "first-message@3f2a9c1b"."""
    return f"{plan.name}@{plan_hash(plan)[:8]}"


def plan_split(plan: Plan) -> ArmSplit:
    """The assignment of users to arms under this plan. Raises InputError as `split` does."""
    return split(experiment_key(plan), plan.arms, coverage=plan.coverage)


def plan_rules(plan: Plan) -> Rules:
    """The rules of the analysis under this plan."""
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
        harm_margin=plan.harm_margin,
    )


def reads_at(plan: Plan) -> datetime:
    """The planned time of the analysis (UTC): the windows of the last user have closed."""
    last = datetime.combine(plan.starts_on, time(), UTC) + timedelta(days=plan.days)
    return last + max(timedelta(hours=plan.click_within_hours), timedelta(days=plan.listen_within_days))


def checked_plan(plan: Plan) -> Plan:
    """The plan, validated. Raises InputError where a field is out of range or contradicts another one."""
    if not _NAME.fullmatch(plan.name):
        raise InputError(f"invalid name {plan.name!r}; expected lower-case letters, digits and hyphens, at most 60")
    for field, (low, high) in _LIMITS.items():
        value = getattr(plan, field)
        if value is not None and not low <= value <= high:
            raise InputError(f"{field} {value!r:.40} is out of range; expected {low:,} to {high:,}")
    if not _FIRST <= plan.starts_on <= _LAST:
        raise InputError(f"starts_on {plan.starts_on} is out of range; expected {_FIRST} to {_LAST}")
    checked_rules(plan_rules(plan), list(plan.arms))
    plan_split(plan)
    primary = plan.metrics[0]
    if primary.kind is None:
        name = primary.column
        raise InputError(
            f"{name}: the kind is missing; expected binary, continuous or ratio=COLUMN, as in {name}:binary"
        )
    if (primary.kind == "binary") != (plan.deviation is None):
        raise InputError(f"{primary.column}: deviation is required for a continuous or ratio metric, and only for one")
    if primary.kind == "binary" and plan.baseline >= 1:
        raise InputError(
            f"baseline {plan.baseline!r} is out of range; the mean of a binary metric is below 1: 5% is 0.05"
        )
    if primary.kind == "binary" and plan.baseline * (1 + plan.minimum_effect) >= 1:
        raise InputError(f"minimum_effect {plan.minimum_effect!r} raises the baseline to 100% or more")
    return plan


def freeze(plan: Plan, path: Path) -> str:
    """Write the plan with its hash to a new file; returns the experiment's key.

    Raises InputError where the file exists or can't be written, and where the plan is invalid.
    """
    text = _toml(checked_plan(plan))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as problem:
        raise InputError(
            f"{path} exists and is sealed; a changed plan is a new experiment: choose a new file"
        ) from problem
    except OSError as problem:
        raise InputError(f"{path} can't be written: {problem.strerror}") from problem
    return experiment_key(plan)


def read_plan(path: Path) -> Plan:
    """The plan in a file that `freeze` wrote. Raises InputError where it is invalid or was changed since."""
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
        sealed = fields.pop(HASH, None)
        plan = msgspec.convert(fields, Plan)
    except OSError as problem:
        raise InputError(f"{path} can't be read: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise InputError(f"invalid plan {path.name}: not UTF-8 text") from problem
    except tomllib.TOMLDecodeError as problem:
        raise InputError(f"invalid plan {path.name}: not TOML: {problem}") from problem
    except (ValueError, RecursionError, msgspec.ValidationError) as problem:
        raise InputError(f"invalid plan {path.name}: {problem}") from problem
    if sealed != plan_hash(plan):
        raise InputError(f"{path.name} was changed after it was sealed; a changed plan is a new experiment")
    return checked_plan(plan)


def _set_fields(struct: Plan | Metric) -> dict[str, object]:
    """The fields of a plan or a metric that are set, by name; a plan's metrics as such dictionaries."""
    fields = {name: value for name, value in msgspec.structs.asdict(struct).items() if value not in (None, ())}
    return fields | {"metrics": [_set_fields(m) for m in struct.metrics]} if isinstance(struct, Plan) else fields


def _toml(plan: Plan) -> str:
    """The plan as TOML: top-level fields first (the format requires it), then the arms and one table per metric."""
    fields = _set_fields(plan) | {HASH: plan_hash(plan)}
    lines = [_line(name, value) for name, value in fields.items() if name not in ("arms", "metrics")]
    lines += ["", "[arms]", *(_line(arm, weight) for arm, weight in plan.arms.items())]
    for metric in plan.metrics:
        lines += ["", "[[metrics]]", *(_line(name, value) for name, value in _set_fields(metric).items())]
    return "\n".join(lines) + "\n"


def _line(name: str, value: object) -> str:
    # strings, numbers and lists are written as in JSON; a TOML date has no quotes
    written = value.isoformat() if isinstance(value, date) else msgspec.json.encode(value).decode()
    key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else msgspec.json.encode(name).decode()
    return f"{key} = {written}"

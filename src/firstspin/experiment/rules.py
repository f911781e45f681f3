"""How an experiment is read: who is the control, what is measured and how strictly. Fixed before the first user."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Final, Literal

import msgspec

from firstspin.records import InputError

Kind = Literal["binary", "continuous", "ratio"]
Peeking = Literal["none", "obrien-fleming", "always-valid"]

MAX_LISTED: Final = 6
KINDS: Final = ("binary", "continuous", "ratio")


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column of the outcomes and how to sum it up over an arm's users.

    `binary` is the share of users with a yes, `continuous` the mean, `ratio` the sum over the sum of the column `per`;
    None: binary where every value is yes or no, else continuous. Larger values than `cap` count as the cap: a number,
    or "p99" for that percentile of all arms' users together. With a `margin` (0.05: five percent of the control) the
    metric is a guardrail: an arm must be shown to lose less.
    """

    column: str
    kind: Kind | None = None
    per: str | None = None
    cap: float | str | None = None
    margin: float | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column, self.per) if self.per else (self.column,)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the analysis follows. The first metric is the primary one: it alone names a winner.

    `weights` are the arms' shares in any unit; empty: all alike. With `days` (from the first exposure, or `starts_on`)
    users exposed later are left out; before `reads_at` there is no decision, unless `peeking` names a rule made for
    stopping early (the always-valid one is sharpest at `tuned_for` users). `covariates` are columns known at
    registration that sharpen the comparison.
    """

    control: str
    metrics: tuple[Metric, ...]
    weights: dict[str, float] = {}
    alpha: float = 0.05
    peeking: Peeking = "none"
    tuned_for: int = 20_000
    starts_on: date | None = None
    days: int | None = None
    reads_at: datetime | None = None
    covariates: tuple[str, ...] = ()


def parse_metric(text: str) -> Metric:
    """A metric as written on the command line: COLUMN[:binary|continuous|ratio=COLUMN][:cap=N|pN][:margin=SHARE].

    >>> parse_metric("seconds:continuous:cap=p99:margin=0.05")
    Metric(column='seconds', kind='continuous', per=None, cap='p99', margin=0.05)
    """
    column, *parts = text.split(":")
    kind: Kind | None = None
    per: str | None = None
    cap: float | str | None = None
    margin: float | None = None
    for part in parts:
        name, _, value = part.partition("=")
        if name in ("binary", "continuous") and not value:
            kind = "binary" if name == "binary" else "continuous"
        elif name == "ratio" and value:
            kind, per = "ratio", value
        elif name == "cap" and value:
            cap = value if value.startswith("p") else _number(text, value)
        elif name == "margin" and value:
            margin = _number(text, value)
        else:
            raise InputError(
                f"metric {text!r}: {part!r} is none of binary, continuous, ratio=COLUMN, cap=N, margin=SHARE"
            )
    return checked(Metric(column, kind, per, cap, margin))


def parse_weights(text: str) -> dict[str, float]:
    """Arms' weights as written on the command line: A=1,B=1."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        arm, separator, value = part.rpartition("=")
        if not separator or not arm:
            raise InputError(f"weights {text!r}: {part!r} is not ARM=NUMBER")
        if arm in weights:
            raise InputError(f"weights {text!r}: the arm {arm!r} is there twice")
        weights[arm] = _number(text, value)
    return checked_weights(weights)


def checked(metric: Metric) -> Metric:
    """The metric, if it makes sense. Raises InputError."""
    name = metric.column or "a metric"
    if not metric.column:
        raise InputError("a metric needs a column")
    if (metric.kind == "ratio") != bool(metric.per):
        raise InputError(f"{name}: a ratio, and only a ratio, names the column it is divided by")
    if metric.cap is not None and metric.kind != "continuous":
        raise InputError(f"{name}: only a continuous metric has a cap")
    if metric.margin is not None and not 0 < metric.margin < 1:
        raise InputError(f"{name}: a margin is a share between 0 and 1, not {metric.margin!r}")
    percentile(metric)
    return metric


def percentile(metric: Metric) -> float | None:
    """The share of users below the cap, where the cap is a percentile: 0.99 for "p99"."""
    if not isinstance(metric.cap, str):
        if metric.cap is not None and not (math.isfinite(metric.cap) and metric.cap > 0):
            raise InputError(
                f"{metric.column}: a cap is a number above 0 or a percentile such as p99, not {metric.cap!r}"
            )
        return None
    share = _number(metric.column, metric.cap.removeprefix("p")) / 100
    if not (metric.cap.startswith("p") and 0.5 <= share < 1):
        raise InputError(f"{metric.column}: a cap's percentile lies from p50 to below p100, not {metric.cap!r}")
    return share


def checked_weights(weights: dict[str, float]) -> dict[str, float]:
    for arm, weight in weights.items():
        if not 1e-9 <= weight <= 1e9:
            raise InputError(f"arm {arm!r}: a weight is a number above 0, from 1e-9 to 1e9, not {weight!r}")
    return weights


def checked_rules(rules: Rules, arms: Sequence[str]) -> Rules:
    """The rules with weights for all arms, the control first. Raises InputError where they don't fit the arms found."""
    _refuse_other_arms(rules, arms)
    if not rules.metrics:
        raise InputError("name at least one metric: the first is the one that decides")
    if not 0 < rules.alpha < 0.5:
        raise InputError(f"alpha is a share between 0 and 0.5, not {rules.alpha!r}")
    if rules.peeking == "obrien-fleming" and not rules.days:
        raise InputError("the O'Brien-Fleming rule needs the number of days that was planned")
    for metric in rules.metrics:
        checked(metric)
    weights = checked_weights(rules.weights) or dict.fromkeys(arms, 1.0)
    ordered = {rules.control: weights[rules.control], **weights}
    return msgspec.structs.replace(rules, weights=ordered)


def _refuse_other_arms(rules: Rules, arms: Sequence[str]) -> None:
    if rules.weights and not set(arms) <= rules.weights.keys():
        raise InputError(
            f"the weights are of {_listed(rules.weights)}; the arms found are {_listed(arms)}",
            bare=f"the weights are of {_listed(rules.weights)}; {len(arms)} arms are found, others among them",
        )
    if rules.control not in (rules.weights or arms):
        raise InputError(
            f"the control {rules.control!r} is not among the arms, {_listed(rules.weights or arms)}",
            bare=f"the control {rules.control!r} is not among the {len(arms)} arms found",
        )
    if len(rules.weights or arms) < 2:
        raise InputError(f"the only arm is {rules.control!r}: there is nothing to compare it with")


def _listed(names: Collection[str]) -> str:
    """As in a sentence: a, b and c; no more than a few."""
    shown = [name if name.isprintable() and name.strip() == name != "" else repr(name) for name in names]
    if len(shown) > MAX_LISTED:
        shown = [*shown[: MAX_LISTED - 1], f"{len(shown) - MAX_LISTED + 1:,} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def treatments(rules: Rules) -> list[str]:
    """The arms but the control, in the order of their weights."""
    return [arm for arm in rules.weights if arm != rules.control]


def _number(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as problem:
        raise InputError(f"{text!r}: {value!r} is not a number") from problem

"""Analysis rules of an experiment: control, metrics, significance level. Fixed before the first user."""

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
    """A column of the outcomes and its aggregation over an arm's users.

    `binary` is the share of users with a 1, `continuous` the mean, `ratio` the column's sum over the sum of the column
    `per`; None is binary where all values are 0 or 1, else continuous. Values above `cap` are capped: at a number, or
    at a percentile of all users ("p99"). A metric with a `margin` (0.05: five percent of the control) is a guardrail:
    non-inferiority must be shown within it. A blank is a missing value, with `blank` "no" it is a 0.
    """

    column: str
    kind: Kind | None = None
    per: str | None = None
    cap: float | str | None = None
    margin: float | None = None
    blank: Literal["no"] | None = None

    @property
    def name(self) -> str:
        """The metric's name in results: its column, and for a ratio its divisor.

        >>> Metric("seconds", "ratio", per="clicked").name
        'seconds / clicked'
        """
        return f"{self.column} / {self.per}" if self.per else self.column

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the metric reads: its own and, for a ratio, the divisor's."""
        return (self.column, self.per) if self.per else (self.column,)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of an analysis. The first metric is the primary one: it alone decides on a winner.

    `weights` are the arms' shares in any unit; empty means equal. With `days` (from `starts_on`, or the first exposure)
    users exposed later are excluded. There is no decision before `reads_at`, except under a rule for `peeking` (the
    always-valid one is narrowest at `tuned_for` users). `covariates` are columns known at registration that reduce the
    variance. With a `harm_margin` the experiment is a canary, which a larger relative loss of its only treatment stops
    (`canary`).
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
    harm_margin: float | None = None


def parse_metric(text: str) -> Metric:
    """A metric as written on the command line.

    COLUMN[:binary|continuous|ratio=COLUMN][:cap=N|pN][:margin=SHARE][:blank=no].
    Raises InputError where the text has another form or the metric is invalid (`checked`).

    >>> parse_metric("seconds:continuous:cap=p99:margin=0.05")
    Metric(column='seconds', kind='continuous', per=None, cap='p99', margin=0.05, blank=None)
    >>> parse_metric("seconds:margin=5%").margin
    0.05
    """
    column, *parts = text.split(":")
    kind: Kind | None = None
    per: str | None = None
    cap: float | str | None = None
    margin: float | None = None
    blank: Literal["no"] | None = None
    for part in parts:
        name, _, value = part.partition("=")
        if name in ("binary", "continuous") and not value:
            kind = "binary" if name == "binary" else "continuous"
        elif name == "ratio" and value:
            kind, per = "ratio", value
        elif name == "cap" and value:
            cap = value if value.startswith("p") else _number(text, value)
        elif name == "margin" and value:
            margin = _number(text, value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        elif name == "blank" and value in ("no", "0"):
            blank = "no"
        else:
            expected = "binary, continuous, ratio=COLUMN, cap=N, margin=SHARE or blank=no"
            raise InputError(f"metric {text!r}: invalid {part!r}; expected {expected}")
    return checked(Metric(column, kind, per, cap, margin, blank))


def parse_weights(text: str) -> dict[str, float]:
    """The arms' weights as written on the command line: A=1,B=1.

    Raises InputError where a part is not ARM=NUMBER, an arm appears twice, or a weight is out of range.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        arm, separator, value = part.rpartition("=")
        if not separator or not arm:
            raise InputError(f"weights {text!r}: invalid {part!r}; expected ARM=NUMBER")
        if arm in weights:
            raise InputError(f"weights {text!r}: the arm {arm!r} appears twice")
        weights[arm] = _number(text, value)
    return checked_weights(weights)


def checked(metric: Metric) -> Metric:
    """The metric, validated. Raises InputError where its fields are out of range or contradict each other."""
    name = metric.column or "a metric"
    if not metric.column:
        raise InputError("a metric needs a column")
    if (metric.kind == "ratio") != bool(metric.per):
        raise InputError(f"{name}: a divisor column is required for a ratio, and only for a ratio")
    if metric.cap is not None and metric.kind != "continuous":
        raise InputError(f"{name}: only a continuous metric has a cap")
    if metric.margin is not None and not 0 < metric.margin < 1:
        raise InputError(f"{name}: invalid margin {metric.margin!r}; expected a share between 0 and 1, as 0.05 or 5%")
    percentile(metric)
    return metric


def percentile(metric: Metric) -> float | None:
    """The cap's percentile as a share (0.99 for "p99"); None where the cap is a number or absent.

    Raises InputError where the cap is neither a number above 0 nor a percentile from p50 to below p100.
    """
    if not isinstance(metric.cap, str):
        if metric.cap is not None and not (math.isfinite(metric.cap) and metric.cap > 0):
            raise InputError(
                f"{metric.column}: invalid cap {metric.cap!r}; expected a number above 0 or a percentile such as p99"
            )
        return None
    share = _number(metric.column, metric.cap.removeprefix("p")) / 100
    if not (metric.cap.startswith("p") and 0.5 <= share < 1):
        raise InputError(f"{metric.column}: invalid cap {metric.cap!r}; expected a percentile from p50 to below p100")
    return share


def checked_weights(weights: dict[str, float]) -> dict[str, float]:
    """The weights, validated. Raises InputError where one is not a number from 1e-9 to 1e9."""
    for arm, weight in weights.items():
        if not 1e-9 <= weight <= 1e9:
            raise InputError(f"arm {arm!r}: invalid weight {weight!r}; expected a number from 1e-9 to 1e9")
    return weights


def checked_rules(rules: Rules, arms: Sequence[str]) -> Rules:
    """The rules with weights for all arms, the control first.

    Raises InputError where they are invalid or don't match the `arms` in the outcomes.
    """
    _refuse_other_arms(rules, arms)
    if not rules.metrics:
        raise InputError("a metric is missing: name at least one; the first is the primary metric")
    if not 0 < rules.alpha < 0.5:
        raise InputError(f"invalid alpha {rules.alpha!r}; expected a number between 0 and 0.5")
    if rules.peeking == "obrien-fleming" and not rules.days:
        raise InputError("the O'Brien-Fleming rule needs the planned number of days")
    if rules.harm_margin is not None and (len(rules.weights or arms) != 2 or rules.peeking != "always-valid"):
        raise InputError("a canary (harm_margin) has two arms, and its interim analyses are always-valid")
    for metric in rules.metrics:
        checked(metric)
    weights = checked_weights(rules.weights) or dict.fromkeys(arms, 1.0)
    ordered = {rules.control: weights[rules.control], **weights}
    return msgspec.structs.replace(rules, weights=ordered)


def _refuse_other_arms(rules: Rules, arms: Sequence[str]) -> None:
    if rules.weights and not set(arms) <= rules.weights.keys():
        raise InputError(
            f"the weights are of {listed(rules.weights)}; the outcomes have the arms {listed(arms)}",
            bare=f"the weights are of {listed(rules.weights)}; the outcomes have {len(arms)} arms, others among them",
        )
    if rules.control not in (rules.weights or arms):
        raise InputError(
            f"the control {rules.control!r} is not among the arms, {listed(rules.weights or arms)}",
            bare=f"the control {rules.control!r} is not among the {len(arms)} arms of the outcomes",
        )
    if len(rules.weights or arms) < 2:
        raise InputError(f"the only arm is {rules.control!r}; a comparison needs at least two arms")


def listed(names: Collection[str]) -> str:
    """A list in prose (a, b and c), of at most MAX_LISTED names."""
    shown = [name if name.isprintable() and name.strip() == name != "" else repr(name) for name in names]
    if len(shown) > MAX_LISTED:
        shown = [*shown[: MAX_LISTED - 1], f"{len(shown) - MAX_LISTED + 1:,} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def treatments(rules: Rules) -> list[str]:
    """All arms except the control, in the order of the weights."""
    return [arm for arm in rules.weights if arm != rules.control]


def _number(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as problem:
        raise InputError(f"{text!r}: {value!r} is not a number") from problem

"""The result of an experiment as data: metrics, decision and sentence, and their tables of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Final, Literal

import msgspec

from firstspin.experiment.outcomes import LeftOut
from firstspin.experiment.rules import Kind
from firstspin.experiment.stats.lift import Estimate, Lift, NonInferiority
from firstspin.experiment.stats.sample_ratio import SampleRatio
from firstspin.experiment.summary import ArmSummary

Decision = Literal[
    "winner",
    "control is better",
    "no difference shown",
    "guardrail not kept",
    "no decision yet",
    "sample ratio mismatch",
    "stop the canary",
    "go on with the canary",
    "promote the challenger",
]
Role = Literal["primary", "guardrail", "secondary"]


_AS_FACTOR: Final = 10
"""From this relative lift on a factor is shown, not a percentage."""


class Beside(msgspec.Struct, frozen=True):
    """An arm compared with the control.

    `significant` is at `lift.alpha`, which corrections and interim analyses lower, so it is that of the tables; None
    for a guardrail, whose result is `non_inferiority`. `holm_p_value` is corrected: of the primary metric for all pairs
    of several arms, of a secondary one for all secondary metrics and arms. `variance_reduction` is the fraction removed
    by the covariates; `against` is the other arm where it is not the control.
    """

    arm: str
    lift: Lift
    significant: bool | None
    holm_p_value: float | None = None
    non_inferiority: NonInferiority | None = None
    variance_reduction: float | None = None
    against: str | None = None


class MetricResult(msgspec.Struct, frozen=True):
    """One metric: a summary of each arm, and each treatment compared with the control.

    `between_treatments` has the other pairs of several arms, for the primary metric. `open_window` is the length of the
    window that users without a value are still in ("24 hours"); empty where their values are blank.
    """

    metric: str
    kind: Kind
    role: Role
    cap: float | None
    arms: tuple[ArmSummary, ...]
    beside_control: tuple[Beside, ...]
    between_treatments: tuple[Beside, ...] = ()
    open_window: str = ""


class DailyLift(msgspec.Struct, frozen=True):
    """An interim analysis: users up to and including a day, and each arm's lift at the level of that analysis."""

    day: date
    users: dict[str, int]
    lifts: dict[str, Lift]


class Weekday(msgspec.Struct, frozen=True):
    """Users by arm of one day of the week (1 is Monday), and the mean of the primary metric: a description, no test."""

    weekday: int
    users: dict[str, int]
    means: dict[str, float | None]


class Harm(msgspec.Struct, frozen=True):
    """The evidence that a canary loses more than `margin` of the control's metric: the max over all looks.

    An `e_value` of `stops_at` or more, which is 1 / alpha, stops the canary.
    """

    metric: str
    margin: float
    e_value: float
    stops_at: float

    @property
    def shown(self) -> bool:
        """Whether the evidence stops the canary."""
        return self.e_value >= self.stops_at


class Verdict(msgspec.Struct, frozen=True):
    """The complete result. `metrics` begins with the primary; `clickers` is descriptive, without comparisons.

    `harms` are those that stop a canary; empty of another experiment.
    """

    decision: Decision
    winner: str | None
    sentence: str
    warnings: tuple[str, ...]
    control: str
    users: dict[str, int]
    left_out: LeftOut
    sample_ratio: SampleRatio
    metrics: tuple[MetricResult, ...]
    clickers: tuple[MetricResult, ...]
    daily: tuple[DailyLift, ...]
    weekdays: tuple[Weekday, ...]
    harms: tuple[Harm, ...] = ()


class TextTable(msgspec.Struct, frozen=True):
    """A table for the terminal: a title, column names, and rows of as many cells."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def verdict_lines(verdict: Verdict) -> tuple[TextTable, ...]:
    """The verdict as tables of text, in reading order, without `verdict.sentence` and `verdict.warnings`."""
    sections = [_sample_ratio(verdict), *([_harms(verdict)] if verdict.harms else [])]
    sections += map(metric_table, verdict.metrics)
    sections += [_between(metric) for metric in verdict.metrics if metric.between_treatments]
    sections += [_tail(metric) for metric in verdict.metrics if any(arm.quantiles for arm in metric.arms)]
    sections += [_tail(metric) for metric in verdict.clickers]
    if verdict.daily:
        sections.append(_daily(verdict))
    if verdict.weekdays:
        sections.append(_weekdays(verdict))
    return tuple(sections)


def signed_percent(share: float | None) -> str:
    """A relative lift as a percentage with its sign; from 1,000% on, where the control is near 0, as a factor.

    >>> signed_percent(0.087), signed_percent(1.137), signed_percent(11.4), signed_percent(3966.77)
    ('+8.7%', '+114%', '×12', 'over ×1,000')
    """
    if share is None:
        return "-"
    if abs(share) >= _AS_FACTOR:
        return "under -1,000%" if share < 0 else "over ×1,000" if share >= 999 else f"×{1 + share:.0f}"
    return f"{100 * share:+,.{2 if abs(share) < 0.01 else 1 if abs(share) < 0.9995 else 0}f}%"


def true_minus(text: str) -> str:
    """Text with a true minus (U+2212) before its numbers, as pages show them.

    >>> true_minus("-4.6% to -1%, from 2026-02-01, p-1, --users 9")
    '−4.6% to −1%, from 2026-02-01, p-1, --users 9'
    """
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)


def confidence(alpha: float) -> str:
    """A confidence level in percent, never rounded to 100.

    >>> confidence(0.05), confidence(0.0011), confidence(1e-9)
    ('95%', '99.89%', '>99.99%')
    """
    return ">99.99%" if alpha < 0.00005 else f"{100 * (1 - alpha):.4g}%"


def level_words(kind: Kind, control: float | None, treatment: float | None) -> str:
    """Both arms' means, with as many decimals as show the difference; a dash where one is unknown.

    >>> level_words("binary", 0.095, 0.203), level_words("binary", 0.05, 0.0505), level_words("continuous", 312, 325.4)
    ('9.5% to 20.3%', '5.00% to 5.05%', '312 to 325.4')
    """
    if control is None or treatment is None:
        return "-"
    if kind != "binary":
        return f"{_value(kind, control)} to {_value(kind, treatment)}"
    gap = abs(treatment - control) or 1
    decimals = 1 if gap >= 0.002 else 2 if gap >= 0.0002 else 3
    return f"{control:.{decimals}%} to {treatment:.{decimals}%}"


def p_words(p: float | None) -> str:
    """A p-value to four decimals.

    >>> p_words(0.050455), p_words(0.000012)
    ('p = 0.0505', 'p < 0.0001')
    """
    return "no p-value" if p is None else "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


def guardrail_words(test: NonInferiority, metric: str = "") -> str:
    """The result of a guardrail's non-inferiority test, with its bound and margin; `metric` is its subject.

    >>> guardrail_words(NonInferiority(0.05, 0.05, -0.15, 0.4, False), "seconds")
    'seconds: a loss of up to 15% is not ruled out; the margin is 5%'
    """
    subject = f"{metric}: " if metric else ""
    if test.bound is None:
        return f"{subject}non-inferiority can't be tested ({test.reason})"
    loss = f"{100 * max(0.0, -test.bound):.1f}".removesuffix(".0")
    ruled_out = (
        f"a loss of more than {loss}% is ruled out" if test.shown else f"a loss of up to {loss}% is not ruled out"
    )
    return f"{subject}{ruled_out}; the margin is {100 * test.margin:g}%"


def _sample_ratio(verdict: Verdict) -> TextTable:
    check = verdict.sample_ratio
    rows = [(arm, f"{n:,}", f"{check.expected[arm]:,.0f}") for arm, n in check.users.items()]
    state = "no mismatch" if check.sound else "MISMATCH"
    return TextTable(
        f"Users by arm: {state} (chi-square {p_words(check.p_value)})", ("arm", "users", "expected"), tuple(rows)
    )


def _harms(verdict: Verdict) -> TextTable:
    rows = [(one.metric, f"{one.margin:.3g}", f"{one.e_value:.2g}", f"{one.stops_at:.3g}") for one in verdict.harms]
    return TextTable("Harm: evidence to one, at most", ("metric", "margin", "evidence", "stops at"), tuple(rows))


def metric_table(measured: MetricResult, *, levels: bool = False) -> TextTable:
    """One metric: a row per arm, with its lift over the control; with `levels` each interval shows its level."""
    cap = f", capped at {_value(measured.kind, measured.cap)} per user" if measured.cap is not None else ""
    beside = {compared.arm: compared for compared in measured.beside_control}
    header, level = _ci_header(measured.beside_control)
    rows = [_arm_row(measured, arm, beside.get(arm.arm), level or levels) for arm in measured.arms]
    columns = ("arm", "users", "ratio" if measured.kind == "ratio" else "per user", "lift", header, "p", "")
    return TextTable(f"{measured.metric} ({measured.role}{cap})", columns, tuple(rows))


def _ci_header(compared: Sequence[Beside]) -> tuple[str, bool]:
    """The header of the intervals: with their level where all have the same; else each row shows its own (True)."""
    levels = {confidence(beside.lift.alpha) for beside in compared}
    return (f"{levels.pop()} CI", False) if len(levels) == 1 else ("CI", True)


def _lift_interval(lift: Lift, level: bool) -> str:
    ends = _interval(lift.relative)
    return f"{ends} ({confidence(lift.alpha)})" if level and ends != "-" else ends


def _arm_row(measured: MetricResult, arm: ArmSummary, beside: Beside | None, level: bool) -> tuple[str, ...]:
    """An arm's mean as compared (capped, and adjusted where there are covariates), its lift, interval and p-value."""
    users = f"{arm.users - arm.missing:,}"
    if beside is None:
        compared = measured.beside_control[0].lift.control
        return arm.arm, users, _value(measured.kind, compared), "", "", "", "control"
    lift, relative = beside.lift, beside.lift.relative
    ends = _lift_interval(lift, level)
    value = _value(measured.kind, lift.treatment)
    note = relative.reason or _note(beside)
    return arm.arm, users, value, signed_percent(relative.value), ends, _p(lift.p_value), note


def _between(measured: MetricResult) -> TextTable:
    """The treatments compared with one another, each pair from the arm named first to the other."""
    rows = []
    header, level = _ci_header(measured.between_treatments)
    for pair in measured.between_treatments:
        lift, relative = pair.lift, pair.lift.relative
        levels = level_words(measured.kind, lift.control, lift.treatment)
        note = relative.reason or _note(pair) or "undecided"
        shown = (signed_percent(relative.value), _lift_interval(lift, level), _p(lift.p_value), note)
        rows.append((f"{pair.against} to {pair.arm}", levels, *shown))
    return TextTable(f"{measured.metric}: the other pairs", ("arms", "per user", "lift", header, "p", ""), tuple(rows))


def _note(beside: Beside) -> str:
    words = []
    if beside.non_inferiority is not None:
        words.append(guardrail_words(beside.non_inferiority))
    elif beside.significant:
        words.append("significant")
    elif beside.against is None and beside.holm_p_value is not None:
        words.append(f"corrected {p_words(beside.holm_p_value)}")
    if beside.variance_reduction:
        words.append(f"variance {signed_percent(-beside.variance_reduction)} through covariates")
    return "; ".join(words)


def _tail(measured: MetricResult) -> TextTable:
    names = tuple(next((arm.quantiles for arm in measured.arms if arm.quantiles), {}))
    rows = []
    for arm in measured.arms:
        zero = "-" if arm.zero_share is None else f"{100 * arm.zero_share:.1f}%"
        quantiles = (_value("continuous", arm.quantiles.get(name)) for name in names)
        rows.append((arm.arm, f"{arm.users - arm.missing:,}", _value(measured.kind, arm.mean), zero, *quantiles))
    return TextTable(f"{measured.metric}: distribution", ("arm", "users", "mean", "zero", *names), tuple(rows))


def _daily(verdict: Verdict) -> TextTable:
    arms = [compared.arm for compared in verdict.metrics[0].beside_control]
    rows = []
    for day in verdict.daily:
        ends = (f"{signed_percent(r.value)} {_interval(r)}" for r in (day.lifts[arm].relative for arm in arms))
        rows.append((day.day.isoformat(), f"{sum(day.users.values()):,}", *ends))
    title = f"{verdict.metrics[0].metric}, cumulative by day (sequential confidence intervals)"
    if any("×" in cell for row in rows for cell in row):
        title += "; ×20 is twenty times the control, which is near 0"
    return TextTable(title, ("until", "users", *arms), tuple(rows))


def _weekdays(verdict: Verdict) -> TextTable:
    names = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    kind, arms = verdict.metrics[0].kind, tuple(verdict.users)
    rows = [
        (names[d.weekday - 1], f"{sum(d.users.values()):,}", *(_value(kind, d.means[arm]) for arm in arms))
        for d in verdict.weekdays
    ]
    return TextTable(f"{verdict.metrics[0].metric} by day of the week", ("day", "users", *arms), tuple(rows))


def _value(kind: Kind, mean: float | None) -> str:
    if mean is None:
        return "-"
    return f"{100 * mean:.3f}%" if kind == "binary" else f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.4g}"


def _interval(estimate: Estimate) -> str:
    ends: Sequence[float | None] = (estimate.low, estimate.high)
    if ends == (None, None):
        return "-"
    low, high = ("unbounded" if end is None else signed_percent(end) for end in ends)
    return f"{low} to {high}"


def _p(p: float | None) -> str:
    return "-" if p is None else p_words(p).removeprefix("p ").removeprefix("= ")

"""The decision and its sentence: no winner under a sample ratio mismatch or before the planned end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from scipy.stats import chi2_contingency

from firstspin.experiment.outcomes import LeftOut
from firstspin.experiment.rules import Rules, treatments
from firstspin.experiment.stats.lift import Lift, NonInferiority, significant
from firstspin.experiment.stats.sample_ratio import SampleRatio
from firstspin.experiment.verdict import DailyLift, Decision, MetricResult, guardrail_words, p_words, signed_percent

PRIMARY: Final = 0
_MISSING_ALIKE: Final = 0.01


def decide(
    rules: Rules, ratio: SampleRatio, metrics: Sequence[MetricResult], daily: Sequence[DailyLift], *, over: bool
) -> tuple[Decision, str | None, str]:
    """The decision, the winning arm (None without one), and a sentence with both and their numbers.

    `over`: the planned end has come. Before it, only a significant interim analysis under a rule for peeking decides.
    """
    if not ratio.sound:
        sentence = f"No winner: the users per arm do not match the weights ({ratio.reason}). Find the cause first."
        return "sample ratio mismatch", None, sentence
    decisive = _decisive(rules, metrics[PRIMARY], daily)
    stopped = rules.peeking != "none" and any(significant(lift) for lift in decisive.values())
    if not over and not stopped:
        when = f" on {rules.reads_at:%d %B %Y}" if rules.reads_at else " at its end"
        return "no decision yet", None, f"No decision yet: the plan is evaluated{when}."
    results = "; ".join(_lift_words(metrics[PRIMARY].metric, arm, lift) for arm, lift in decisive.items())
    better = {arm: lift for arm, lift in decisive.items() if significant(lift) and _gain(lift) > 0}
    if better:
        return _winner(better, metrics, results)
    if any(significant(lift) for lift in decisive.values()):
        return "control is better", None, f"{rules.control} stays: {results}."
    return "no difference shown", None, f"No difference shown: {results}."


def warnings(rules: Rules, metrics: Sequence[MetricResult], left_out: LeftOut, *, late: int) -> Iterator[str]:
    """Threats to the validity of the result, one sentence each. `late` users came outside the planned days."""
    if rules.reads_at is None:
        yield "No plan was given: the p-values hold for one analysis at a time fixed beforehand."
    if rules.days is not None and rules.days % 7:
        yield f"{rules.days} days are not whole weeks: some days of the week have more weight than others."
    if left_out.repeated:
        yield f"{left_out.repeated:,} users have several rows: give the unit (user_id) to count each user once."
    if left_out.in_several_arms:
        yield f"{left_out.in_several_arms:,} users are in several arms and are excluded."
    if left_out.without_arm:
        yield f"{left_out.without_arm:,} users have no arm and are excluded."
    if late:
        yield f"{late:,} users came outside the planned days and are excluded."
    for measured in metrics:
        yield from _about_gaps(measured)


def _decisive(rules: Rules, primary: MetricResult, daily: Sequence[DailyLift]) -> dict[str, Lift]:
    """The lift of each arm that decides: the first significant interim analysis, else the latest."""
    latest = {beside.arm: beside.lift for beside in primary.beside_control}
    if rules.peeking == "none":
        return latest
    return {
        arm: next((day.lifts[arm] for day in daily if significant(day.lifts[arm])), latest[arm])
        for arm in treatments(rules)
    }


def _winner(better: dict[str, Lift], metrics: Sequence[MetricResult], results: str) -> tuple[Decision, str | None, str]:
    """The arm with the largest lift among the better ones that pass all guardrails, if there is one."""
    guardrails = {arm: _guardrails(metrics, arm) for arm in better}
    passing = [arm for arm in better if all(test.shown for _, test in guardrails[arm])]
    if not passing:
        failed = "; ".join(
            guardrail_words(test, name) for arm in better for name, test in guardrails[arm] if not test.shown
        )
        return "guardrail not kept", None, f"No winner: {results}, but {failed}."
    winner = max(passing, key=lambda arm: _gain(better[arm]))
    passed = "".join(f"; {guardrail_words(test, name)}" for name, test in guardrails[winner])
    return "winner", winner, f"{winner} wins: {results}{passed}."


def _guardrails(metrics: Sequence[MetricResult], arm: str) -> list[tuple[str, NonInferiority]]:
    return [
        (measured.metric, beside.non_inferiority)
        for measured in metrics[PRIMARY + 1 :]
        for beside in measured.beside_control
        if beside.arm == arm and beside.non_inferiority is not None
    ]


def _gain(lift: Lift) -> float:
    return lift.difference.value or 0.0


def _lift_words(metric: str, arm: str, lift: Lift) -> str:
    relative = lift.relative
    if lift.p_value is None:
        return f"{arm}'s {metric} can't be compared ({lift.difference.reason})"
    if relative.value is None or relative.low is None or relative.high is None:
        return f"{arm}'s {metric} has no relative lift ({relative.reason}), {p_words(lift.p_value)}"
    ends = f"{signed_percent(relative.low)} to {signed_percent(relative.high)}"
    level = f"{100 * (1 - lift.alpha):.4g}% CI"
    return f"{arm}'s {metric} {signed_percent(relative.value)} ({level} {ends}), {p_words(lift.p_value)}"


def _about_gaps(measured: MetricResult) -> Iterator[str]:
    missing = [arm.missing for arm in measured.arms]
    if not any(missing):
        return
    yield f"{sum(missing):,} users have no value of {measured.metric} and are excluded from it."
    table = [(arm.missing, arm.users - arm.missing) for arm in measured.arms if arm.users]
    if len(table) > 1 and any(there for _, there in table) and chi2_contingency(table).pvalue < _MISSING_ALIKE:
        yield f"The share of users without {measured.metric} differs between the arms: its comparison may be biased."

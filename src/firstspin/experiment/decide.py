"""From the numbers to the decision and the sentence to read out: no winner of an unsound split, nor before its time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from scipy.stats import chi2_contingency

from firstspin.experiment.outcomes import LeftOut
from firstspin.experiment.rules import Rules, treatments
from firstspin.experiment.stats.lift import Lift, NonInferiority, significant
from firstspin.experiment.stats.sample_ratio import SampleRatio
from firstspin.experiment.verdict import DailyLift, Decision, MetricResult, p_words, signed_percent

PRIMARY: Final = 0
_MISSING_ALIKE: Final = 0.01


def decide(
    rules: Rules, ratio: SampleRatio, metrics: Sequence[MetricResult], looks: Sequence[DailyLift], *, over: bool
) -> tuple[Decision, str | None, str]:
    """The decision, the winning arm if there is one, and a sentence that says both with their numbers."""
    if not ratio.sound:
        why = "No winner can be named: the arms don't have the users their weights promise"
        return "sample ratio mismatch", None, f"{why} ({ratio.reason}). Find the cause first."
    decisive = _decisive(rules, metrics[PRIMARY], looks)
    stopped = rules.peeking != "none" and any(significant(found) for found in decisive.values())
    if not over and not stopped:
        when = f" on {rules.reads_at:%d %B %Y}" if rules.reads_at else ""
        return "no decision yet", None, f"No decision yet: the plan reads the result{when}."
    told = "; ".join(_told(metrics[PRIMARY].metric, arm, found) for arm, found in decisive.items())
    better = {arm: found for arm, found in decisive.items() if significant(found) and _gain(found) > 0}
    if better:
        return _winner(better, metrics, told)
    if any(significant(found) for found in decisive.values()):
        return "control is better", None, f"{rules.control} stays: {told}."
    return "no difference shown", None, f"No difference shown: {told}."


def warnings(rules: Rules, metrics: Sequence[MetricResult], left_out: LeftOut, *, late: int) -> Iterator[str]:
    """What a reader must know before believing the numbers, a sentence each."""
    if rules.reads_at is None:
        yield "No plan was given: the numbers hold for one look at a time fixed beforehand."
    if rules.days is not None and rules.days % 7:
        yield f"{rules.days} days are not whole weeks: some days of the week count more than others."
    if left_out.repeated:
        yield f"{left_out.repeated:,} users have several rows: give the unit (user_id) to count each user once."
    if left_out.in_several_arms:
        yield f"{left_out.in_several_arms:,} users were seen in several arms and are left out."
    if left_out.without_arm:
        yield f"{left_out.without_arm:,} users have no arm and are left out."
    if late:
        yield f"{late:,} users came outside the planned days and are left out."
    for measured in metrics:
        yield from _about_gaps(measured)


def _decisive(rules: Rules, primary: MetricResult, looks: Sequence[DailyLift]) -> dict[str, Lift]:
    """Each arm's lift that counts: the first that a daily look found significant, else the latest."""
    latest = {beside.arm: beside.lift for beside in primary.beside_control}
    if rules.peeking == "none":
        return latest
    return {
        arm: next((look.lifts[arm] for look in looks if significant(look.lifts[arm])), latest[arm])
        for arm in treatments(rules)
    }


def _winner(better: dict[str, Lift], metrics: Sequence[MetricResult], told: str) -> tuple[Decision, str | None, str]:
    """The best of the arms that are better, if one keeps all guardrails."""
    guardrails = {arm: _guardrails(metrics, arm) for arm in better}
    keeping = [arm for arm in better if all(beside.shown for _, beside in guardrails[arm])]
    if not keeping:
        broken = "; ".join(_guarded(name, kept) for arm in better for name, kept in guardrails[arm] if not kept.shown)
        return "guardrail not kept", None, f"No winner: {told}, but {broken}."
    winner = max(keeping, key=lambda arm: _gain(better[arm]))
    kept = "".join(f"; {_guarded(name, beside)}" for name, beside in guardrails[winner])
    return "winner", winner, f"{winner} wins: {told}{kept}."


def _guardrails(metrics: Sequence[MetricResult], arm: str) -> list[tuple[str, NonInferiority]]:
    return [
        (measured.metric, beside.non_inferiority)
        for measured in metrics[PRIMARY + 1 :]
        for beside in measured.beside_control
        if beside.arm == arm and beside.non_inferiority is not None
    ]


def _guarded(name: str, kept: NonInferiority) -> str:
    if kept.bound is None:
        return f"{name} can't be judged ({kept.reason})"
    inside = "inside" if kept.shown else "not shown to stay inside"
    return f"{name} may lie as low as {signed_percent(kept.bound)}, {inside} its margin of {100 * kept.margin:g}%"


def _gain(found: Lift) -> float:
    return found.difference.value or 0.0


def _told(metric: str, arm: str, found: Lift) -> str:
    relative = found.relative
    if found.p_value is None:
        return f"{arm}'s {metric} can't be compared ({found.difference.reason})"
    if relative.value is None or relative.low is None or relative.high is None:
        return f"{arm}'s {metric} has no relative lift ({relative.reason}), {p_words(found.p_value)}"
    ends = f"{signed_percent(relative.low)} to {signed_percent(relative.high)}"
    level = f"{100 * (1 - found.alpha):.4g}% interval"
    return f"{arm}'s {metric} {signed_percent(relative.value)} ({level} {ends}), {p_words(found.p_value)}"


def _about_gaps(measured: MetricResult) -> Iterator[str]:
    missing = [arm.missing for arm in measured.arms]
    if not any(missing):
        return
    yield f"{sum(missing):,} users have no {measured.metric} and are left out of it."
    table = [(arm.missing, arm.users - arm.missing) for arm in measured.arms if arm.users]
    if len(table) > 1 and any(there for _, there in table) and chi2_contingency(table).pvalue < _MISSING_ALIKE:
        yield f"The arms differ in how many have no {measured.metric}: its comparison can't be trusted."

"""The decision and its sentence: no winner under a sample ratio mismatch or before the planned end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from scipy.stats import chi2_contingency

from firstspin.experiment.outcomes import LeftOut
from firstspin.experiment.rules import MAX_LISTED, Rules, listed, treatments
from firstspin.experiment.stats.lift import Lift, NonInferiority, significant
from firstspin.experiment.stats.sample_ratio import SampleRatio
from firstspin.experiment.verdict import (
    DailyLift,
    Decision,
    MetricResult,
    confidence,
    guardrail_words,
    level_words,
    p_words,
    signed_percent,
)

PRIMARY: Final = 0
_MISSING_ALIKE: Final = 0.01
_MISSING_TOO_UNEVEN: Final = 0.001
"""Level below which unevenly missing values of the primary metric allow no winner, as a sample ratio mismatch."""


def decide(
    rules: Rules, ratio: SampleRatio, metrics: Sequence[MetricResult], daily: Sequence[DailyLift], *, over: bool
) -> tuple[Decision, str | None, str]:
    """The decision, the winning arm (None without one), and a sentence with both and their numbers.

    `over`: the planned end has come. Before it, only a significant interim analysis under a rule for peeking decides.
    """
    primary = metrics[PRIMARY]
    if not ratio.sound:
        users = listed([f"{n:,} in {arm}" for arm, n in ratio.users.items()])
        sentence = f"No winner: the users, {users}, do not match the weights ({ratio.reason}). Find the cause first."
        if rules.reads_at is None:
            sentence = f"{sentence} Where another split was planned, give it as --weights."
        return "sample ratio mismatch", None, sentence
    decisive = _decisive(rules, primary, daily)
    stopped = rules.peeking != "none" and any(significant(lift) for lift in decisive.values())
    if not over and not stopped:
        when = f" on {rules.reads_at:%d %B %Y}" if rules.reads_at else " at its end"
        still = "".join(f"; {words}" for words in map(_open_window, metrics) if words)
        return "no decision yet", None, f"No decision yet: the plan is evaluated{when}{still}."
    if not primary.open_window and (uneven := _uneven_gaps(primary, _MISSING_TOO_UNEVEN)):
        meant = f", or write {primary.metric}:binary:blank=no where a blank means no" * (primary.kind == "binary")
        return "sample ratio mismatch", None, f"No winner: {_lower(uneven)}. Find the cause first{meant}."
    best = sorted(decisive, key=lambda arm: -_gain(decisive[arm]))[:MAX_LISTED]
    results = "; ".join(_lift_words(primary, arm, decisive[arm]) for arm in decisive if arm in best)
    if len(decisive) > 1:
        results = f"{_pair_words(rules.control, decisive, primary)}. {results}"
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
        yield f"{_users(left_out.repeated, 'have several rows')}: name the column of the user with --unit."
    if left_out.in_several_arms:
        yield f"{_users(left_out.in_several_arms, 'are in several arms and are excluded')}."
    if left_out.without_arm:
        yield f"{_users(left_out.without_arm, 'have no arm and are excluded')}."
    if late:
        yield f"{late:,} users came outside the planned days and are excluded."
    if metrics and all(arm.users == 1 for arm in metrics[PRIMARY].arms):
        yield "Each arm has one row: a table of counts is read with --counts, as in --counts arm,users,clicks."
    for measured in metrics:
        yield from _about_gaps(measured)


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _users(count: int, words: str) -> str:
    """The words about a number of users: "3 users have no arm", "1 user has no arm"."""
    return (
        f"{count:,} users {words}" if count != 1 else f"1 user {words.replace('have ', 'has ').replace('are ', 'is ')}"
    )


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
    undecided = [{pair.arm, pair.against} for pair in metrics[PRIMARY].between_treatments if not pair.significant]
    lead = "is ahead" if any({winner, arm} in undecided for arm in passing) else "wins"
    return "winner", winner, f"{winner} {lead}: {results}{passed}."


def _pair_words(control: str, decisive: dict[str, Lift], primary: MetricResult) -> str:
    """All pairs of several arms: "green and blue both beat control; green against blue is undecided"."""
    pairs = [(arm, control, lift) for arm, lift in decisive.items()]
    pairs += [(pair.arm, str(pair.against), pair.lift) for pair in primary.between_treatments]
    ahead_of: dict[str, list[str]] = {}
    undecided = []
    for arm, against, lift in pairs:
        if significant(lift):
            better, worse = (arm, against) if _gain(lift) > 0 else (against, arm)
            ahead_of.setdefault(worse, []).append(better)
        else:
            undecided.append(f"{arm} against {against}")
    verbs = {1: "beats", 2: "both beat"}
    words = [f"{listed(better)} {verbs.get(len(better), 'all beat')} {worse}" for worse, better in ahead_of.items()]
    if undecided:
        words.append(f"{listed(undecided)} {'is' if len(undecided) == 1 else 'are'} undecided")
    return "; ".join(words)


def _guardrails(metrics: Sequence[MetricResult], arm: str) -> list[tuple[str, NonInferiority]]:
    return [
        (measured.metric, beside.non_inferiority)
        for measured in metrics[PRIMARY + 1 :]
        for beside in measured.beside_control
        if beside.arm == arm and beside.non_inferiority is not None
    ]


def _gain(lift: Lift) -> float:
    return lift.difference.value or 0.0


def _lift_words(measured: MetricResult, arm: str, lift: Lift) -> str:
    subject, relative = f"{arm}'s {measured.metric}", lift.relative
    if lift.p_value is None or lift.control is None or lift.treatment is None:
        return f"{subject} can't be compared ({lift.difference.reason})"
    subject = f"{subject} {level_words(measured.kind, lift.control, lift.treatment)}"
    if relative.value is None or relative.low is None or relative.high is None:
        return f"{subject}, without a relative lift ({relative.reason}), {p_words(lift.p_value)}"
    ends = f"{signed_percent(relative.low)} to {signed_percent(relative.high)}"
    level = confidence(lift.alpha)
    return f"{subject}, {signed_percent(relative.value)} ({level} CI {ends}), {p_words(lift.p_value)}"


def _open_window(measured: MetricResult) -> str:
    """The users whose window is open, so that the metric has no value yet; empty where there is none."""
    users = sum(arm.missing for arm in measured.arms)
    if not measured.open_window or not users:
        return ""
    return f"the window of {measured.open_window} for {measured.metric} is still open for {users:,} users"


def _about_gaps(measured: MetricResult) -> Iterator[str]:
    missing = sum(arm.missing for arm in measured.arms)
    if not missing:
        return
    if words := _open_window(measured):
        yield f"{words[0].upper()}{words[1:]}: they are excluded from it until it closes."
    else:
        meant = (
            f"; where a blank means no, write {measured.metric}:binary:blank=no" if measured.kind == "binary" else ""
        )
        yield f"{_users(missing, f'have no value of {measured.metric} and are excluded')} from it{meant}."
    if words := _uneven_gaps(measured, _MISSING_ALIKE):
        yield f"{words}: its comparison may be biased."


def _uneven_gaps(measured: MetricResult, alpha: float) -> str:
    """That the share of users without a value differs between the arms, at this level; empty where it does not."""
    arms = [arm for arm in measured.arms if arm.users]
    table = [(arm.missing, arm.users - arm.missing) for arm in arms]
    if len(table) < 2 or not any(there for _, there in table) or not any(missing for missing, _ in table):
        return ""
    if (p := float(chi2_contingency(table).pvalue)) >= alpha:
        return ""
    shares = listed([f"{arm.missing / arm.users:.1%} in {arm.arm}" for arm in arms])
    return f"The share of users without {measured.metric} differs between the arms ({shares}, {p_words(p)})"

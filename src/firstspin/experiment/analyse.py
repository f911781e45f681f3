"""Outcomes and analysis rules -> verdict: the sample-ratio check first, then the comparison of the arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

import numpy as np

from firstspin.experiment.canary import NO_FALLBACKS, decide_canary, harms
from firstspin.experiment.decide import PRIMARY, decide, warnings
from firstspin.experiment.outcomes import Outcomes
from firstspin.experiment.rules import Metric, Rules, checked_rules, treatments
from firstspin.experiment.stats.holm import holm_levels, holm_p_values, pairs
from firstspin.experiment.stats.lift import Lift, lift, non_inferiority, p_value, significant
from firstspin.experiment.stats.sample_ratio import sample_ratio
from firstspin.experiment.stats.sequential import always_valid_alpha, spending_alphas
from firstspin.experiment.summary import Mask, arm_summary, capped, comparison, of_arm
from firstspin.experiment.verdict import Beside, DailyLift, MetricResult, Role, Verdict, Weekday
from firstspin.records import InputError

_Corrected = dict[tuple[int, str], tuple[float, float | None]]


def analyse(
    outcomes: Outcomes, rules: Rules, *, now: datetime | None = None, fallbacks: Mapping[str, float] = NO_FALLBACKS
) -> Verdict:
    """The verdict on the experiment; `outcomes` must have the metrics and covariates of the rules.

    `now` is compared with the planned end of the experiment (`rules.reads_at`); without it the end has not come where
    the rules have one. `fallbacks` is the share of users by arm whom a fallback answered. Raises
    InputError where the arms or columns of the outcomes don't match the rules.
    """
    rules = checked_rules(rules, outcomes.arms)
    planned = _planned_days(outcomes, rules)
    if not len(planned):
        raise InputError(_empty_period(outcomes, rules))
    cuts = [capped(values, metric) for values, metric in zip(planned.values, planned.metrics, strict=True)]
    cut = replace(planned, values=tuple(values for values, _ in cuts))
    daily = _daily_lifts(cut, rules)
    over = rules.reads_at is None or (now is not None and now >= rules.reads_at)
    corrected = _corrected_secondary(cut, rules, _interim_alpha(rules, daily))
    counts = [day.users for day in daily] or [_users(planned, rules)]
    ratio = sample_ratio(counts, rules.weights, final=over)
    metrics = tuple(_metric_result(planned, cut, rules, daily, corrected, i, cap) for i, (_, cap) in enumerate(cuts))
    found = harms(cut, rules) if rules.harm_margin is not None else ()
    decision, winner, sentence = (
        decide_canary(cut, rules, ratio, found, fallbacks, over=over)
        if found
        else decide(rules, ratio, metrics, daily, over=over)
    )
    return Verdict(
        decision=decision,
        winner=winner,
        sentence=sentence,
        warnings=(*warnings(rules, metrics, outcomes.left_out, late=len(outcomes) - len(planned)), *outcomes.notes),
        control=rules.control,
        users=ratio.users,
        left_out=outcomes.left_out,
        sample_ratio=ratio,
        metrics=metrics,
        clickers=_clickers(planned, rules),
        daily=tuple(daily),
        weekdays=_weekdays(cut, rules),
        harms=found,
    )


# --------------------------------------------------------------------------------------------- the users


def _planned_days(outcomes: Outcomes, rules: Rules) -> Outcomes:
    """The users of the planned days; all users where the rules have no number of days."""
    if outcomes.day is None:
        if rules.peeking != "none":
            raise InputError("daily interim analyses need each user's day: name its column with --day")
        return outcomes
    if rules.days is None:
        return outcomes
    first = np.datetime64(rules.starts_on, "D") if rules.starts_on else outcomes.day.min()
    return _only(outcomes, (outcomes.day >= first) & (outcomes.day < first + np.timedelta64(rules.days, "D")))


def _empty_period(outcomes: Outcomes, rules: Rules) -> str:
    if outcomes.day is None or not len(outcomes) or rules.starts_on is None:
        return f"{outcomes.source} has no users: there is nothing to analyse yet"
    first, last = outcomes.day.min(), outcomes.day.max()
    return (
        f"{outcomes.source}: none of the {len(outcomes):,} users came in the {rules.days} planned days from "
        f"{rules.starts_on}; their days are {first} to {last}"
    )


def _only(outcomes: Outcomes, among: Mask) -> Outcomes:
    return replace(
        outcomes,
        arm=outcomes.arm[among],
        values=tuple(values[among] for values in outcomes.values),
        per=tuple(per[among] if per is not None else None for per in outcomes.per),
        covariates=outcomes.covariates[among],
        day=outcomes.day[among] if outcomes.day is not None else None,
    )


def _everybody(outcomes: Outcomes) -> Mask:
    return np.ones(len(outcomes), dtype=np.bool_)


def _users(outcomes: Outcomes, rules: Rules, among: Mask | None = None) -> dict[str, int]:
    among = _everybody(outcomes) if among is None else among
    return {arm: int((among & of_arm(outcomes, arm)).sum()) for arm in rules.weights}


# ------------------------------------------------------------------------------------------ the metrics


def _metric_result(
    planned: Outcomes,
    cut: Outcomes,
    rules: Rules,
    daily: Sequence[DailyLift],
    corrected: _Corrected,
    position: int,
    cap: float | None,
) -> MetricResult:
    """One metric: summaries of the uncapped values, comparisons of the capped ones."""
    metric = planned.metrics[position]
    beside = _beside(cut, rules, daily, corrected, position)
    return MetricResult(
        metric=metric.name,
        kind=metric.kind or "continuous",
        role=_role(metric, position),
        cap=cap,
        arms=tuple(arm_summary(planned, position, arm, _everybody(planned)) for arm in rules.weights),
        beside_control=tuple(pair for pair in beside if pair.against is None),
        between_treatments=tuple(pair for pair in beside if pair.against is not None),
        open_window=planned.open_windows.get(metric.column, ""),
    )


def _role(metric: Metric, position: int) -> Role:
    return "primary" if position == PRIMARY else "guardrail" if metric.margin is not None else "secondary"


def _interim_alpha(rules: Rules, daily: Sequence[DailyLift]) -> float:
    """The level of the latest interim analysis; alpha without a rule for peeking."""
    return daily[-1].lifts[treatments(rules)[0]].alpha if rules.peeking != "none" else rules.alpha


def _corrected_secondary(cut: Outcomes, rules: Rules, alpha: float) -> _Corrected:
    """The level and corrected p-value of each comparison of a secondary metric (its position) and a treatment.

    All of them share `alpha` (Holm), because no rule fixes beforehand which of them counts.
    """
    secondary = [i for i, metric in enumerate(cut.metrics) if _role(metric, i) == "secondary"]
    family = [(i, arm) for i in secondary for arm in treatments(rules)]
    compared = (comparison(cut, i, rules.control, arm, _everybody(cut))[0] for i, arm in family)
    p_values = [1.0 if (p := p_value(pair)) is None else p for pair in compared]
    holm = holm_p_values(p_values) if len(family) > 1 else [None] * len(family)
    return dict(zip(family, zip(holm_levels(p_values, alpha), holm, strict=True), strict=True))


def _beside(
    cut: Outcomes, rules: Rules, daily: Sequence[DailyLift], secondary: _Corrected, metric: int
) -> list[Beside]:
    """Each treatment compared with the control; of the primary metric also the treatments with one another.

    The primary and the secondary metrics are tested at their corrected or interim level; the two-sided test of a
    guardrail, which decides nothing, at alpha.
    """
    couples = pairs([*rules.weights])
    if metric != PRIMARY:
        couples = couples[: len(treatments(rules))]
    compared = [comparison(cut, metric, one, other, _everybody(cut)) for one, other in couples]
    levels = [rules.alpha] * len(couples)
    corrected: list[float | None] = [None] * len(couples)
    # A test may stop early only where its guardrails pass too, so they are tested at the interim level.
    interim = _interim_alpha(rules, daily)
    if metric == PRIMARY and rules.peeking != "none":
        levels = [interim] * len(couples)
    elif metric == PRIMARY and len(couples) > 1:
        p_values = [1.0 if (p := p_value(pair)) is None else p for pair, _ in compared]
        levels, corrected = holm_levels(p_values, rules.alpha), list(holm_p_values(p_values))
    elif (metric, couples[0][1]) in secondary:
        levels = [secondary[metric, arm][0] for _, arm in couples]
        corrected = [secondary[metric, arm][1] for _, arm in couples]
    margin = cut.metrics[metric].margin
    return [
        Beside(
            arm=arm,
            lift=(estimate := lift(pair, alpha=level)),
            significant=None if margin is not None else significant(estimate),
            holm_p_value=p,
            non_inferiority=non_inferiority(pair, margin=margin, alpha=interim) if margin is not None else None,
            variance_reduction=reduction if cut.covariates.shape[1] else None,
            against=None if against == rules.control else against,
        )
        for (against, arm), level, p, (pair, reduction) in zip(couples, levels, corrected, compared, strict=True)
    ]


def _clickers(planned: Outcomes, rules: Rules) -> tuple[MetricResult, ...]:
    """Summaries of the users with a 1 in the binary primary metric.

    The treatment selects these users, so the arms are not comparable: descriptive only.
    """
    if planned.metrics[PRIMARY].kind != "binary":
        return ()
    clicked = planned.values[PRIMARY] == 1
    name = planned.metrics[PRIMARY].column
    return tuple(
        MetricResult(
            metric=f"{metric.column} among users with {name}",
            kind="continuous",
            role="secondary",
            cap=None,
            arms=tuple(arm_summary(planned, i, arm, clicked) for arm in rules.weights),
            beside_control=(),
        )
        for i, metric in enumerate(planned.metrics)
        if metric.kind == "continuous"
    )


# --------------------------------------------------------------------------------------------- the days


def _daily_lifts(cut: Outcomes, rules: Rules) -> list[DailyLift]:
    """The cumulative lift of the primary metric after each day, at the level of that interim analysis."""
    if cut.day is None:
        return []
    days = np.unique(cut.day)
    so_far = [cut.day <= day for day in days]
    levels = _interim_levels(rules, [_date(day) for day in days], [int(among.sum()) for among in so_far])
    return [
        DailyLift(_date(day), _users(cut, rules, among), _lifts(cut, rules, among, level))
        for day, among, level in zip(days, so_far, levels, strict=True)
    ]


def _lifts(cut: Outcomes, rules: Rules, among: Mask, level: float) -> dict[str, Lift]:
    return {arm: lift(comparison(cut, PRIMARY, rules.control, arm, among)[0], alpha=level) for arm in treatments(rules)}


def _interim_levels(rules: Rules, days: Sequence[date], users: Sequence[int]) -> list[float]:
    alpha = rules.alpha / len(pairs([*rules.weights]))
    if rules.peeking == "always-valid" or rules.days is None:
        return [always_valid_alpha(n, alpha, tuned_for=rules.tuned_for) for n in users]
    first = rules.starts_on or days[0]
    return spending_alphas([((day - first) / timedelta(days=1) + 1) / rules.days for day in days], users, alpha)


def _weekdays(cut: Outcomes, rules: Rules) -> tuple[Weekday, ...]:
    """The primary metric by the weekday of registration; empty with fewer than two weekdays."""
    if cut.day is None:
        return ()
    # 1970-01-01, day 0 of datetime64, was a Thursday
    weekday = (cut.day.astype(np.int64) + 3) % 7 + 1
    days = []
    for day in np.unique(weekday):
        summaries = [arm_summary(cut, PRIMARY, arm, weekday == day) for arm in rules.weights]
        users, means = {s.arm: s.users for s in summaries}, {s.arm: s.mean for s in summaries}
        days.append(Weekday(int(day), users, means))
    return tuple(days) if len(days) > 1 else ()


def _date(day: np.datetime64) -> date:
    return date.fromisoformat(str(day))

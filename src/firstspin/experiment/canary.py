"""The stopping rule of a canary, as its plan has sealed it: stop, go on, or promote the challenger.

A canary gives a small share of the users to a challenger. It stops at any look where the challenger is shown to lose
more than the sealed margin of the control's metric, where the users of the arms don't match their weights, and where
the challenger fails. Looks are free: of canaries whose loss is at most the margin, at most a share of `alpha` is ever
stopped for harm. At the planned end the challenger is promoted where a larger loss is ruled out, at the same `alpha`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import numpy as np

from firstspin.experiment.outcomes import Outcomes
from firstspin.experiment.rules import Rules, listed, treatments
from firstspin.experiment.stats.lift import Comparison, Means, non_inferiority, ratio_statistic
from firstspin.experiment.stats.sample_ratio import SampleRatio
from firstspin.experiment.stats.sequential import one_sided_log_e
from firstspin.experiment.summary import comparison
from firstspin.experiment.verdict import Decision, Harm, guardrail_words

NO_FALLBACKS: Final[Mapping[str, float]] = MappingProxyType({})
FALLBACK_ALARM: Final = 0.05
"""Share of fallbacks in an arm of a model above which the experiment compares something else than its plan says."""
MIN_USERS: Final = 100
"""Users of each arm below which nothing stops a canary: the tests need means that are about normal."""
TUNED_AT: Final = 0.25
"""The share of the planned users at which the test of harm is most sensitive: a large harm shows early."""
_MAX_LOG_E: Final = 690.0  # above it, the evidence has no place in a float


def harms(cut: Outcomes, rules: Rules) -> tuple[Harm, ...]:
    """The evidence of harm in the primary metric and in each guardrail, over the looks after every day until now.

    The metrics share alpha (Bonferroni). `cut` are the outcomes of the planned days, with caps applied.
    """
    assert cut.day is not None  # interim analyses need it
    guarded, shown, days = _guarded(cut, rules), cut.day, np.unique(cut.day)
    level = rules.alpha / len(guarded)
    [challenger] = treatments(rules)
    return tuple(
        Harm(
            cut.metrics[metric].name,
            margin,
            max(
                _evidence(comparison(cut, metric, rules.control, challenger, shown <= day)[0], margin, level, rules)
                for day in days
            ),
            1 / level,
        )
        for metric, margin in guarded
    )


def _guarded(cut: Outcomes, rules: Rules) -> list[tuple[int, float]]:
    """Position and margin of the primary metric and of each guardrail."""
    margins = enumerate([rules.harm_margin, *(metric.margin for metric in cut.metrics[1:])])
    return [(place, margin) for place, margin in margins if margin is not None]


def _evidence(pair: Comparison, margin: float, level: float, rules: Rules) -> float:
    """The e-value against "the challenger loses at most the margin"; 0 before it means anything."""
    ratio, arms = 1 - margin, (pair.control, pair.treatment)
    if min(arm.n for arm in arms) < MIN_USERS:
        return 0.0
    spread = _spread_as_control(pair, ratio) if isinstance(pair, Means) else pair
    statistic = ratio_statistic(spread, ratio, spread_as_observed=True)
    if math.isnan(statistic):  # no spread: without a difference between users, there is no test
        return 0.0
    users = np.asarray(float(sum(arm.n for arm in arms)))
    log_e = one_sided_log_e(np.asarray(-statistic), users, level, tuned_for=rules.tuned_for * TUNED_AT)
    return math.exp(min(float(log_e), _MAX_LOG_E))


def _spread_as_control(means: Means, ratio: float) -> Means:
    """The challenger's users vary at least as `ratio` times the control's.

    Few users of a skewed metric, such as seconds, often have both a mean and a variance that are too small: with the
    variance of its own, an equal challenger was stopped in up to 19% of the canaries, instead of 5%.
    """
    one, zero = means.treatment, means.control
    variance = max(one.variance, ratio**2 * zero.variance * zero.n / one.n)
    return replace(means, treatment=replace(one, variance=variance))


def decide_canary(
    cut: Outcomes,
    rules: Rules,
    ratio: SampleRatio,
    found: Sequence[Harm],
    fallbacks: Mapping[str, float],
    *,
    over: bool,
) -> tuple[Decision, None, str]:
    """The decision and a sentence with its numbers. `over`: the planned end has come.

    `fallbacks` is the share of users by arm whom a fallback answered.
    """
    [challenger] = treatments(rules)
    if reason := _stops(challenger, rules, ratio, found, fallbacks):
        return "stop the canary", None, f"Stop the canary: {reason}."
    if not over:
        evidence = listed([f"{one.e_value:.2g} to 1 in {one.metric}" for one in found])
        return (
            "go on with the canary",
            None,
            f"Go on with the canary: no harm is shown (evidence {evidence}; {found[0].stops_at:g} to 1 stops it).",
        )
    everyone = np.ones(len(cut), dtype=np.bool_)
    tests = {
        cut.metrics[metric].name: non_inferiority(
            comparison(cut, metric, rules.control, challenger, everyone)[0], margin=margin, alpha=rules.alpha
        )
        for metric, margin in _guarded(cut, rules)
    }
    words = "; ".join(guardrail_words(test, name) for name, test in tests.items())
    if all(test.shown for test in tests.values()):
        return "promote the challenger", None, f"Promote the challenger: {words}."
    return "stop the canary", None, f"Stop the canary: its planned end has come. {words[0].upper()}{words[1:]}."


def _stops(
    challenger: str, rules: Rules, ratio: SampleRatio, found: Sequence[Harm], fallbacks: Mapping[str, float]
) -> str:
    """Why the canary stops at this look; empty where it does not."""
    if not ratio.sound:
        users = listed([f"{n:,} in {arm}" for arm, n in ratio.users.items()])
        return f"the users, {users}, do not match the weights ({ratio.reason})"
    failing = fallbacks.get(challenger, 0.0)
    if ratio.users[challenger] >= MIN_USERS and failing > FALLBACK_ALARM:
        return f"a fallback answered {failing:.1%} of the users of {challenger}; the limit is {FALLBACK_ALARM:.0%}"
    return "; ".join(
        f"{challenger} loses more than {one.margin:.3g} of {rules.control}'s {one.metric} "
        f"(evidence {one.e_value:,.0f} to 1; {one.stops_at:g} to 1 stops it)"
        for one in found
        if one.shown
    )

"""The conclusion: what the model achieves, where it helps most and least, and what to do next, a sentence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from statistics import NormalDist
from typing import Final

from firstspin.evaluation.bootstrap import Figure
from firstspin.evaluation.metrics import HEADLINE, SEEN_SHARE
from firstspin.evaluation.report.findings import MIN_NAMED, is_clear, leaders, listed, simultaneous
from firstspin.evaluation.report.parts import Material, percent, points, relative
from firstspin.evaluation.report.quality import BY, cohort_lifts, measured_users, named
from firstspin.evaluation.scorecard import CohortResult, Scorecard
from firstspin.models.predictor import RULE

Z: Final = NormalDist().inv_cdf(0.975)


def sentences(material: Material) -> tuple[str, str, str]:
    """Three sentences for a reader who decides."""
    return _achieves(material.card), _where(material.card), _next(material)


def _achieves(card: Scorecard) -> str:
    best = card.figures[card.best][HEADLINE].value
    users, first = measured_users(card), "ranks the top genre among the first three"
    lift = card.lifts.get(card.best, {}).get(RULE)
    if lift is None:
        return f"{named(card.best)} {first} for {percent(best, 1)} of {users}: there is no other model to compare with."
    difference, rule = lift[HEADLINE].difference, percent(card.figures[RULE][HEADLINE].value, 1)
    compared = f"{named(card.best)} {first} for {percent(best, 1)} of {users}, the business rule for {rule}"
    if not is_clear(difference):
        return f"{compared}: no difference is shown ({points(difference)})."
    return f"{compared}: {points(difference)}, relative {relative(lift[HEADLINE].relative)}."


def _where(card: Scorecard) -> str:
    """Cohorts whose lift differs clearly from that of all users, with simultaneous intervals."""
    lifts = cohort_lifts(card)
    if not lifts:
        return f"No cohort of {MIN_NAMED} users can be compared, so where the model helps most and least is unknown."
    own = [one for one in card.segments if (one.by, one.name) in lifts]
    gains = simultaneous([from_average(card, one) for one in own])
    more = [one for one, figure in zip(own, gains, strict=True) if figure.low > 0]
    less = [one for one, figure in zip(own, gains, strict=True) if figure.high < 0]
    ahead = sum(figure.low > 0 for figure in lifts.values())
    behind = [one for one in own if lifts[one.by, one.name].high < 0]
    worse = f", and it is worse than the rule for {listed([_cohort(one) for one in behind])}" if behind else ""
    if not more and not less:
        return (
            f"The gain over the rule is established in {ahead} of {len(own)} cohorts of at least {MIN_NAMED} users and "
            f"differs clearly from the average in none, so where the model helps most and least is unknown{worse}."
        )
    most, least = (_extreme(these, lifts, sign) or "no cohort" for these, sign in ((more, 1), (less, -1)))
    return (
        f"Compared with the average user, the gain over the rule is clearly larger for {most} and clearly smaller for "
        f"{least}; it is established in {ahead} of {len(own)} cohorts of at least {MIN_NAMED} users{worse}."
    )


def from_average(card: Scorecard, cohort: CohortResult) -> Figure:
    """A cohort's lift over the rule minus that of all users, of whom the cohort is a part, with a normal interval.

    With se of the cohort's lift, SE of the lift of all and the cohort's share f of the users, the covariance of the
    two lifts is f se², so the variance is se² (1 - 2f) + SE².
    """
    part, whole = cohort.lifts[RULE].difference, card.lifts[card.best][RULE][HEADLINE].difference
    share = cohort.people / card.people
    variance = _se(part) ** 2 * (1 - 2 * share) + _se(whole) ** 2
    value, half = part.value - whole.value, Z * sqrt(max(0.0, variance))
    return Figure(value, value - half, value + half)


def _next(material: Material) -> str:
    card, test = material.card, material.test
    if test is not None:
        return f"Next: {_after_test(test.decision, test.winner, test.control)}."
    if isinstance(share := card.protocol.get(SEEN_SHARE), float) and share > 0:
        return "Next: measure on held-out users, with firstspin evaluate --data DIR --models auto."
    lift = card.lifts.get(card.best, {}).get(RULE)
    if lift is None:
        return "Next: train another model and compare it with the rule, with firstspin evaluate."
    difference = lift[HEADLINE].difference
    if difference.low > 0:
        return (
            "Next: an A/B test of the model against the rule, since a hit is not a click: firstspin experiment plan "
            f"--registrations-a-day {_a_day(material)} with the current click rate as --baseline."
        )
    if difference.value > 0:
        needed = ceil(card.people * (_half(difference) / difference.value) ** 2 / 100) * 100
        return (
            f"Next: keep the rule and collect labels; a difference of this size needs about {needed:,} labelled users."
        )
    return "Next: keep the rule, and find further answers that predict listening (firstspin train --extra)."


def _after_test(decision: str, winner: str | None, control: str) -> str:
    if decision == "winner":
        return f"serve {winner} to all new users, as the A/B test below decided"
    if decision == "sample ratio mismatch":
        return "find out why the users of the arms do not compare; until then the A/B test below says nothing"
    if decision == "no decision yet":
        return "wait for the planned end of the A/B test below"
    return f"keep {control}: the A/B test below ended with “{decision}”"


def _extreme(these: Sequence[CohortResult], lifts: Mapping[tuple[str, str], Figure], sign: int) -> str:
    of = {_cohort(one): lifts[one.by, one.name] for one in these}
    if not of:
        return ""
    ends = leaders({name: sign * figure.value * 100 for name, figure in of.items()}, 1)
    return (
        f"{listed(ends)} ({points(of[ends[0]]) if len(ends) == 1 else f'{of[ends[0]].value * 100:+.1f} points each'})"
    )


def _cohort(one: CohortResult) -> str:
    return f"{BY.get(one.by, one.by)} {one.name}"


def _a_day(material: Material) -> int:
    """Registrations per day of the tables, rounded."""
    at = material.examples.registered_at.astype("datetime64[D]")
    days = int((at.max() - at.min()).astype(int)) + 1
    registered = material.card.data.get("registered")
    return max(1, round((registered if isinstance(registered, int) else len(at)) / days))


def _se(figure: Figure) -> float:
    return (figure.high - figure.low) / 2 / Z


def _half(figure: Figure) -> float:
    return (figure.high - figure.low) / 2

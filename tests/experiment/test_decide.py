from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from firstspin.experiment.decide import decide, warnings
from firstspin.experiment.outcomes import LeftOut
from firstspin.experiment.rules import Metric, Peeking, Rules
from firstspin.experiment.stats.lift import ClickRates, Clicks, Means, lift, non_inferiority, significant
from firstspin.experiment.stats.means import Mean
from firstspin.experiment.stats.sample_ratio import SampleRatio, sample_ratio
from firstspin.experiment.summary import ArmSummary
from firstspin.experiment.verdict import Beside, DailyLift, MetricResult

SOUND = sample_ratio([{"rule": 20_000, "model": 20_000}], {"rule": 1.0, "model": 1.0})
BETTER, SAME, WORSE = 1_200, 1_010, 800


def rules(peeking: Peeking = "none", days: int = 14) -> Rules:
    return Rules(
        control="rule",
        metrics=(Metric("clicked", "binary"), Metric("seconds", "continuous", margin=0.05)),
        weights={"rule": 1.0, "model": 1.0},
        peeking=peeking,
        days=days,
        reads_at=datetime(2026, 2, 17, tzinfo=UTC),
    )


def clicked(**arms: int) -> MetricResult:
    return MetricResult("clicked", "binary", "primary", None, (), tuple(beside(arm, n) for arm, n in arms.items()))


def beside(arm: str, clicks: int) -> Beside:
    found = lift(rates(clicks))
    return Beside(arm, found, significant(found))


def rates(clicks: int) -> ClickRates:
    return ClickRates(Clicks(20_000, 1_000), Clicks(20_000, clicks))


def listened(**arms: float) -> MetricResult:
    found = []
    for arm, mean in arms.items():
        means = Means(Mean(20_000, 60.0, 0.25), Mean(20_000, mean, 0.25))
        seen = lift(means)
        found.append(Beside(arm, seen, significant(seen), non_inferiority=non_inferiority(means, margin=0.05)))
    return MetricResult("seconds", "continuous", "guardrail", None, (), tuple(found))


def decided(
    *metrics: MetricResult,
    ratio: SampleRatio = SOUND,
    over: bool = True,
    daily: tuple[DailyLift, ...] = (),
    **how: object,
):
    return decide(rules(**how), ratio, metrics, daily, over=over)


def test_a_better_arm_that_keeps_its_guardrail_wins() -> None:
    decision, winner, sentence = decided(clicked(model=BETTER), listened(model=60.0))
    assert (decision, winner) == ("winner", "model")
    assert sentence == (
        "model wins: model's clicked 5.0% to 6.0%, +20.0% (95% CI +10.6% to +30.2%), p < 0.0001; "
        "seconds: a loss of more than 1.9% is ruled out; the margin is 5%."
    )


def test_a_better_arm_that_may_lose_listening_does_not_win() -> None:
    decision, winner, sentence = decided(clicked(model=BETTER), listened(model=58.0))
    assert (decision, winner) == ("guardrail not kept", None)
    assert "seconds: a loss of up to 5.2% is not ruled out; the margin is 5%" in sentence


def test_a_worse_arm_leaves_the_control() -> None:
    assert decided(clicked(model=WORSE), listened(model=60.0))[:2] == ("control is better", None)


def test_nothing_significant_is_no_difference_shown_with_what_may_still_be_true() -> None:
    decision, winner, sentence = decided(clicked(model=SAME), listened(model=60.0))
    assert (decision, winner) == ("no difference shown", None)
    assert "(95% CI -7.2% to +10.0%)" in sentence


def test_an_unsound_split_names_no_winner_whatever_the_numbers() -> None:
    uneven = sample_ratio([{"rule": 21_000, "model": 19_000}], {"rule": 1.0, "model": 1.0})
    decision, winner, sentence = decided(clicked(model=BETTER), listened(model=60.0), ratio=uneven)
    assert (decision, winner) == ("sample ratio mismatch", None)
    assert "wins" not in sentence


def test_before_its_time_there_is_no_decision_whatever_the_numbers() -> None:
    decision, winner, sentence = decided(clicked(model=BETTER), listened(model=60.0), over=False)
    assert (decision, winner) == ("no decision yet", None)
    assert sentence == "No decision yet: the plan is evaluated on 17 February 2026."


def day(number: int, clicks: int, alpha: float) -> DailyLift:
    return DailyLift(
        date(2026, 2, number), {"rule": 20_000, "model": 20_000}, {"model": lift(rates(clicks), alpha=alpha)}
    )


def test_a_daily_rule_may_stop_early_and_what_it_found_stands() -> None:
    daily = (day(2, SAME, 1e-4), day(3, BETTER, 1e-3), day(4, SAME, 1e-2))
    decision, winner, sentence = decided(
        clicked(model=SAME), listened(model=60.0), daily=daily, over=False, peeking="obrien-fleming"
    )
    assert (decision, winner) == ("winner", "model")
    assert "99.9% CI" in sentence


def test_a_daily_rule_that_has_found_nothing_waits() -> None:
    daily = (day(2, SAME, 1e-4), day(3, SAME, 1e-3))
    assert decided(clicked(model=SAME), daily=daily, over=False, peeking="obrien-fleming")[0] == "no decision yet"
    assert decided(clicked(model=SAME), daily=daily, over=True, peeking="obrien-fleming")[0] == "no difference shown"


def test_of_several_better_arms_the_best_that_keeps_its_guardrail_wins() -> None:
    decision, winner, _ = decided(
        clicked(model=BETTER, bold=1_500, timid=SAME), listened(model=60.0, bold=50.0, timid=60.0)
    )
    assert (decision, winner) == ("winner", "model")


def test_an_arm_without_users_is_no_difference_shown_with_the_reason() -> None:
    nobody = lift(ClickRates(Clicks(0, 0), Clicks(20_000, 10)))
    measured = MetricResult("clicked", "binary", "primary", None, (), (Beside("model", nobody, False),))
    assert "an arm has no users" in decided(measured)[2]


def gaps(*missing: int) -> MetricResult:
    arms = tuple(ArmSummary(arm, 1_000, gap, 1.0) for arm, gap in zip(("rule", "model"), missing, strict=True))
    return MetricResult("seconds", "continuous", "secondary", None, arms, ())


@pytest.mark.parametrize(
    ("left_out", "late", "missing", "words"),
    [
        (LeftOut(repeated=3), 0, (0, 0), "3 users have several rows"),
        (LeftOut(in_several_arms=2), 0, (0, 0), "2 users are in several arms"),
        (LeftOut(without_arm=1), 0, (0, 0), "1 user has no arm and is excluded"),
        (LeftOut(), 5, (0, 0), "5 users came outside the planned days"),
        (LeftOut(), 0, (10, 11), "21 users have no value of seconds"),
        (
            LeftOut(),
            0,
            (10, 110),
            "differs between the arms (1.0% in rule and 11.0% in model, p < 0.0001)",
        ),
    ],
)
def test_threats_to_validity_are_warned_of(left_out: LeftOut, late: int, missing: tuple[int, int], words: str) -> None:
    sentences = list(warnings(rules(), [gaps(*missing)], left_out, late=late))
    assert any(words in sentence for sentence in sentences)


def test_ten_days_and_a_missing_plan_are_warned_of() -> None:
    assert list(warnings(rules(), [], LeftOut(), late=0)) == []
    assert "10 days are not whole weeks" in next(iter(warnings(rules(days=10), [], LeftOut(), late=0)))
    unplanned = Rules(control="rule", metrics=())
    assert "No plan was given" in next(iter(warnings(unplanned, [], LeftOut(), late=0)))


def test_a_blank_of_a_binary_metric_may_mean_no() -> None:
    arms = (ArmSummary("rule", 1_000, 5, 0.1), ArmSummary("model", 1_000, 5, 0.1))
    measured = MetricResult("bought", "binary", "secondary", None, arms, ())
    [*_, about] = warnings(rules(), [measured], LeftOut(), late=0)
    assert about.endswith("are excluded from it; where a blank means no, write bought:binary:blank=no.")

"""Three sentences on hand-made scorecards whose right answer is visible."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_report import material

from firstspin.evaluation.bootstrap import Figure, PairedLift
from firstspin.evaluation.metrics import SEEN_SHARE
from firstspin.evaluation.report import conclusion, quality
from firstspin.evaluation.report.parts import ExperimentResult, HtmlTable, Picture
from firstspin.evaluation.scorecard import CohortResult, Scorecard
from firstspin.models.predictor import RULE

NONE = Figure(0.0, 0.0, 0.0)


def lift(value: float, half: float) -> PairedLift:
    figure = Figure(value, value - half, value + half)
    return PairedLift(figure, Figure(value / 0.5, (value - half) / 0.5, (value + half) / 0.5))


def card(value: float, half: float, *cohorts: CohortResult) -> Scorecard:
    """Of 1,000 users: the rule has 50%, the model 50% + value."""
    metric = "hit@3"
    return Scorecard(
        {"protocol": "3 folds over users"},
        {"registered": 1200},
        1000,
        "auto",
        {"auto": {metric: Figure(0.5 + value, 0.0, 1.0)}, RULE: {metric: Figure(0.5, 0.0, 1.0)}},
        {"auto": {RULE: {metric: lift(value, half)}}, RULE: {}},
        list(cohorts),
    )


def cohort(name: str, people: int, value: float, half: float, by: str = "age") -> CohortResult:
    figures = {"auto": Figure(0.5 + value, 0.5 + value - half, 0.5 + value + half), RULE: Figure(0.5, 0.45, 0.55)}
    return CohortResult(by, name, people, figures, {RULE: lift(value, half)})


def sentences(of: Scorecard, test: ExperimentResult | None = None) -> tuple[str, str, str]:
    return conclusion.sentences(replace(material(), card=of, test=test))


def test_a_gain_is_stated_with_its_interval_and_an_ab_test_is_next() -> None:
    achieves, _, following = sentences(card(0.05, 0.02))
    assert achieves == (
        "auto ranks the top genre among the first three for 55.0% of 1,000 held-out users (3 folds over users), the "
        "business rule for 50.0%: +5.0 points [+3.0, +7.0], relative +10.0% [+6.0%, +14.0%]."
    )
    assert "an A/B test" in following
    assert "--registrations-a-day 5" in following  # 1,200 in the 240 days of the made people


def test_a_gain_within_its_interval_is_no_gain_and_says_how_many_users_it_takes() -> None:
    achieves, _, following = sentences(card(0.01, 0.02))
    assert achieves.endswith("no difference is shown (+1.0 points [-1.0, +3.0]).")
    assert following == (
        "Next: keep the rule and collect labels; a difference of this size needs about 4,000 labelled users."
    )
    assert sentences(card(-0.05, 0.02))[2].startswith("Next: keep the rule, and find further answers")


def test_the_cohorts_that_differ_clearly_are_named_and_small_ones_are_not() -> None:
    young, old, few = cohort("18-24", 400, 0.20, 0.04), cohort("55+", 580, -0.05, 0.03), cohort("25-34", 20, 0.9, 0.01)
    where = sentences(card(0.06, 0.02, young, old, few))[1]
    assert "clearly larger for age 18-24 (+20.0 points [" in where
    assert "clearly smaller for age 55+ (-5.0 points [" in where
    assert "established in 1 of 2 cohorts of at least 50 users, and it is worse than the rule for age 55+." in where
    assert "25-34" not in where


def test_equal_cohorts_are_not_ranked() -> None:
    where = sentences(card(0.05, 0.02, cohort("18-24", 500, 0.06, 0.03), cohort("25-34", 500, 0.04, 0.03)))[1]
    assert where == (
        "The gain over the rule is established in 2 of 2 cohorts of at least 50 users and differs clearly from the "
        "average in none, so where the model helps most and least is unknown."
    )
    assert "No cohort of 50 users" in sentences(card(0.05, 0.02, cohort("18-24", 49, 0.5, 0.01)))[1]


def test_cohorts_that_gain_equally_are_named_together() -> None:
    cohorts = [cohort("18-24", 250, 0.2, 0.03), cohort("25-34", 250, 0.2, 0.03), cohort("35-44", 500, 0.0, 0.02)]
    assert "larger for age 18-24 and age 25-34 (+20.0 points each)" in sentences(card(0.1, 0.02, *cohorts))[1]


def test_the_variance_of_a_part_minus_the_whole_is_that_of_a_simulation() -> None:
    """300 of 1,000 users with differences of another spread: the sample means, 20,000 times."""
    rng = np.random.default_rng(0)
    part, rest = rng.normal(0.2, 0.9, (20_000, 300)).mean(axis=1), rng.normal(0.0, 0.5, (20_000, 700)).mean(axis=1)
    simulated = (part - (0.3 * part + 0.7 * rest)).std()
    se = 0.9 / np.sqrt(300)
    whole = np.sqrt(0.09 * se**2 + 0.49 * 0.25 / 700)
    figure = conclusion.from_average(card(0.06, 1.959964 * whole), cohort("a", 300, 0.2, 1.959964 * se))
    assert figure.value == pytest.approx(0.14)
    assert (figure.high - figure.low) / 2 / 1.959964 == pytest.approx(simulated, rel=0.02)


@pytest.mark.parametrize(
    ("decision", "winner", "says"),
    [
        ("winner", "model", "serve model to all new users"),
        ("no difference shown", None, "keep rule: the A/B test below ended with “no difference shown”"),
        ("sample ratio mismatch", None, "find out why the users of the arms do not compare"),
        ("no decision yet", None, "wait for the planned end"),
    ],
)
def test_a_test_that_was_run_decides_what_is_next(decision: str, winner: str | None, says: str) -> None:
    result = ExperimentResult(decision, winner, "", (), "rule", {}, ())  # type: ignore[arg-type]
    assert says in sentences(card(0.05, 0.02), result)[2]


def test_figures_on_the_bundles_own_training_users_are_said_to_be_too_high() -> None:
    seen = replace(card(0.05, 0.02), protocol={"protocol": "bundle", SEEN_SHARE: 1.0})
    achieves, _, following = sentences(seen)
    assert "1,000 users on whom it was trained, so its figures are too high" in achieves
    assert "held-out" not in achieves
    assert following.startswith("Next: measure on held-out users")
    fresh = sentences(replace(card(0.05, 0.02), protocol={"protocol": "bundle", SEEN_SHARE: 0.0}))
    assert "55.0% of 1,000 users, the business rule" in fresh[0]


def segment_titles(*cohorts: CohortResult) -> list[str]:
    (section,) = [
        one for one in quality.sections(replace(material(), card=chart_card(*cohorts))) if one.anchor == "segments"
    ]
    return [part.title for part in section.parts if isinstance(part, Picture)]


def chart_card(*cohorts: CohortResult) -> Scorecard:
    whole = material().card
    segments = [
        replace(one, figures={whole.best: one.figures["auto"], RULE: one.figures[RULE]}, lifts=one.lifts)
        for one in cohorts
    ]
    return replace(whole, segments=segments, questions=None)


def test_cohorts_are_compared_with_the_rule_together_and_not_one_by_one() -> None:
    """Twenty cohorts whose single 95% intervals just exclude zero, and one far above."""
    alike = [cohort(f"{i:02}", 100, 0.05, 0.045, by="country") for i in range(20)]
    (title,) = segment_titles(*alike)
    assert title == "hit@3 by country: no clear difference between cohorts; above the business rule in 0 of 20 cohorts"
    (title,) = segment_titles(
        *alike, cohort("XX", 100, 0.40, 0.045, by="country"), cohort("YY", 12, 0.5, 0.0, "country")
    )
    assert title.endswith("from 55% (00, 01, 02 and 17 more) to 90% (XX); above the business rule in 1 of 21 cohorts")


def test_a_cohort_of_an_incomplete_month_is_marked() -> None:
    cohorts = [cohort(month, 100, 0.05, 0.04, by="month") for month in ("2025-10", "2025-12")]
    (section,) = [
        one for one in quality.sections(replace(material(), card=chart_card(*cohorts))) if one.anchor == "segments"
    ]
    (part,) = section.parts
    assert isinstance(part, Picture)
    drawn = str(part.draw(720).to_dict())
    assert "2025-12 (100, incomplete)" in drawn.replace("\\n", " ")
    assert "2025-10 (100)" in drawn


def test_the_gaps_have_no_column_on_demographics_that_nobody_answered() -> None:
    study = material().card.questions
    assert study is not None
    bare = replace(study, questions=[one for one in study.questions if one.name == "genres"])
    for of, columns in ((study, 5), (bare, 4)):
        tables = [
            part
            for section in quality.sections(replace(material(), card=replace(material().card, questions=of)))
            if section.anchor == "questions"
            for part in section.parts
            if isinstance(part, HtmlTable)
        ]
        assert [len(table.header) for table in tables] == [columns]
        assert all(len(row) == columns for row in tables[0].rows)


def test_questions_are_compared_together_and_ties_are_named() -> None:
    study = material().card.questions
    assert study is not None
    one = study.questions[0]
    noise = Figure(0.03, 0.001, 0.059)  # clear alone, not among four
    questions = [
        replace(one, name=name, lost=lost)
        for name, lost in (("age", noise), ("gender", noise), ("country", Figure(0.2, 0.15, 0.25)))
    ]
    alike = replace(one, name="genres", lost=Figure(0.2, 0.14, 0.26))
    title = quality._lost_title(replace(study, questions=[*questions, alike]))
    assert title == (
        "Without country and genres picked, hit@3 falls by 20.0 points alike; no clear effect of age and gender"
    )
    assert quality._lost_title(replace(study, questions=questions[:2])) == "No single question clearly raises hit@3"
    few = [replace(one, name="age", answered=12, withheld=Figure(1.0, 1.0, 1.0)), replace(one, name="country")]
    assert "age" not in quality._changes(few).title

"""The scorecard and the census as the terminal shows them, within 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from firstspin.cli import terminal
from firstspin.evaluation.bootstrap import bare
from firstspin.evaluation.learning_curve import LOSS, SHOWN
from firstspin.evaluation.listens_curve import EVIDENCE, METRICS, STRATEGIES, SWITCH_AT, ListensCurve
from firstspin.evaluation.metrics import HEADLINE
from firstspin.models.predictor import RULE, in_words

if TYPE_CHECKING:
    from firstspin.evaluation.ablation import Study
    from firstspin.evaluation.bootstrap import Figure
    from firstspin.evaluation.learning_curve import LearningCurve
    from firstspin.evaluation.row_coverage import RowCoverage
    from firstspin.evaluation.scorecard import Ceiling, Reliability, Scorecard
    from firstspin.records import Census


ABOUT: Final = (
    f"The {in_words(RULE)} is the baseline to beat: the picks by popularity, then the rest. The others: overall, the "
    "most popular genres; single_pick, the most popular pick first; age_gender, the most popular genres by age "
    "and gender."
)


def print_census(census: Census, ignored: Mapping[str, int]) -> None:
    """Every user, kept or dropped by reason; what was ignored, and what matches nothing."""
    for line in census.lines(ignored, bare=terminal.bare()):
        terminal.out.print(line)


def print_seen(card: Scorecard, held_out: str) -> None:
    """A warning, where a bundle was trained on users that it is evaluated on; `held_out` is the command to use."""
    if warning := card.warning():
        terminal.out.print(f"{warning} Figures on held-out users: {held_out}")


def print_headline(card: Scorecard) -> None:
    """A row a model, and the lift over each baseline."""
    for title, (header, *rows) in card.headline_tables():
        table = terminal.table(title, *header)
        for row in rows:
            table.add_row(*row)
        terminal.show(table)
    if RULE in card.figures:
        terminal.out.print(f"\n{ABOUT} {card.advice()}".rstrip())


def print_hold_out(card: Scorecard) -> None:
    """The headline, and what the calibrated rows cover."""
    print_headline(card)
    if card.rows:
        terminal.out.print(f"\n{card.rows.sentence()}")
    if card.evidence:
        terminal.out.print(f"\n{card.evidence.sentence()}")


def print_scorecard(card: Scorecard) -> None:
    """Print the headline, the ceiling, the cohorts, the calibration of the best model, and the ablation."""
    print_headline(card)
    if card.ceiling:
        _print_ceiling(card.ceiling)
    _print_segments(card)
    if card.best in card.reliability:
        _print_reliability(card.best, card.reliability[card.best])
    if card.rows:
        _print_rows(card.rows)
    if card.questions:
        _print_questions(card.questions)


def _print_ceiling(ceiling: Ceiling) -> None:
    title = f"under the simulated ground truth; Bayes-optimal given the answers: {ceiling.best}"
    table = terminal.table(title, "model", f"expected {HEADLINE}", "of the Bayes-optimal")
    for name, expected in ceiling.expected.items():
        table.add_row(in_words(name), str(expected), _percent(ceiling.share[name]))
    terminal.show(table)


def _print_segments(card: Scorecard) -> None:
    if not card.segments:
        return
    table = terminal.table(
        f"{HEADLINE} of {in_words(card.best)} by group", "", "group", "people", HEADLINE, in_words(RULE), "lift"
    )
    last = ""
    for segment in card.segments:
        by, last = ("" if segment.by == last else segment.by), segment.by
        lift = segment.lifts[RULE].relative.percent() if RULE in segment.lifts else ""
        rule = str(segment.figures[RULE]) if RULE in segment.figures else ""
        table.add_row(by, segment.name, f"{segment.people:,}", str(segment.figures[card.best]), rule, lift)
    table.columns[1].justify = "left"
    terminal.show(table)


def _print_reliability(name: str, reliability: Reliability) -> None:
    low, high = reliability.luck
    terminal.out.print(
        f"\nProbabilities of {in_words(name)}: calibration error {reliability.error:.3f} (perfect ones would have "
        f"{low:.3f} to {high:.3f})",
    )


def _print_rows(rows: RowCoverage) -> None:
    terminal.out.print(f"\n{rows.sentence()}")
    if not rows.segments:
        return
    table = terminal.table("coverage of the calibrated rows by group", "", "group", "people", "covered", "95% CI")
    last = ""
    for segment in rows.segments:
        by, last = ("" if segment.by == last else segment.by), segment.by
        value, interval = f"{segment.coverage.value:.1%}", f"{segment.coverage.low:.1%} to {segment.coverage.high:.1%}"
        table.add_row(by, segment.name, f"{segment.people:,}", value, interval)
    table.columns[1].justify = "left"
    terminal.show(table)


def _print_questions(study: Study) -> None:
    title = f"Value of a question (ablation): {in_words(study.model)} with all has {HEADLINE} {study.full}"
    table = terminal.table(title, "question", "answered", f"{HEADLINE} lost without", "top 3 change", "with another's")
    for question in study.questions:
        table.add_row(
            question.name,
            f"{question.answered:,}",
            signed(question.lost),
            _share(question.withheld),
            _share(question.changed),
        )
    if {"age", "gender"} & {question.name for question in study.questions}:
        table.add_row("age and gender", "", signed(study.demographics_lost), "", "")
    terminal.show(table)
    gaps = terminal.table(f"{HEADLINE} between groups", "", "best", "worst", "gap", "without age, gender")
    bare = {gap.by: gap for gap in study.gaps_without_demographics}
    for gap in study.gaps:
        gaps.add_row(gap.by, gap.best, gap.worst, signed(gap.distance), signed(bare[gap.by].distance))
    terminal.show(gaps)


def print_curve(curve: LearningCurve | ListensCurve) -> None:
    """A table a metric, a row a number of training users or of early listens; what they show."""
    if isinstance(curve, ListensCurve):
        _print_listens(curve)
    else:
        _print_users(curve)
    terminal.out.print(f"\n{curve.sentence()}")


def _print_users(curve: LearningCurve) -> None:
    for metric in SHOWN:
        title = f"{metric} on {curve.held_out:,} held-out users, by the number of training users"
        table = terminal.table(title, "users", in_words(RULE), in_words(curve.model), "difference")
        for point in curve.points:
            figures = str(point.rule[metric]), str(point.model[metric]), signed(point.difference[metric])
            table.add_row(f"{point.users:,}", *figures)
        terminal.show(table)


def _print_listens(curve: ListensCurve) -> None:
    for metric in METRICS:
        title = f"{metric} on {curve.held_out:,} held-out users with early listens"
        optimal = metric == HEADLINE and curve.points[0].optimum
        table = terminal.table(title, "listens", *STRATEGIES, "over the better", *(["optimum"] if optimal else []))
        for point in curve.points:
            figures = [str(point.figures[name][metric]) for name in STRATEGIES]
            best = [bare(point.optimum.value)] if optimal and point.optimum else []
            table.add_row(str(point.listens), *figures, signed(point.over_better[metric]), *best)
        terminal.show(table)
    _print_listens_groups(curve)
    optimum = ". Optimum: Bayes-optimal given answers and listens" if curve.points[0].optimum else ""
    terminal.out.print(
        f"\nevidence: {in_words(curve.model)} moved by the listens; history: the listens alone; switch: history from "
        f"{SWITCH_AT} listens on. Over the better: evidence minus the better of model and history, paired{optimum}."
    )


def _print_listens_groups(curve: ListensCurve) -> None:
    if not curve.groups:
        return
    number = curve.points[-1].listens
    title = f"after {number} listens, by group: evidence, and over the better of model and history"
    table = terminal.table(title, "", "group", "people", HEADLINE, "over the better", "log loss, over the better")
    last = ""
    for group in curve.groups:
        by, last = ("" if group.by == last else group.by), group.by
        point = group.points[-1]
        over = [signed(point.over_better[metric]) for metric in (HEADLINE, LOSS)]
        table.add_row(by, group.name, f"{group.people:,}", str(point.figures[EVIDENCE][HEADLINE]), *over)
    table.columns[1].justify = "left"
    terminal.show(table)


def signed(figure: Figure) -> str:
    """A difference with the half-width of its interval, in three decimals."""
    return f"{'-' if figure.value < 0 else '+'}{bare(abs(figure.value))} ±{bare((figure.high - figure.low) / 2)}"


def _share(figure: Figure) -> str:
    return f"{figure.value:.1%} ±{(figure.high - figure.low) * 50:.1f}"


def _percent(figure: Figure) -> str:
    return f"{figure.value:.2%} ±{(figure.high - figure.low) * 50:.2f}"

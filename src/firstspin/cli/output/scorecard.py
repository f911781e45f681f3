"""The scorecard and the census as the terminal shows them, within 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from firstspin.cli import terminal
from firstspin.evaluation.metrics import HEADLINE, RULE, SEEN_SHARE, RankingMetric

if TYPE_CHECKING:
    from firstspin.evaluation.ablation import Study
    from firstspin.evaluation.bootstrap import Figure
    from firstspin.evaluation.scorecard import Ceiling, Reliability, Scorecard
    from firstspin.records import Census

ALL_BUT_CHANCE: Final = 0.95
"""A share estimated above it may be all users."""


def print_census(census: Census, ignored: Mapping[str, int]) -> None:
    """Every user, kept or dropped by reason; what was ignored, and what matches nothing."""
    terminal.out.print(f"{census.labelled:,} of {census.registered:,} registrations have a label", markup=False)
    terminal.out.print(f"  data_ends {census.data_ends.isoformat()}Z", markup=False)
    if census.absent:
        terminal.out.print(f"  the registrations have no column {', '.join(census.absent)}", markup=False)
    terminal.counted("  dropped", census.dropped)
    terminal.counted("  ignored", ignored)
    for mismatch in census.mismatches:
        terminal.mismatch(mismatch)


def print_seen(card: Scorecard, data: object) -> None:
    """A warning, where a bundle was trained on users that it is evaluated on."""
    share = card.protocol.get(SEEN_SHARE, 0.0)
    if isinstance(share, float) and share > 0:
        whom = "these very users" if share > ALL_BUT_CHANCE else f"about {share:.0%} of these users"
        terminal.out.print(
            f"Warning: {card.best} was trained on {whom}, so its figures are too high. Figures on held-out users: "
            f"firstspin evaluate --data {data} --models auto",
            markup=False,
            soft_wrap=True,
        )


def print_headline(card: Scorecard) -> None:
    """A row a model, and the lift over each baseline."""
    _print_ladder(card)
    _print_lifts(card)


def print_scorecard(card: Scorecard) -> None:
    """Print the headline, the ceiling, the cohorts, the calibration of the best model, and the ablation."""
    print_headline(card)
    if card.ceiling:
        _print_ceiling(card.ceiling)
    _print_segments(card)
    if card.best in card.reliability:
        _print_reliability(card.best, card.reliability[card.best])
    if card.questions:
        _print_questions(card.questions)


def _print_ladder(card: Scorecard) -> None:
    users = "users" if SEEN_SHARE in card.protocol else "held-out users"
    title = f"{card.protocol['protocol']}, n = {card.people:,} {users}, ± half-width of the 95% CI"
    figures = terminal.table(title, "model", *RankingMetric)
    for name, row in card.figures.items():
        figures.add_row(name, *(_with_interval(row[metric]) for metric in RankingMetric))
    terminal.show(figures)


def _print_lifts(card: Scorecard) -> None:
    baselines = _baselines(card)
    lifts = terminal.table(f"lift in {HEADLINE} over each baseline, as a share of it", "model", *baselines)
    for name, over in card.lifts.items():
        if name not in baselines:
            lifts.add_row(name, *(_lift(over[baseline][HEADLINE].relative) for baseline in baselines))
    terminal.show(lifts)


def _print_ceiling(ceiling: Ceiling) -> None:
    title = f"under the simulated ground truth; Bayes-optimal: {_with_interval(ceiling.best)}"
    table = terminal.table(title, "model", f"expected {HEADLINE}", "of the Bayes-optimal")
    for name, expected in ceiling.expected.items():
        table.add_row(name, _with_interval(expected), _percent(ceiling.share[name]))
    terminal.show(table)


def _print_segments(card: Scorecard) -> None:
    if not card.segments:
        return
    table = terminal.table(f"{HEADLINE} of {card.best} by group", "", "group", "people", HEADLINE, RULE, "lift")
    last = ""
    for segment in card.segments:
        by, last = ("" if segment.by == last else segment.by), segment.by
        lift = _lift(segment.lifts[RULE].relative) if RULE in segment.lifts else ""
        rule = _with_interval(segment.figures[RULE]) if RULE in segment.figures else ""
        table.add_row(by, segment.name, f"{segment.people:,}", _with_interval(segment.figures[card.best]), rule, lift)
    table.columns[1].justify = "left"
    terminal.show(table)


def _print_reliability(name: str, reliability: Reliability) -> None:
    low, high = reliability.luck
    terminal.out.print(
        f"\nProbabilities of {name}: calibration error {reliability.error:.3f} (perfect ones would have {low:.3f} to "
        f"{high:.3f})",
        markup=False,
    )


def _print_questions(study: Study) -> None:
    title = f"Value of a question (ablation): {study.model} with all has {HEADLINE} {_with_interval(study.full)}"
    table = terminal.table(title, "question", "answered", f"{HEADLINE} lost without", "top 3 change", "with another's")
    for question in study.questions:
        table.add_row(
            question.name,
            f"{question.answered:,}",
            _signed(question.lost),
            _share(question.withheld),
            _share(question.changed),
        )
    if {"age", "gender"} & {question.name for question in study.questions}:
        table.add_row("age and gender", "", _signed(study.demographics_lost), "", "")
    terminal.show(table)
    gaps = terminal.table(f"{HEADLINE} between groups", "", "best", "worst", "gap", "without age, gender")
    bare = {gap.by: gap for gap in study.gaps_without_demographics}
    for gap in study.gaps:
        gaps.add_row(gap.by, gap.best, gap.worst, _signed(gap.distance), _signed(bare[gap.by].distance))
    terminal.show(gaps)


def _baselines(card: Scorecard) -> list[str]:
    return [name for name in card.figures if any(name in over for over in card.lifts.values())]


def _with_interval(figure: Figure) -> str:
    return f"{_bare(figure.value)} ±{_bare((figure.high - figure.low) / 2)}"


def _bare(value: float) -> str:
    """Three decimals, without the zero before the point."""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text


def _lift(figure: Figure) -> str:
    if figure.value != figure.value:  # the baseline has no hit
        return "–"
    return f"{figure.value:+.1%} ±{(figure.high - figure.low) * 50:.1f}"


def _signed(figure: Figure) -> str:
    return f"{'-' if figure.value < 0 else '+'}{_bare(abs(figure.value))} ±{_bare((figure.high - figure.low) / 2)}"


def _share(figure: Figure) -> str:
    return f"{figure.value:.1%} ±{(figure.high - figure.low) * 50:.1f}"


def _percent(figure: Figure) -> str:
    return f"{figure.value:.2%} ±{(figure.high - figure.low) * 50:.2f}"

"""What `firstspin watch` prints: weeks with expected and observed hits, the calendar of their labels, and drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from firstspin.cli import terminal
from firstspin.records import readable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstspin.watch.drift import BundleDrift, ColumnDrift
    from firstspin.watch.quality import HitRate, Quality

MAX_TRAINED: Final = 0.05
"""The estimated share of labelled users among a bundle's training users above which `watch` warns."""
HITS: Final = ("hit@1", "hit@3", "hit@5")


def show(report: Quality) -> None:
    """Print the report as tables."""
    if not report.weeks:
        terminal.out.print(
            "no answers are counted in this store yet; a worker reports 10 of a kind after 5 minutes, fewer at midnight"
        )
        return
    calendar = terminal.table("Labels of each week's newcomers (UTC)", "week of", "answers", "labels complete", "state")
    for week in report.weeks[:-1]:
        answers = next((one.answers for one in week.cohorts if one.by == "all"), None)
        state = "complete" if week.complete else "pending"
        shown = f"{answers:,}" if answers else "withheld"
        calendar.add_row(week.week, shown, week.labels_complete.date().isoformat(), state)
    terminal.show(calendar)
    for week in report.weeks if len(report.weeks) > 2 else report.weeks[:1]:
        title = "All weeks" if week.week == "all" else f"Week of {week.week}"
        made = terminal.table(f"{title}: expected hits, 95% interval", "", "cohort", "answers", *HITS)
        for cohort in week.cohorts:
            by, name = ("", "all") if cohort.by == "all" else (cohort.by, cohort.name)
            made.add_row(by, name, f"{cohort.answers:,}", *(_cell(cohort.hits[hit]) for hit in HITS))
        terminal.show(made)
    for one in report.rule:
        shown = f"bundle {one.model}: hit@3 of {one.users:,} labelled users is {one.observed:.3f}"
        terminal.out.print(f"{shown}, {one.by_rule:.3f} by the business rule")
        if one.is_below:
            terminal.warn(f"the model of {one.model} has fewer hits than its business rule: see docs/watch.md")
    if report.without_calibration:
        names = ", ".join(report.without_calibration)
        terminal.warn(f"no expected hits for answers of {names}: pass the bundle with --bundle, or train a new one")
    if report.differs:
        terminal.warn("observed hits differ from the expected ones in the cohorts marked DIFFERS: see docs/watch.md")


def show_drift(drifts: Sequence[BundleDrift]) -> None:
    """Print the state of every column; a column with an alarm names the category that moved most."""
    for one in drifts:
        if not one.columns:
            terminal.warn(
                f"no drift of {one.model}: it was trained before this release, or its training had no reference"
            )
            continue
        title = f"Drift of bundle {one.model}, whole weeks: {one.weeks}; at most one false alarm a year"
        made = terminal.table(title, "column", "statistic", "alarm at", "state")
        for column in one.columns:
            made.add_row(column.column, f"{column.value:,.1f}", f"{column.threshold:,.0f}", _state(column))
        terminal.show(made)


def _state(column: ColumnDrift) -> str:
    if column.since is None:
        return "no drift"
    category = readable(column.category or "")
    return f"DRIFT since the week of {column.since}: {category} {column.before:.1%}, then {column.after:.1%}"


def next_step(report: Quality, drifts: Sequence[BundleDrift], *, has_labels: bool) -> str:
    """What to do about the report."""
    if any(column.since for one in drifts for column in one.columns):
        return "compare a request of the service with a row of the registrations table; if both are right, train again"
    if report.differs or any(one.is_below for one in report.rule):
        return "firstspin train --data DIR --out BUNDLE, with registrations of the labelled weeks"
    if not report.weeks:
        return "firstspin serve --bundle BUNDLE --events sqlite:///events.sqlite"
    if not has_labels and any(week.complete for week in report.weeks[:-1]):
        return "firstspin label --data DIR --out labels.parquet, then this command with --labels labels.parquet"
    pending = next((week for week in report.weeks[:-1] if not week.complete), None)
    when = f" on {pending.labels_complete.date().isoformat()}, when more labels are complete" if pending else ""
    return f"run this command again{when}"


def _cell(hit: HitRate) -> str:
    if hit.expected is None:
        return "–"
    expected = f"{hit.expected.value:.3f} [{hit.expected.low:.3f}, {hit.expected.high:.3f}]"
    if hit.observed is None:
        return expected
    mark = " DIFFERS" if hit.differs else ""
    return f"{expected}; observed {hit.observed:.3f} of {hit.labelled:,}{mark}"

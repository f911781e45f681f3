"""`firstspin watch` of a running service: expected hits and drift of the bundle in service, for `/metrics` and `/ops`.

This runs in a process of its own, whose parent kills it when it takes too long. Metrics have no column, no category and
no count of users.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

from firstspin.data.labels.label_file import read_labels
from firstspin.events.answer_counts import DayCounts, merge_days, read_counts
from firstspin.events.schema import Secret, Unavailable
from firstspin.events.store import open_database
from firstspin.models.calibration import MILLION
from firstspin.records import InputError, LabelRule
from firstspin.service.watch_facts import WatchFacts, WeekFacts, write_facts
from firstspin.serving.bundle import load
from firstspin.serving.policy import PolicySettings
from firstspin.watch.drift import BundleDrift, bundle_drift
from firstspin.watch.quality import ALL_WEEKS, HitRate, Quality, WeekQuality, labels_complete, monday, quality

log = logging.getLogger(__name__)

HEADLINE: Final = "hit@3"
SHOWN_FOR: Final = timedelta(weeks=4)
"""How long weeks are shown, and give notice, after their labels are complete."""
UNMERGED: Final = timedelta(days=2)
"""Longer than a worker repeats a failed write."""
Gauge = Callable[..., object]


def watch_store(
    events: str,
    secret: Secret,
    folder: Path,
    labels: Path | None,
    settings: PolicySettings,
    out: Path,
    *,
    gauge: Gauge,
    tell: Callable[[WatchFacts], object] = lambda _: None,
    now: datetime,
) -> None:
    """Write the facts of the last weeks to `out`, set the gauges of the last complete week, and `tell` the facts.

    Before, the stored counts of past days are merged.

    `events` is the address of the store, `folder` that of the bundle. Where one of them or the labels can't
    be read, the reason is logged, and the last report stays.
    """
    try:
        bundle = load(folder)
        users = read_labels(labels, tuple(bundle.manifest.extra)) if labels else None
        with closing(open_database(events, secret, create=False)) as database:
            merge_days(database, (now - UNMERGED).date().isoformat())
            counts = read_counts(database)
    except (InputError, Unavailable, OSError) as problem:
        reason = problem.bare if isinstance(problem, InputError) else str(problem)
        log.warning("no report about the answers", extra={"reason": reason})
        return
    rule, own = bundle.label_rule(), [_of_model(day, bundle.id) for day in counts]
    [drift] = bundle_drift(own, [bundle], now)
    report = quality([day for day in own if day.answers], [bundle], rule, now, users, settings=settings)
    _set_gauges(report, drift, gauge, now)
    facts = _facts(report, drift, bundle.id, _labelled_weeks(counts, rule, now), now)
    write_facts(out, facts)
    tell(facts)


def _of_model(day: DayCounts, model: str) -> DayCounts:
    answers = tuple(one for one in day.answers if one.cell.model == model)
    return DayCounts(day.day, answers, tuple(one for one in day.inputs if one.model == model))


def _labelled_weeks(counts: Sequence[DayCounts], rule: LabelRule, now: datetime) -> tuple[str, ...]:
    """The weeks with answers, of any bundle, whose labels have been complete since less than SHOWN_FOR.

    A bundle is often replaced before the labels of its first week are complete.
    """
    weeks = {monday(date.fromisoformat(day.day)) for day in counts if day.answers}
    return tuple(week for week in sorted(weeks) if now - SHOWN_FOR < labels_complete(week, rule) <= now)


def _everyone(week: WeekQuality) -> dict[str, HitRate]:
    return next((cohort.hits for cohort in week.cohorts if cohort.by == "all"), {})


def _is_below_rule(report: Quality) -> bool:
    return any(one.is_below for one in report.rule)


def _set_gauges(report: Quality, drift: BundleDrift, gauge: Gauge, now: datetime) -> None:
    complete = [week for week in report.weeks if week.week != ALL_WEEKS and week.week < monday(now.date())]
    hits = _everyone(complete[-1]) if complete else {}
    for name in ("hit@1", "hit@3", "hit@5"):
        figure = hits[name].expected if name in hits else None
        for bound in ("low", "value", "high"):
            shown = round(getattr(figure, bound) * MILLION) if figure else 0
            gauge("firstspin_expected_hit_rate", shown, name.removeprefix("hit@"), bound)
    rates = [hit for week in report.weeks for cohort in week.cohorts for hit in cohort.hits.values()]
    gauge("firstspin_hits_differ", sum(hit.differs for hit in rates))
    gauge("firstspin_below_rule", int(_is_below_rule(report)))
    gauge("firstspin_drift_columns", sum(column.since is not None for column in drift.columns))
    gauge("firstspin_watch_timestamp_seconds", int(now.timestamp()))


def _facts(
    report: Quality, drift: BundleDrift, model: str, labelled_weeks: tuple[str, ...], now: datetime
) -> WatchFacts:
    weeks = []
    for week in report.weeks[:-1]:
        if week.labels_complete > now - SHOWN_FOR and (hit := _everyone(week).get(HEADLINE)):
            differs = any(rate.differs for cohort in week.cohorts for rate in cohort.hits.values())
            weeks.append(WeekFacts(week.week, hit.answers, week.labels_complete, hit.expected, hit.observed, differs))
    drifting = {column.column: column.since for column in drift.columns if column.since}
    below = _is_below_rule(report)
    return WatchFacts(now, model, tuple(weeks), drift.weeks, len(drift.columns), drifting, below, labelled_weeks)

"""The notices that the state of an experiment, or the report about the answers, gives cause for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firstspin.service.watch_facts import WatchFacts
from firstspin.webhooks.outbox import Kind, notify

if TYPE_CHECKING:
    from firstspin.experiment.monitor import Progress  # which workers do not import

log = logging.getLogger(__name__)

SILENT_DAYS: Final = 2
"""Days from the last one with an exposure to one that gives notice: a whole day (UTC) between them had none."""


def causes(progress: Progress) -> Iterator[tuple[Kind, str, str]]:
    """The kind, the cause and the sentence of each notice about an experiment."""
    today, has_ended = progress.as_of.date(), progress.as_of >= progress.reads_at
    last = progress.daily[-1].day if progress.daily else progress.starts_on - timedelta(days=1)
    is_stopped = progress.status == "stop the canary"
    is_assigning = today < progress.starts_on + timedelta(days=progress.days) and not is_stopped
    if (is_assigning and (today - last).days >= SILENT_DAYS) or (has_ended and not progress.users):
        since = f"since {last}" if progress.users else "so far"
        yield "experiment.no_data", f"{last}", f"The experiment has no exposure {since}."
    if not progress.split_sound:
        yield "experiment.sample_ratio", "", "The arms have other shares of the users than planned."
    if is_stopped:
        yield "experiment.canary_stopped", "", progress.sentence
    if has_ended and progress.users:
        yield "experiment.horizon_reached", "", f"The planned end is reached. {progress.sentence}"


def notify_of(progress: Progress, outbox: Path, dropped: Callable[[], None]) -> None:
    """Queue the notices about an experiment. `dropped` is called for each that can't be.

    Where the folder can't be written, the next analysis tries again.
    """
    notices = ((kind, progress.experiment, cause, sentence) for kind, cause, sentence in causes(progress))
    _queue(notices, outbox, dropped, progress.as_of)


def causes_in_answers(facts: WatchFacts) -> Iterator[tuple[Kind, str, str, str]]:
    """The kind, subject, cause and sentence of each notice about complete labels, drift, and the business rule."""
    for week in facts.labelled_weeks:
        yield "labels.complete", week, "", f"The label windows of the week of {week} are over: firstspin label."
    for column, since in facts.drifting.items():
        sentence = f"The column {column} differs from training, or from earlier weeks, since the week of {since}."
        yield "data.drift", f"{column}, week of {since}", facts.model, sentence
    if facts.is_below_rule:
        sentence = "With the same labelled users, the model has fewer hits@3 than the business rule."
        yield "model.below_rule", facts.model, "", sentence


def notify_of_answers(facts: WatchFacts, outbox: Path, dropped: Callable[[], None]) -> None:
    """Queue the notices about the answers, as `notify_of`."""
    _queue(causes_in_answers(facts), outbox, dropped, facts.as_of)


def _queue(
    notices: Iterable[tuple[Kind, str, str, str]], outbox: Path, dropped: Callable[[], None], at: datetime
) -> None:
    for kind, subject, cause, sentence in notices:
        try:
            if notify(outbox, kind, subject, sentence, at=at, cause=cause) == "dropped":
                dropped()
        except OSError as problem:
            log.error("a notice could not be queued", extra={"reason": problem.strerror})
            dropped()

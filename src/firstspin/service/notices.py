"""The notices that the state of an experiment gives cause for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

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
    is_assigning = today < progress.starts_on + timedelta(days=progress.days)
    if (is_assigning and (today - last).days >= SILENT_DAYS) or (has_ended and not progress.users):
        since = f"since {last}" if progress.users else "so far"
        yield "experiment.no_data", f"{last}", f"The experiment has no exposure {since}."
    if not progress.split_sound:
        yield "experiment.sample_ratio", "", "The arms have other shares of the users than planned."
    if has_ended and progress.users:
        yield "experiment.horizon_reached", "", f"The planned end is reached. {progress.sentence}"


def notify_of(progress: Progress, outbox: Path, dropped: Callable[[], None]) -> None:
    """Queue the notices about an experiment. `dropped` is called for each that can't be.

    Where the folder can't be written, the next analysis tries again.
    """
    for kind, cause, sentence in causes(progress):
        try:
            if notify(outbox, kind, progress.experiment, sentence, at=progress.as_of, cause=cause) == "dropped":
                dropped()
        except OSError as problem:
            log.error("a notice could not be queued", extra={"reason": problem.strerror})
            dropped()

"""The last report about the service's answers, in a file: a background process writes it, and `/ops` shows it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from firstspin.evaluation.bootstrap import Figure
from firstspin.files import written_beside

WATCH_FILE: Final = "watch.json"
"""In the state folder."""


class WeekFacts(msgspec.Struct, frozen=True):
    """A week of the bundle in service: hit@3 expected with its 95% interval, and observed once there are labels."""

    week: str
    answers: int
    labels_complete: datetime
    expected: Figure | None
    observed: float | None
    differs: bool


class WatchFacts(msgspec.Struct, frozen=True):
    """The weeks of a bundle, ascending, and of its `columns` those that drift, each with the week since when.

    `is_below_rule`: its model has fewer hits than its business rule with the same labelled users. `labelled_weeks`:
    weeks of any bundle whose labels are complete, the latest ones.
    """

    as_of: datetime
    model: str
    weeks: tuple[WeekFacts, ...]
    whole_weeks: int
    columns: int
    drifting: dict[str, str]
    is_below_rule: bool = False
    labelled_weeks: tuple[str, ...] = ()


def write_facts(path: Path, facts: WatchFacts) -> None:
    """Write the file, whole or not at all. Raises OSError where it can't be written."""
    with written_beside(path) as beside:
        beside.write_bytes(msgspec.json.encode(facts))


def read_facts(path: Path) -> WatchFacts | None:
    """The facts in the file; None where there is none yet, or it has another form."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=WatchFacts)
    except (OSError, msgspec.MsgspecError):
        return None

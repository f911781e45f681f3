"""Counts of answers in the event store: no row is about one user, and nothing in it can be joined with one.

A worker adds up its answers and stores the sums every few minutes. Every stored row has an id of its own, so that a
write that is repeated after a failure counts once. The table is created with its first row, because stores of earlier
versions lack it. The rows of a day that is over are merged into one, so the table grows by a row a day, not by
hundreds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Final

import msgspec

from firstspin.events.database import Database, Session, readable_rows

_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS answer_counts "
    "(counts_id TEXT PRIMARY KEY, day TEXT NOT NULL, counts TEXT NOT NULL, schema INTEGER NOT NULL)"
)
_INSERT: Final = "INSERT INTO answer_counts (counts_id, day, counts, schema) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_SELECT: Final = "SELECT day, counts FROM answer_counts WHERE day >= ? ORDER BY day, counts_id"
_TO_MERGE: Final = "SELECT day FROM answer_counts WHERE day < ? GROUP BY day HAVING COUNT(*) > 1 ORDER BY day"
_OF_DAY: Final = "SELECT counts FROM answer_counts WHERE day = ?"
_DELETE: Final = "DELETE FROM answer_counts WHERE day = ?"
_SCHEMA: Final = 1


class AnswerCell(msgspec.Struct, frozen=True, array_like=True):
    """Answers of one kind: those whose probability of the first `top` genres is in a `place` of `models.calibration`.

    `model` is the bundle's id, `predicted` what ranked ("model", "rule", or "listens" where listens moved the model's
    scores), `picks` the band of the number of picks.
    """

    model: str
    source: str
    predicted: str
    picks: str
    top: int
    place: int


class AnswerSum(msgspec.Struct, frozen=True, array_like=True):
    """The number of answers of a cell, and the sum of their probabilities in millionths."""

    cell: AnswerCell
    answers: int
    millionths: int


class InputCounts(msgspec.Struct, frozen=True):
    """Registrations by column and category, for one bundle; `rounded` is how often each count was rounded."""

    model: str
    columns: dict[str, dict[str, int]]
    rounded: int = 0


class DayCounts(msgspec.Struct, frozen=True):
    """Sums of answers of one day (ISO 8601, UTC), and counts of their inputs."""

    day: str
    answers: tuple[AnswerSum, ...]
    inputs: tuple[InputCounts, ...] = ()


def write_counts(session: Session, counts: Iterable[tuple[str, DayCounts]]) -> None:
    """Insert counts under their ids; those whose id exists are left as they are."""
    rows = [(key, one.day, msgspec.json.encode(one).decode(), _SCHEMA) for key, one in counts]
    if rows:
        session.run(_CREATE)
        session.each(_INSERT, rows)


def read_counts(database: Database, since: str = "") -> list[DayCounts]:
    """The sums of each day from `since` (ISO 8601) on, ascending. Raises as `Database` does."""
    database.transact(lambda session: session.run(_CREATE))
    days: dict[str, _Day] = {}
    with database.reading() as session, readable_rows():
        for day, encoded in session.run(_SELECT, (since,)):
            days.setdefault(day, _Day()).add(msgspec.json.decode(encoded, type=DayCounts))
    return [of.counts(day) for day, of in sorted(days.items())]


def merge_days(database: Database, before: str) -> None:
    """Merge the rows of each day before this one (ISO 8601) into one, each day in a transaction of its own.

    Workers must not write rows of these days again after a failure: their ids are gone. Raises as `Database` does.
    """
    database.transact(lambda session: session.run(_CREATE))
    with database.reading() as session:
        days = [row[0] for row in session.run(_TO_MERGE, (before,))]
    for day in days:
        database.transact(partial(_merge, day=day), deleting=True)


def _merge(session: Session, day: str) -> None:
    merged = _Day()
    with readable_rows():
        for (encoded,) in session.run(_OF_DAY, (day,)):
            merged.add(msgspec.json.decode(encoded, type=DayCounts))
    session.run(_DELETE, (day,))
    write_counts(session, [(f"day {day}", merged.counts(day))])


class _Day:
    """The sums of a day's rows."""

    def __init__(self) -> None:
        self._answers: Counter[AnswerCell] = Counter()
        self._millionths: Counter[AnswerCell] = Counter()
        self._inputs: dict[str, dict[str, Counter[str]]] = {}
        self._rounded: Counter[str] = Counter()

    def add(self, counts: DayCounts) -> None:
        for one in counts.answers:
            self._answers[one.cell] += one.answers
            self._millionths[one.cell] += one.millionths
        for inputs in counts.inputs:
            self._rounded[inputs.model] += inputs.rounded
            columns = self._inputs.setdefault(inputs.model, {})
            for column, of in inputs.columns.items():
                columns.setdefault(column, Counter()).update(of)

    def counts(self, day: str) -> DayCounts:
        return DayCounts(
            day,
            tuple(AnswerSum(cell, n, self._millionths[cell]) for cell, n in self._answers.items()),
            tuple(
                InputCounts(model, {name: dict(of) for name, of in columns.items()}, self._rounded[model])
                for model, columns in self._inputs.items()
            ),
        )

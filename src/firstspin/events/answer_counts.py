"""Counts of answers in the event store: no row is about one user, and nothing in it can be joined with one.

A worker adds up its answers and stores the sums every few minutes. Every stored row has an id of its own, so that a
write that is repeated after a failure counts once. The table is created with its first row, because stores of earlier
versions lack it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from firstspin.events.database import Database, Session, readable_rows

_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS answer_counts "
    "(counts_id TEXT PRIMARY KEY, day TEXT NOT NULL, counts TEXT NOT NULL, schema INTEGER NOT NULL)"
)
_INSERT: Final = "INSERT INTO answer_counts (counts_id, day, counts, schema) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_SELECT: Final = "SELECT day, counts FROM answer_counts WHERE day >= ? ORDER BY day, counts_id"
_SCHEMA: Final = 1
_CHUNK: Final = 1_000


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


class DayCounts(msgspec.Struct, frozen=True):
    """Sums of answers of one day (ISO 8601, UTC)."""

    day: str
    answers: tuple[AnswerSum, ...]


def write_counts(session: Session, counts: Iterable[tuple[str, DayCounts]]) -> None:
    """Insert counts under their ids; those whose id exists are left as they are."""
    rows = [(key, one.day, msgspec.json.encode(one).decode(), _SCHEMA) for key, one in counts]
    if rows:
        session.run(_CREATE)
        session.each(_INSERT, rows)


def read_counts(database: Database, since: str = "") -> list[DayCounts]:
    """The sums of each day from `since` (ISO 8601) on, ascending. Raises as `Database` does."""
    database.transact(lambda session: session.run(_CREATE))
    totals: dict[str, tuple[Counter[AnswerCell], Counter[AnswerCell]]] = {}
    with database.snapshot() as session, readable_rows():
        for rows in session.stream(_SELECT, (since,), _CHUNK):
            for day, encoded in rows:
                answers, millionths = totals.setdefault(day, (Counter(), Counter()))
                for one in msgspec.json.decode(encoded, type=DayCounts).answers:
                    answers[one.cell] += one.answers
                    millionths[one.cell] += one.millionths
    return [
        DayCounts(day, tuple(AnswerSum(cell, n, millionths[cell]) for cell, n in answers.items()))
        for day, (answers, millionths) in sorted(totals.items())
    ]

"""What the event store asks of a database, and what it does with one: the same words for SQLite and PostgreSQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from firstspin.events import statements
from firstspin.events.schema import Event, Exposure, Status, tombstone
from firstspin.records import InputError

Row = tuple[str | int | float | bytes | None, ...]
Found = tuple[Any, ...]  # a row of an answer: its types are those its query asks for
Outcome = TypeVar("Outcome")


class Session(Protocol):
    """An open transaction. In its statements `?` stands for a value."""

    def run(self, statement: str, values: Row = ()) -> list[Found]:
        """The rows a statement answers with, if any."""

    def each(self, statement: str, rows: Iterable[Row]) -> list[int]:
        """Run the statement once for each row; how many rows of the table each run changed."""

    def stream(self, query: str, values: Row, chunk: int) -> Iterator[list[Found]]:
        """The rows of a query, at most `chunk` at a time."""


class Database(Protocol):
    """Used by one thread at a time. Every method raises `Unavailable` where the database can't serve just now."""

    def open(self) -> None:
        """Connect, and make what is missing. Raises InputError for what is no store of this key, OtherVersion too."""

    def transact(self, work: Callable[[Session], Outcome], *, deleting: bool = False) -> Outcome:
        """Do the work in one transaction, which is on the disk on return.

        With `deleting` no writer is at work meanwhile, and a full disk is no obstacle. The work may run twice.
        """

    def snapshot(self) -> AbstractContextManager[Session]:
        """A session to read in, during which nothing changes."""

    def compact(self) -> bool:
        """Rewrite the files without what was deleted; False where that has to wait for space or for other processes."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Written:
    """What became of each row, in order."""

    exposures: tuple[Status, ...]
    events: tuple[Status, ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many rows were deleted, and how many of these a sink had taken before."""

    exposures: int
    events: int
    sent: int


class OtherVersion(InputError):
    """The store was written by another version of this program. It can't be used, and takes nothing else down."""


def prepare(session: Session, fingerprint: str, made: Sequence[str]) -> None:
    """Run the statements that make the tables (none for a store that has them); refuse a store that isn't ours."""
    for statement in made:
        session.run(statement)
    if made:
        session.each(statements.NOTE, [("version", str(statements.VERSION)), ("key", fingerprint)])
    notes: dict[str, str] = dict(session.run(statements.NOTES))
    version = notes.get("version", "unknown")
    if version != str(statements.VERSION):
        raise OtherVersion(
            f"the event store has version {version}, this program knows {statements.VERSION}: "
            "use the release of firstspin that wrote it, or begin a new store"
        )
    if notes.get("key") != fingerprint:
        raise InputError(
            "the event store was written under another key: give the secret file that belongs to it, "
            "or else its users would not be recognised"
        )


@contextmanager
def readable_rows() -> Iterator[None]:
    """Raises InputError where rows hold other types or values than `write` puts into them: SQLite takes any."""
    try:
        yield
    except (TypeError, AttributeError, ValueError, OverflowError) as problem:  # msgspec's and Arrow's are among them
        raise InputError("the event store holds rows that firstspin did not write: it can't be passed on") from problem


def write(session: Session, exposures: Sequence[Exposure], events: Sequence[Event]) -> Written:
    """Keep what is new, leave what is there already, and keep nothing of erased users."""
    shown = [(exposure.user_hash, statements.exposure_row(exposure)) for exposure in exposures]
    done = [(event.user_hash, statements.event_row(event)) for event in events]
    erased = erased_among(session, {user_hash for user_hash, _ in (*shown, *done)})
    return Written(
        _keep(session, statements.INSERT_EXPOSURE, shown, erased),
        _keep(session, statements.INSERT_EVENT, done, erased),
    )


def erased_among(session: Session, user_hashes: Iterable[bytes]) -> set[bytes]:
    """Those of the users who were erased."""
    if not session.run(statements.ANY_ERASED):
        return set()  # nearly always, and the writer is spared a hash a user
    found: set[bytes] = set()
    for users in _portions(user_hashes):
        of = {tombstone(user): user for user in users}
        found.update(of[grave] for (grave,) in session.run(statements.erased(len(of)), tuple(of)))
    return found


def delete_users(session: Session, user_hashes: Iterable[bytes], at: int) -> Deleted:
    """Delete every row of these users, and remember since when (microseconds since 1970) they are erased."""
    rows = Counter[str]()
    for users in _portions(user_hashes):
        session.each(statements.BURY, [(tombstone(user), at) for user in users])
        for table in (statements.EXPOSURES, statements.EVENTS):
            ((n, sent),) = session.run(statements.count(table, len(users)), users)
            session.run(statements.delete(table, len(users)), users)
            rows.update({table: n, "sent": sent})
    return Deleted(rows[statements.EXPOSURES], rows[statements.EVENTS], rows["sent"])


def _portions(user_hashes: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    """As many at once as a statement can carry."""
    users = tuple(user_hashes)
    for start in range(0, len(users), statements.MOST_VALUES):
        yield users[start : start + statements.MOST_VALUES]


def _keep(session: Session, insert: str, rows: Sequence[tuple[bytes, Row]], erased: set[bytes]) -> tuple[Status, ...]:
    changed = iter(session.each(insert, [row for user_hash, row in rows if user_hash not in erased]))
    return tuple(
        "erased" if user_hash in erased else "stored" if next(changed) else "duplicate" for user_hash, _ in rows
    )

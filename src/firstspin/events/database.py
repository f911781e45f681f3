"""The interface between the event store and a database, and its transactions: the same for SQLite and PostgreSQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, Protocol, TypeVar

from firstspin.events import statements
from firstspin.events.schema import Event, Exposure, Status, tombstone
from firstspin.records import InputError

Row = tuple[str | int | float | bytes | None, ...]
ResultRow = tuple[Any, ...]  # a row of a query's result, with the types of its columns
Outcome = TypeVar("Outcome")


class Session(Protocol):
    """An open transaction. `?` is the placeholder of a value in its statements."""

    def run(self, statement: str, values: Row = ()) -> list[ResultRow]:
        """The result rows of a statement; empty where it returns none."""

    def each(self, statement: str, rows: Iterable[Row]) -> list[int]:
        """Run the statement once per row of values; returns the number of table rows that each run changed."""

    def insert(self, table: str, rows: Sequence[Row]) -> list[bool]:
        """Insert rows of a table's `statements.COLUMNS`, except those whose key exists; returns which were inserted.

        Many exposures may be stored as a batch, and are deduplicated later.
        """

    def delete(self, table: str, users: Sequence[bytes]) -> tuple[int, int]:
        """Delete all rows of these users (at most MAX_VALUES); returns their number, and how many had been sent."""

    def stream(self, query: str, values: Row, chunk: int) -> Iterator[list[ResultRow]]:
        """The result rows of a query, in chunks of at most `chunk`."""


class Database(Protocol):
    """A database, used by one thread at a time. Every method raises Unavailable while it can't serve."""

    def open(self) -> None:
        """Connect, and create missing tables.

        Raises InputError where the database is no event store of this key, OtherVersion for one of another version.
        """

    def transact(self, work: Callable[[Session], Outcome], *, deleting: bool = False) -> Outcome:
        """Run `work` in one transaction, which is durable on return; `work` may be run twice.

        With `deleting` other writers are locked out, and it succeeds on a full disk.
        """

    def snapshot(self) -> AbstractContextManager[Session]:
        """A read-only session on a consistent snapshot."""

    def reading(self) -> AbstractContextManager[Session]:
        """A session for queries, each on a snapshot of its own."""

    def settle(self) -> None:
        """Make rows of some exposures that are stored as batches, if there are any; a session's queries see rows only.

        In a `snapshot` all exposures are rows.
        """

    def compact(self) -> bool:
        """Rewrite the files without deleted rows; False where free space or other processes prevent it for now."""

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""


@dataclass(frozen=True, slots=True)
class Written:
    """The status of each written row, in order."""

    exposures: tuple[Status, ...]
    events: tuple[Status, ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    """The numbers of deleted rows, and of those among them that had been sent to a sink."""

    exposures: int
    events: int
    sent: int


class OtherVersion(InputError):
    """The event store was written by another version of firstspin and can't be used; the service goes on without it."""


def prepare(session: Session, fingerprint: str, made: Sequence[str]) -> None:
    """Create the tables with the statements `made` (none for an existing store), check version and key, and migrate.

    To be run in a transaction. Raises OtherVersion and InputError as `check`.
    """
    for statement in made:
        session.run(statement)
    if made:
        session.each(statements.NOTE, [("version", str(statements.VERSION)), ("key", fingerprint)])
    for statement in statements.MIGRATIONS.get(check(session, fingerprint), ()):
        session.run(statement)


def check(session: Session, fingerprint: str) -> str:
    """The version of a store: this release's, or an older one that it can migrate.

    Raises OtherVersion for a store of any other version, InputError for one written under another key.
    """
    notes: dict[str, str] = dict(session.run(statements.NOTES))
    version = notes.get("version", "unknown")
    if version != str(statements.VERSION) and version not in statements.MIGRATIONS:
        raise OtherVersion(
            f"the event store has version {version}; this release of firstspin supports {statements.VERSION}: "
            "use the release that wrote it, or create a new store"
        )
    if notes.get("key") != fingerprint:
        raise InputError(
            "the event store was written under another key, so its users would not be recognised: "
            "pass the secret file that belongs to it"
        )
    return version


FOREIGN_ROWS: Final = "the event store has rows that firstspin did not write; they can't be exported"


@contextmanager
def readable_rows() -> Iterator[None]:
    """Raises InputError where rows have types or values that `write` never stores (SQLite accepts any)."""
    try:
        yield
    except (TypeError, AttributeError, ValueError, OverflowError) as problem:  # msgspec's and Arrow's are among them
        raise InputError(FOREIGN_ROWS) from problem


def write(session: Session, exposures: Sequence[Exposure], events: Sequence[Event]) -> Written:
    """Insert new rows; duplicates are left as they are, and rows of erased users are refused."""
    erased = erased_among(session, (one.user_hash for one in chain[Exposure | Event](exposures, events)))
    return Written(
        _insert(session, statements.EXPOSURES, exposures, erased),
        _insert(session, statements.EVENTS, events, erased),
    )


def erased_among(session: Session, user_hashes: Iterable[bytes]) -> set[bytes]:
    """The erased users among `user_hashes`."""
    if not session.run(statements.ANY_ERASED):
        return set()  # the usual case: the writer saves one hash per user
    erased: set[bytes] = set()
    for users in _portions(user_hashes):
        of = {tombstone(user): user for user in users}
        erased.update(of[grave] for (grave,) in session.run(statements.erased(len(of)), tuple(of)))
    return erased


def delete_users(session: Session, user_hashes: Iterable[bytes], at: int) -> Deleted:
    """Delete all rows of these users and store their tombstones, with the time `at` (microseconds since 1970)."""
    rows = Counter[str]()
    for users in _portions(user_hashes):
        session.each(statements.BURY, [(tombstone(user), at) for user in users])
        for table in (statements.EXPOSURES, statements.EVENTS):
            n, sent = session.delete(table, users)
            rows.update({table: n, "sent": sent})
    return Deleted(rows[statements.EXPOSURES], rows[statements.EVENTS], rows["sent"])


def _portions(user_hashes: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    """The users in portions of at most the number of values that one statement can have."""
    users = tuple(dict.fromkeys(user_hashes))
    for start in range(0, len(users), statements.MAX_VALUES):
        yield users[start : start + statements.MAX_VALUES]


def _insert(
    session: Session, table: str, written: Sequence[Exposure | Event], erased: set[bytes]
) -> tuple[Status, ...]:
    rows = [statements.row(one) for one in written if one.user_hash not in erased]
    new: Iterator[Status] = iter(["stored" if is_new else "duplicate" for is_new in session.insert(table, rows)])
    return tuple(["erased" if one.user_hash in erased else next(new) for one in written]) if erased else tuple(new)

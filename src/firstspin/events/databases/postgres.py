"""The event store's database in PostgreSQL, for services on several hosts. Needs the extra `postgres`.

The driver is imported only for a store with a PostgreSQL URL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from firstspin.data.formats import postgres_address
from firstspin.events.database import ResultRow, Row, Session, check, prepare
from firstspin.events.schema import Unavailable
from firstspin.events.statements import INDEX_LISTENS, LISTENS_INDEX, delete, insert, rows_of, tables
from firstspin.records import InputError

if TYPE_CHECKING:
    import psycopg
    from psycopg.abc import PQGen

PATIENCE: Final = 5.0  # default lock timeout, seconds

# The URL may override these. Without timeouts, a lost network or a stuck client would block the writer for hours.
_DEFAULTS: Final = {"application_name": "firstspin", "connect_timeout": "3", "tcp_user_timeout": "10000"}
_OPTIONS: Final = "-c lock_timeout={patience:.0f}ms -c idle_in_transaction_session_timeout=5s"
_IS_NEW: Final = "SELECT to_regclass('firstspin.about') IS NULL"
_HAS_INDEX: Final = f"SELECT to_regclass('firstspin.{LISTENS_INDEX}') IS NOT NULL"
_READ_ONLY: Final = "SET default_transaction_read_only = on; SET statement_timeout = {milliseconds:.0f}"
_SCHEMA: Final = "CREATE SCHEMA IF NOT EXISTS firstspin"  # the tables' names are too common for a shared schema
_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtext('firstspin event store'))"
# The planner's statistics of a column would retain erased values.
_UNSAMPLED: Final = (
    "ALTER TABLE exposures ALTER user_hash SET STATISTICS 0, ALTER exposure_id SET STATISTICS 0",
    "ALTER TABLE events ALTER user_hash SET STATISTICS 0, ALTER event_id SET STATISTICS 0",
)
# One writer at a time among all hosts: two writers with the same events in another order would deadlock, and a user's
# row could be inserted while that user is erased. Groups are large, so the lock costs little.
_ALONE: Final = "LOCK TABLE erased IN SHARE ROW EXCLUSIVE MODE"

POLL_SECONDS: Final = 0.1  # interval of polling a connection
INDEX_SECONDS: Final = 600.0  # for creating the index of listens; nobody else writes meanwhile

Outcome = TypeVar("Outcome")
Answer = TypeVar("Answer")


class PostgresDatabase:
    """A `Database` at a libpq URL (postgresql://user@host/name), connected on first use and reconnected when lost.

    `patience` is the lock timeout in seconds. Where it is given, a statement without a response after three times as
    long closes the connection, because a hung server does not close it. Without `create` the store must exist. Raises
    InputError for an invalid URL, ImportError where the driver is not installed. `listens_by_user`: with the index of
    listens, which is created, or with `read_only` awaited; then `patience` limits each query too.
    """

    def __init__(
        self,
        url: str,
        fingerprint: str,
        *,
        create: bool = True,
        read_only: bool = False,
        listens_by_user: bool = False,
        patience: float | None = None,
    ) -> None:
        import psycopg

        self._driver = psycopg
        defaults = _DEFAULTS | {"options": _OPTIONS.format(patience=1000 * (patience or PATIENCE))}
        self._address = postgres_address.complete(url, defaults, "invalid URL of the event store")
        self._fingerprint = fingerprint
        self._create, self._read_only = create and not read_only, read_only
        self._listens_by_user, self._patience = listens_by_user, patience or PATIENCE
        self._timeout = 3 * patience if patience else None
        self._connection: psycopg.Connection[ResultRow] | None = None

    def open(self) -> None:
        """See `Database`."""
        with self._translated():
            self._connect()

    def transact(self, work: Callable[[Session], Outcome], *, deleting: bool = False) -> Outcome:  # noqa: ARG002
        """See `Database`."""
        with self._translated():
            return _in_transaction(self._connect(), _ALONE, work)

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """See `Database`."""
        with self._translated(), self._connect().transaction() as transaction:
            connection = transaction.connection
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield _Session(connection)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """See `Database`."""
        with self._translated():
            yield _Session(self._connect())

    def settle(self) -> None:
        """See `Database`: all exposures are rows."""

    def compact(self) -> bool:
        """See `Database`."""
        # A plain VACUUM leaves the bytes of deleted rows in their pages. The server's write-ahead log has them until
        # it is recycled.
        with self._translated():
            try:
                self._connect().execute("VACUUM (FULL) exposures, events")
            except self._driver.errors.LockNotAvailable:
                return False
        return True

    def close(self) -> None:
        """See `Database`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> psycopg.Connection[ResultRow]:
        if self._connection is None:
            connection = _limited_connection().connect(self._address, autocommit=True)
            connection.response_timeout = self._timeout
            try:
                connection.execute("SET search_path TO firstspin")
                if self._read_only:
                    connection.execute(_READ_ONLY.format(milliseconds=1000 * self._patience))
                    self._check(_Session(connection))
                else:
                    _in_transaction(connection, _ONE_AT_A_TIME, self._prepare)
                    self._index(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _check(self, session: Session) -> None:
        if _holds(session, _IS_NEW):
            raise InputError("this PostgreSQL database has no event store")
        check(session, self._fingerprint)
        if self._listens_by_user and not _holds(session, _HAS_INDEX):
            raise Unavailable("PostgreSQL: there is no index of listens yet")

    def _prepare(self, session: Session) -> None:
        is_new = _holds(session, _IS_NEW)
        if is_new and not self._create:
            raise InputError("this PostgreSQL database has no event store")
        counting = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
        made = (_SCHEMA, *tables(seq=counting, digest="BYTEA"), *_UNSAMPLED)
        prepare(session, self._fingerprint, made if is_new else ())

    def _index(self, connection: Any) -> None:
        """Create the index of listens. In a large store this takes minutes."""
        if self._listens_by_user and not _holds(_Session(connection), _HAS_INDEX):
            connection.response_timeout = INDEX_SECONDS
            _in_transaction(connection, _ONE_AT_A_TIME, lambda session: session.run(INDEX_LISTENS))
            connection.response_timeout = self._timeout

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """PostgreSQL's errors as those of a `Database`."""
        try:
            yield
        except self._driver.ProgrammingError as error:
            raise InputError(f"the event store in PostgreSQL: {_one_line(error)}") from error
        except (self._driver.OperationalError, self._driver.InternalError) as error:
            if self._connection is not None and self._connection.closed:
                self.close()
            raise Unavailable(f"PostgreSQL: {_one_line(error)}") from error


@lru_cache(maxsize=1)
def _limited_connection() -> Any:
    """The driver's class of connections, with a timeout for the server's response."""
    import psycopg

    class LimitedConnection(psycopg.Connection[ResultRow]):
        response_timeout: float | None = None  # seconds

        def wait(self, gen: PQGen[Answer], interval: float = POLL_SECONDS, timeout: float | None = None) -> Answer:
            if self.response_timeout is not None:
                gen = self._limited(gen, polls=round(self.response_timeout / interval))
            return super().wait(gen, interval, timeout)

        def _limited(self, gen: PQGen[Answer], polls: int) -> PQGen[Answer]:
            """The generator, until `polls` polls in a row had nothing to read; psycopg polls once an interval."""
            empty_polls = 0
            try:
                waiting_for = next(gen)
                while True:
                    ready = yield waiting_for
                    empty_polls = 0 if ready else empty_polls + 1
                    if empty_polls > polls:
                        self.pgconn.finish()  # a regular close would wait for a response too
                        raise psycopg.OperationalError(f"no response within {self.response_timeout:g} s")
                    waiting_for = gen.send(ready)
            except StopIteration as done:
                answer: Answer = done.value
                return answer

    return LimitedConnection


class _Session:
    def __init__(self, connection: psycopg.Connection[ResultRow]) -> None:
        self._connection = connection

    def run(self, statement: str, values: Row = ()) -> list[ResultRow]:
        cursor = self._connection.execute(_in_psycopg(statement), values)
        return cursor.fetchall() if cursor.description else []

    def each(self, statement: str, rows: Iterable[Row]) -> list[int]:
        cursor = self._connection.cursor()
        cursor.executemany(_in_psycopg(statement), rows, returning=True)
        return [result.rowcount for result in cursor.results()]

    def insert(self, table: str, rows: Sequence[Row]) -> list[bool]:
        return [changed > 0 for changed in self.each(insert(table, 1), rows)]

    def delete(self, table: str, users: Sequence[bytes]) -> tuple[int, int]:
        rows = self.run(rows_of(table, len(users)), tuple(users))
        self.run(delete(table, len(users)), tuple(users))
        return len(rows), sum(sent for _, sent in rows)

    def stream(self, query: str, values: Row, chunk: int) -> Iterator[list[ResultRow]]:
        with self._connection.cursor(name="stream") as cursor:
            cursor.execute(_in_psycopg(query), values)
            while rows := cursor.fetchmany(chunk):
                yield rows


def _holds(session: Session, query: str) -> bool:
    return bool(session.run(query)[0][0])


def _in_transaction(
    connection: psycopg.Connection[ResultRow], lock: str, work: Callable[[Session], Outcome]
) -> Outcome:
    with connection.transaction():
        connection.execute(lock.encode())
        return work(_Session(connection))


def _in_psycopg(statement: str) -> bytes:
    return statement.replace("?", "%s").encode()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

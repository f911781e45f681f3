"""The event store's database in PostgreSQL, for services on several hosts. Needs the extra `postgres`.

Loaded only for a store whose address asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from firstspin.events.database import ResultRow, Row, Session, prepare
from firstspin.events.schema import Unavailable
from firstspin.events.statements import tables
from firstspin.records import InputError

PATIENCE: Final = 5.0  # seconds to wait for others' locks where nothing else is said

# An address may say otherwise. Without limits, a lost network or a stuck neighbour would hold the writer for hours.
_DEFAULTS: Final = {"application_name": "firstspin", "connect_timeout": "3", "tcp_user_timeout": "10000"}
_OPTIONS: Final = "-c lock_timeout={patience:.0f}ms -c idle_in_transaction_session_timeout=5s"
_IS_NEW: Final = "SELECT to_regclass('firstspin.about') IS NULL"
_SCHEMA: Final = "CREATE SCHEMA IF NOT EXISTS firstspin"  # our tables have everyday names
_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtext('firstspin event store'))"
# The planner's samples of a column would keep what was erased from it.
_UNSAMPLED: Final = (
    "ALTER TABLE exposures ALTER user_hash SET STATISTICS 0, ALTER exposure_id SET STATISTICS 0",
    "ALTER TABLE events ALTER user_hash SET STATISTICS 0, ALTER event_id SET STATISTICS 0",
)
# One writer at a time, among all hosts: two that were sent the same events in another order would block each other for
# good, and a row of a user could slip in while that user is erased. Groups are large, so this costs little.
_ALONE: Final = "LOCK TABLE erased IN SHARE ROW EXCLUSIVE MODE"

LOOK: Final = 0.1  # seconds between looks for an answer that does not come

Outcome = TypeVar("Outcome")
Answer = TypeVar("Answer")


class PostgresDatabase:
    """A `Database` at a libpq address (postgresql://user@host/name), connected when first used and again when lost.

    A statement waits `patience` seconds for others' locks. Where that is given, one without an answer after three times
    as long closes the connection: a server that hangs keeps its connections, so only time tells. Without `create` the
    store must be there already.
    """

    def __init__(self, url: str, fingerprint: str, *, create: bool = True, patience: float | None = None) -> None:
        defaults = _DEFAULTS | {"options": _OPTIONS.format(patience=1000 * (patience or PATIENCE))}
        try:
            given = conninfo_to_dict(url)
            self._address = make_conninfo(url, **{name: defaults[name] for name in defaults.keys() - given.keys()})
        except psycopg.ProgrammingError:
            raise InputError("the event store's address is not one that PostgreSQL can read") from None
        self._fingerprint = fingerprint
        self._create = create
        self._answer_within = 3 * patience if patience else None
        self._connection: psycopg.Connection[ResultRow] | None = None

    def open(self) -> None:
        with self._answering():
            self._connect()

    def transact(self, work: Callable[[Session], Outcome], *, deleting: bool = False) -> Outcome:  # noqa: ARG002
        with self._answering():
            return _in_transaction(self._connect(), _ALONE, work)

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        with self._answering(), self._connect().transaction() as transaction:
            connection = transaction.connection
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield _Session(connection)

    def compact(self) -> bool:
        # A plain VACUUM leaves the bytes of deleted rows in their pages. What the server's own log still holds goes
        # when it recycles that.
        with self._answering():
            try:
                self._connect().execute("VACUUM (FULL) exposures, events")
            except psycopg.errors.LockNotAvailable:
                return False
        return True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> psycopg.Connection[ResultRow]:
        if self._connection is None:
            connection = _Connection.connect(self._address, autocommit=True)
            connection.answer_within = self._answer_within
            try:
                connection.execute("SET search_path TO firstspin")
                _in_transaction(connection, _ONE_AT_A_TIME, self._prepare)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, session: Session) -> None:
        ((is_new,),) = session.run(_IS_NEW)
        if is_new and not self._create:
            raise InputError("there is no event store in this PostgreSQL database")
        counting = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
        made = (_SCHEMA, *tables(seq=counting, digest="BYTEA"), *_UNSAMPLED)
        prepare(session, self._fingerprint, made if is_new else ())

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """What PostgreSQL says of networks, disks and locks, in the words of a `Database`."""
        try:
            yield
        except psycopg.ProgrammingError as error:
            raise InputError(f"the event store in PostgreSQL: {_one_line(error)}") from error
        except (psycopg.OperationalError, psycopg.InternalError) as error:
            if self._connection is not None and self._connection.closed:
                self.close()
            raise Unavailable(f"PostgreSQL: {_one_line(error)}") from error


class _Connection(psycopg.Connection[ResultRow]):
    """Gives up on a server that does not answer."""

    answer_within: float | None = None  # seconds

    def wait(self, gen: PQGen[Answer], interval: float = LOOK, timeout: float | None = None) -> Answer:
        if self.answer_within is not None:
            gen = self._patiently(gen, looks=round(self.answer_within / interval))
        return super().wait(gen, interval, timeout)

    def _patiently(self, gen: PQGen[Answer], looks: int) -> PQGen[Answer]:
        """The generator, until so many looks in a row found nothing to read; psycopg looks once an interval."""
        nothing = 0
        try:
            waiting_for = next(gen)
            while True:
                ready = yield waiting_for
                nothing = 0 if ready else nothing + 1
                if nothing > looks:
                    self.pgconn.finish()  # the usual goodbyes would wait for an answer too
                    raise psycopg.OperationalError(f"no answer within {self.answer_within:g} s")
                waiting_for = gen.send(ready)
        except StopIteration as done:
            answer: Answer = done.value
            return answer


class _Session:
    def __init__(self, connection: psycopg.Connection[ResultRow]) -> None:
        self._connection = connection

    def run(self, statement: str, values: Row = ()) -> list[ResultRow]:
        cursor = self._connection.execute(_spoken(statement), values)
        return cursor.fetchall() if cursor.description else []

    def each(self, statement: str, rows: Iterable[Row]) -> list[int]:
        cursor = self._connection.cursor()
        cursor.executemany(_spoken(statement), rows, returning=True)
        return [result.rowcount for result in cursor.results()]

    def stream(self, query: str, values: Row, chunk: int) -> Iterator[list[ResultRow]]:
        with self._connection.cursor(name="stream") as cursor:
            cursor.execute(_spoken(query), values)
            while rows := cursor.fetchmany(chunk):
                yield rows


def _in_transaction(connection: psycopg.Connection[ResultRow], lock: str, work: Callable[[Session], Outcome]) -> Outcome:
    with connection.transaction():
        connection.execute(lock.encode())
        return work(_Session(connection))


def _spoken(statement: str) -> bytes:
    return statement.replace("?", "%s").encode()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

"""The event store's database in one SQLite file, for one host: write-ahead log, durable commits.

Several processes may write to the file; SQLite serialises their commits. A reserve file beside it is deleted when the
disk is full, because even a deletion of rows needs free space.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Final, TypeVar

from firstspin.data.formats import sqlite_file
from firstspin.data.sql import literal
from firstspin.events import statements
from firstspin.events.database import FOREIGN_ROWS, ResultRow, Row, Session, check, prepare
from firstspin.events.databases import batches
from firstspin.events.schema import Unavailable
from firstspin.files import private
from firstspin.records import InputError

RESERVE_BYTES: Final = 16 << 20  # more than the write-ahead log between two checkpoints
PATIENCE: Final = 2.0  # busy timeout, seconds; four busy processes made one wait for 0.7

ABANDONED: Final[list[sqlite3.Connection]] = []
"""Connections to files that were deleted or replaced; see `SqliteDatabase._abandon`."""

_IS_NEW: Final = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'about')"
_HAS_INDEX: Final = f"SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = {literal(statements.LISTENS_INDEX)})"
_LAST: Final = "SELECT COALESCE(MAX(seq), 0) FROM {table}"
_SINCE: Final = "SELECT group_concat(hex({key}), ' ') FROM {table} WHERE seq > ?"
_MAX_ROWS: Final = 64  # of a statement: fewer values than the 999 that old versions of SQLite take
_PIECE: Final = 1 << 20
_PASSING: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # NORMAL may lose acknowledged commits at a power failure
    "PRAGMA secure_delete = ON",
    f"PRAGMA journal_size_limit = {RESERVE_BYTES}",
)

Outcome = TypeVar("Outcome")
log = logging.getLogger(__name__)


class SqliteDatabase:
    """A `Database` in the SQLite file at `path`; without `create` the file must exist.

    `patience` is the busy timeout in seconds, `reserve_bytes` the size of the reserve file. `listens_by_user`: with the
    index of listens, which is created, or with `read_only` awaited.
    """

    def __init__(
        self,
        path: Path,
        fingerprint: str,
        *,
        create: bool = True,
        read_only: bool = False,
        listens_by_user: bool = False,
        reserve_bytes: int = RESERVE_BYTES,
        patience: float = PATIENCE,
    ) -> None:
        self.path = path
        self._fingerprint = fingerprint
        self._create, self._read_only = create and not read_only, read_only
        self._listens_by_user = listens_by_user
        self._reserve_bytes = reserve_bytes
        self._patience = patience
        self._connection: sqlite3.Connection | None = None
        self._opened: sqlite_file.Identity = ()

    def open(self) -> None:
        """See `Database`."""
        with self._translated():
            self._connect()
        if not self._read_only:
            self._fill_reserve()

    def transact(self, work: Callable[[Session], Outcome], *, deleting: bool = False) -> Outcome:
        """See `Database`; `deleting` gives the reserve's space back where the disk is full."""
        with self._translated():
            try:
                return self._committed(work)
            except sqlite3.OperationalError as error:
                if not deleting or _code(error) in (sqlite3.SQLITE_BUSY, None):
                    raise  # every other code may mean a full disk
            with self._reserve_released():
                return self._committed(work)

    def _committed(self, work: Callable[[Session], Outcome]) -> Outcome:
        outcome = _in_transaction(self._connect(), work)
        if self._was_replaced():
            self._abandon()
            raise Unavailable(f"{self.path.name} was deleted or replaced while it was written")
        return outcome

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """See `Database`."""
        with self._translated():
            connection = self._connect()
            session = _Session(connection)
            connection.execute("BEGIN")
            try:
                batches.show(session)
                yield session
            finally:
                _roll_back(connection)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """See `Database`."""
        with self._translated():
            yield _Session(self._connect())

    def settle(self) -> None:
        """See `Database`."""
        with self._translated():
            connection = self._connect()
            if batches.are_waiting(_Session(connection)):
                _in_transaction(connection, batches.settle)

    def compact(self) -> bool:
        """See `Database`."""
        # secure_delete zeroes deleted rows, but not the copies that page splits left: only a rewrite removes those. The
        # write-ahead log has old pages until it is truncated.
        with self._translated():
            try:
                self._connect().execute("VACUUM")
            except sqlite3.OperationalError as error:
                if _code(error) not in _PASSING:
                    raise
                return False
            return self._checkpoint()

    def close(self) -> None:
        """See `Database`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and self._was_replaced():
            self._abandon()
        if self._connection is None:
            self._connection = self._connected()
        return self._connection

    def _connected(self) -> sqlite3.Connection:
        self._make_file()
        before = sqlite_file.identity(self.path)
        path, read_only = self.path.absolute(), self._read_only
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=ro" if read_only else path,
            uri=read_only,
            timeout=self._patience,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._refuse_foreign(connection)
            if read_only:
                self._await_index(connection)
            else:
                for pragma in _PRAGMAS:
                    connection.execute(pragma)
                _in_transaction(connection, self._prepare)
            self._opened = sqlite_file.identity(self.path)
            if self._opened[0] != before[0]:
                raise Unavailable(f"{self.path.name} was replaced while it was opened")
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_file(self) -> None:
        if self.path.is_dir():
            raise InputError(f"{self.path} is a folder; name a file in it")
        if not self._create and not self.path.exists():
            raise InputError(f"the event store {self.path} does not exist")
        if self._read_only:
            return
        try:
            sqlite_file.make_private(self.path, self._opened)
        except OSError as error:
            raise Unavailable(f"{self.path.name}: {error.strerror}") from error

    def _refuse_foreign(self, connection: sqlite3.Connection) -> None:
        """Refuse a file of another program, before it is changed."""
        tables = sqlite_file.tables(connection)
        if not (tables or self._create) or (tables and statements.ABOUT not in tables):
            raise InputError(f"{self.path.name} is not an event store")
        if tables:
            check(_Session(connection), self._fingerprint)
            if not tables >= statements.TABLES:
                raise InputError(f"{self.path.name} lacks tables of an event store; restore it from a backup")

    def _prepare(self, session: Session) -> None:
        ((is_new,),) = session.run(_IS_NEW)
        made = statements.tables(seq="INTEGER PRIMARY KEY", digest="BLOB") if is_new else ()
        prepare(session, self._fingerprint, made)
        for table in batches.TABLES:
            session.run(table)
        if self._listens_by_user:
            session.run(statements.INDEX_LISTENS)

    def _await_index(self, connection: sqlite3.Connection) -> None:
        ((has_index,),) = connection.execute(_HAS_INDEX)
        if self._listens_by_user and not has_index:
            raise Unavailable(f"{self.path.name} has no index of listens yet")

    def _was_replaced(self) -> bool:
        return sqlite_file.identity(self.path)[0] != self._opened[0]

    def _abandon(self) -> None:
        """Abandon a file that is no longer at the path, after a checkpoint of its committed rows.

        The connection stays open until the process ends, in `ABANDONED`: closing it would delete the write-ahead log
        at the path, which may belong to the new file.
        """
        assert self._connection is not None
        log.error("%s was deleted or replaced; the file now at its path is opened", self.path.name)
        self._checkpoint_of(self._connection)
        ABANDONED.append(self._connection)
        self._connection = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's errors as those of a `Database`."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise  # a violated constraint is a programming error
            code = _code(error)
            if code is None:  # Python's: a text is not UTF-8; the message repeats it
                raise InputError(FOREIGN_ROWS) from None
            if code == sqlite3.SQLITE_NOTADB:
                raise InputError(f"{self.path.name} is not an event store") from error
            if code == sqlite3.SQLITE_ERROR:  # no such table or column
                raise InputError(f"{self.path.name} lacks the tables of an event store: {error}") from error
            if code not in _PASSING:
                with suppress(sqlite3.Error):
                    self.close()
            raise Unavailable(f"{self.path.name}: {error}") from error

    def _checkpoint(self) -> bool:
        """Copy the write-ahead log into the file and truncate it; False where a reader still needs it."""
        return self._checkpoint_of(self._connect())

    def _checkpoint_of(self, connection: sqlite3.Connection) -> bool:
        with suppress(sqlite3.OperationalError):
            ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return not busy
        return False

    @property
    def _reserve(self) -> Path:
        return self.path.with_name(f"{self.path.name}-reserve")

    def _fill_reserve(self) -> None:
        with suppress(OSError):
            if self._reserve.stat().st_size == self._reserve_bytes:
                return
        try:
            with open(self._reserve, "wb", opener=private) as file:
                for written in range(0, self._reserve_bytes, _PIECE):
                    file.write(bytes(min(_PIECE, self._reserve_bytes - written)))
        except OSError as error:
            log.warning("%s: no space for the reserve of %d bytes: %s", self.path.name, self._reserve_bytes, error)
            self._reserve.unlink(missing_ok=True)

    @contextmanager
    def _reserve_released(self) -> Iterator[None]:
        self._reserve.unlink(missing_ok=True)
        self._checkpoint()
        try:
            yield
            self._checkpoint()
        finally:
            self._fill_reserve()


class _Session:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, statement: str, values: Row = ()) -> list[ResultRow]:
        return self._connection.execute(statement, values).fetchall()

    def each(self, statement: str, rows: Iterable[Row]) -> list[int]:
        return [self._connection.execute(statement, row).rowcount for row in rows]

    def insert(self, table: str, rows: Sequence[Row]) -> list[bool]:
        if rows and table == statements.EXPOSURES and batches.pack(self, rows):
            return [True] * len(rows)
        return self.insert_rows(table, rows) if rows else []

    def insert_rows(self, table: str, rows: Sequence[Row]) -> list[bool]:
        """Several rows a statement: after each statement another thread may hold the interpreter lock."""
        ((last,),) = self.run(_LAST.format(table=table))
        inserted = start = 0
        for size in _statement_sizes(len(rows)):
            values = tuple(chain.from_iterable(rows[start : start + size]))
            inserted += self._connection.execute(statements.insert(table, size), values).rowcount
            start += size
        if inserted == len(rows):
            return [True] * inserted
        ((keys,),) = self.run(_SINCE.format(table=table, key=statements.COLUMNS[table][0]), (last,))
        new = {bytes.fromhex(key) for key in keys.split()} if keys else set()
        return [_take(new, row[0]) for row in rows]

    def delete(self, table: str, users: Sequence[bytes]) -> tuple[int, int]:
        values = tuple(users)
        keys = batches.delete(self, values) if table == statements.EXPOSURES else set()
        rows = self.run(statements.rows_of(table, len(values)), values)
        self.run(statements.delete(table, len(values)), values)
        return len(keys.union(key for key, _ in rows)), sum(sent for _, sent in rows)

    def stream(self, query: str, values: Row, chunk: int) -> Iterator[list[ResultRow]]:
        cursor = self._connection.execute(query, values)
        while rows := cursor.fetchmany(chunk):
            yield rows


def _statement_sizes(rows: int) -> Iterator[int]:
    """The numbers of rows of each statement: powers of two, so that few statements are prepared."""
    size = _MAX_ROWS
    while rows:
        while size > rows:
            size //= 2
        yield size
        rows -= size


def _take(keys: set[bytes], key: object) -> bool:
    """Whether the key is among the new ones; it is removed, since the second of two equal rows is a duplicate."""
    is_new = key in keys
    keys.discard(key)
    return is_new


def _in_transaction(connection: sqlite3.Connection, work: Callable[[_Session], Outcome]) -> Outcome:
    connection.execute("BEGIN IMMEDIATE")
    try:
        outcome = work(_Session(connection))
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise
    return outcome


def _code(error: sqlite3.DatabaseError) -> int | None:
    return getattr(error, "sqlite_errorcode", None)


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:  # SQLite has rolled back itself where the disk is full
        connection.execute("ROLLBACK")

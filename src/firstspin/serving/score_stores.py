"""Score stores: key-value stores of batch answers, written by `score` and read one user at a time.

Every run writes under its own version and then sets the pointer `current` to it in one step, so a reader sees a run
complete or not at all. The version before stays readable for readers that have just read the pointer. A version begins
with the id of the bundle, up to the first full stop. A run without answers is refused, and changes nothing.

`write` raises InputError with the store's name and the reason; `get` raises the errors of the store's client.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any, Final, NoReturn, Protocol

import msgspec
import numpy as np

from firstspin.aws.clients import clear, error_code, open_client
from firstspin.data.formats import sqlite_file
from firstspin.files import make_private_folder
from firstspin.records import InputError, Ranking, StoredAnswer

Batch = tuple[list[str], list[Ranking]]
Rows = list[tuple[str, bytes]]
CURRENT: Final = "#current"
MAX_ITEMS: Final = 25
"""DynamoDB's limit of items in one BatchWriteItem."""

TABLES: Final = {"scores", "current"}
TRIES: Final = 8
LIFETIME: Final = timedelta(days=14)
"""Of a version, so that answers outlive days without a run."""

WRITERS: Final = 8
"""Threads that write a run to DynamoDB."""

WRITING: Final = "#writing"
RESUMABLE: Final = timedelta(hours=12)
"""Shorter than a day: the next daily run has other registrations, and begins anew."""

THROTTLED: Final = {
    "InternalServerError",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
}
"""DynamoDB's errors of a call that may be sent again whole."""

TIMEOUTS: Final = {"connect_timeout": 2, "read_timeout": 5, "retries": {"max_attempts": 3, "mode": "standard"}}


class MalformedRow(ValueError):
    """A row that is not a valid answer of `firstspin score`."""


class ScoreReader(Protocol):
    """A store of answers by user, for reading."""

    def get(self, user_id: str) -> StoredAnswer | None:
        """The current answer for a user, or None. Raises MalformedRow where the row can't be read."""

    def close(self) -> None:
        """Close the connection to the store."""


class Scores(ScoreReader, Protocol):
    """A store of answers by user, for reading and writing."""

    def write(self, version: str, batches: Iterator[Batch]) -> None:
        """Store the answers of a run and make them current. Raises InputError where the store can't be written."""


class SqliteScores:
    """Answers in an SQLite file, with the two latest versions.

    A run is one transaction: readers continue with the version before, a killed run leaves nothing, and a concurrent
    run waits for a few seconds and is then refused. Raises InputError where the file can't be used or is another one.
    """

    def __init__(self, path: Path) -> None:
        self._name = f"sqlite:{path}"
        make_private_folder(path.absolute().parent)
        sqlite_file.refuse_unusable(path)
        sqlite_file.make_private(path)
        with _clear(self._name):
            # SQLite serialises the calls of threads
            self._connection = sqlite3.connect(path.absolute(), isolation_level=None, check_same_thread=False)
            try:
                self._prepare(path)
            except BaseException:
                self.close()
                raise

    def _prepare(self, path: Path) -> None:
        if not sqlite_file.tables(self._connection) <= TABLES:
            raise InputError(f"{path} has other tables than those of `firstspin score`; it is not changed")
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "CREATE TABLE IF NOT EXISTS scores "
            "(version TEXT, user_id TEXT, answer BLOB, PRIMARY KEY (version, user_id)) WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS current (one INTEGER PRIMARY KEY CHECK (one = 1), version TEXT)",
        ):
            self._connection.execute(statement)

    def write(self, version: str, batches: Iterator[Batch]) -> None:
        """Write a run in one transaction. Raises InputError where the file can't be written."""
        with _clear(self._name), self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM scores WHERE version IS NOT (SELECT version FROM current)")
            for rows in _rows(batches, self._name):
                connection.executemany(
                    "INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", [(version, user, answer) for user, answer in rows]
                )
            connection.execute("INSERT OR REPLACE INTO current VALUES (1, ?)", [version])

    def get(self, user_id: str) -> StoredAnswer | None:
        """The current answer for a user, or None. Raises MalformedRow where the row can't be read."""
        return _look_up(self._connection, user_id)

    def close(self) -> None:
        """See `ScoreReader`."""
        self._connection.close()


class SqliteReader:
    """Read-only access to the file of `SqliteScores`, which may be created or replaced later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._opened: tuple[sqlite_file.Identity, sqlite3.Connection] | None = None

    def get(self, user_id: str) -> StoredAnswer | None:
        """The current answer for a user; None also where there is no file yet."""
        if not self._path.exists():
            return None
        with self._lock:  # SQLite serialises the lookups of one connection as well
            return _look_up(self._connection(), user_id)

    def close(self) -> None:
        """See `ScoreReader`."""
        with self._lock:
            self._forget()

    def _connection(self) -> sqlite3.Connection:
        """The connection of all threads; that of a replaced file is closed."""
        now = sqlite_file.identity(self._path)[:1]
        if self._opened is None or self._opened[0] != now:
            self._forget()
            self._opened = now, _read_only(self._path)
        return self._opened[1]

    def _forget(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None


def check_sqlite(path: Path) -> None:
    """Raises InputError where the path can't hold a score store, now or later."""
    sqlite_file.refuse_unusable(path, writing=False)
    if not path.exists():
        return
    with _clear(f"sqlite:{path}"), closing(_read_only(path)) as opened:
        tables = sqlite_file.tables(opened)
    if tables and not tables >= TABLES:
        raise InputError(f"{path} is not a store written by `firstspin score`")


def _read_only(path: Path) -> sqlite3.Connection:
    at = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(at, uri=True, isolation_level=None, check_same_thread=False)


def _look_up(connection: sqlite3.Connection, user_id: str) -> StoredAnswer | None:
    row = connection.execute(
        "SELECT answer, version FROM scores JOIN current USING (version) WHERE user_id = ?", [user_id]
    ).fetchone()
    return _stored_answer(*row) if row else None


@contextmanager
def _clear(store: str) -> Iterator[None]:
    """Convert errors of SQLite to InputError with the store's name and the reason."""
    try:
        yield
    except sqlite3.Error as problem:
        hint = " (is another run writing to it?)" if "locked" in str(problem) else ""
        raise InputError(f"{store}: {problem}{hint}") from problem


class DynamoScores:
    """Answers in a DynamoDB table with the keys `user_id` (hash) and `version` (range), all text.

    Items of a run expire by the attribute `expires` (epoch seconds) where it is the table's time-to-live attribute.
    """

    def __init__(
        self,
        table: str,
        client: Any,
        *,
        sleep: Callable[[float], None] = time.sleep,
        rng: np.random.Generator | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._table, self._client, self._sleep, self._now = table, client, sleep, now
        self._rng = rng or np.random.default_rng()
        self._name = f"dynamodb:{table}"

    def write(self, version: str, batches: Iterator[Batch]) -> None:
        """Write a run's items by several threads, then the pointer.

        A run of the same bundle that broke off within 12 hours is continued under its version, where it left off, if
        its batches are the first of these. Raises InputError where the table can't be written, or they are others.
        """
        pool = ThreadPoolExecutor(WRITERS)
        try:
            with clear(self._name):
                version = self._write(version, batches, pool)
                self._client.put_item(TableName=self._table, Item=self._mark(CURRENT, version))
        finally:
            pool.shutdown(cancel_futures=True)

    def _write(self, version: str, batches: Iterator[Batch], pool: ThreadPoolExecutor) -> str:
        """Write all batches that are not written yet; the version that they have."""
        begun, digest, number = self._begun(version), hashlib.sha256(), 0
        for number, rows in enumerate(_rows(batches, self._name), 1):
            for user, answer in rows:
                digest.update(user.encode() + b"\0" + answer)
            sums = {"done": {"N": str(number)}, "sum": {"S": digest.hexdigest()}}
            if number == 1:
                first = {"first": sums["sum"]}
                begun = begun if begun and begun["first"] == first["first"] else None
                version = begun["points_to"]["S"] if begun else version
            if begun and number <= int(begun["done"]["N"]):
                if number == int(begun["done"]["N"]) and begun["sum"] != sums["sum"]:
                    self._refuse_to_resume(version)
                continue
            expires = {"expires": {"N": str(int((self._now() + LIFETIME).timestamp()))}}
            about = {"version": {"S": version}} | expires
            items = [{"user_id": {"S": user}, "answer": {"B": answer}} | about for user, answer in rows]
            list(pool.map(self._put, (items[at : at + MAX_ITEMS] for at in range(0, len(items), MAX_ITEMS))))
            mark = self._mark(WRITING, version) | expires | sums | first
            self._client.put_item(TableName=self._table, Item=mark)
        if begun and number < int(begun["done"]["N"]):
            self._refuse_to_resume(version)
        return version

    def _begun(self, version: str) -> dict[str, Any] | None:
        """The mark of a run of this version's bundle that broke off within 12 hours."""
        mark, current = self._item(WRITING, WRITING), self._item(CURRENT, CURRENT)
        if not mark or (current and current["points_to"] == mark["points_to"]):
            return None
        is_same = mark["points_to"]["S"].partition(".")[0] == version.partition(".")[0]
        is_fresh = float(mark["written"]["N"]) >= (self._now() - RESUMABLE).timestamp()
        return mark if is_same and is_fresh else None

    def _mark(self, name: str, version: str) -> dict[str, Any]:
        """An item about a version; `written` is when, in epoch seconds."""
        written = str(int(self._now().timestamp()))
        return {"user_id": {"S": name}, "version": {"S": name}, "points_to": {"S": version}, "written": {"N": written}}

    def _refuse_to_resume(self, version: str) -> NoReturn:
        """Raises InputError, and lets the next run begin anew."""
        forgotten = self._mark(WRITING, version) | {"written": {"N": "0"}}
        self._client.put_item(TableName=self._table, Item=forgotten)
        raise InputError(
            f"{self._name}: the registrations are others than those of the run {version}, which broke off; the stored "
            "answers are not changed. The same command again begins anew"
        )

    def get(self, user_id: str) -> StoredAnswer | None:
        """The current answer for a user, or None, by two consistent reads."""
        pointer = self._item(CURRENT, CURRENT)
        item = self._item(user_id, pointer["points_to"]["S"]) if pointer else None
        return _stored_answer(item.get("answer", {}).get("B"), item["version"]["S"]) if item else None

    def close(self) -> None:
        """See `ScoreReader`."""
        self._client.close()

    def _item(self, user_id: str, version: str) -> dict[str, Any] | None:
        # consistent: the pointer may be newer than a replica of the item
        response: dict[str, Any] = self._client.get_item(
            TableName=self._table, Key={"user_id": {"S": user_id}, "version": {"S": version}}, ConsistentRead=True
        )
        return response.get("Item")

    def _put(self, items: list[dict[str, Any]]) -> None:
        """Write at most 25 items; unprocessed ones, or all of a throttled call, are sent again after growing delays."""
        left = {self._table: [{"PutRequest": {"Item": item}} for item in items]}
        for attempt in range(TRIES):
            try:
                left = self._client.batch_write_item(RequestItems=left)["UnprocessedItems"]
            except Exception as problem:
                if error_code(problem) not in THROTTLED:
                    raise
            if not left:
                return
            self._sleep(float(self._rng.uniform(0, 0.05 * 2**attempt)))
        unwritten = len(left[self._table])
        raise InputError(f"{self._name} left {unwritten} items unwritten after {TRIES} tries")


def _rows(batches: Iterator[Batch], store: str) -> Iterator[Rows]:
    """Each batch as keys and encoded answers; of a user who occurs twice in it, the later answer.

    Raises InputError at the end where all batches were empty.
    """
    is_empty = True
    for users, rankings in batches:
        is_empty = is_empty and not users
        yield list(dict(zip(users, map(msgspec.json.encode, rankings), strict=True)).items())
    if is_empty:
        raise InputError(f"{store}: there are no registrations to score; the stored answers are not changed")


def _stored_answer(answer: bytes, version: str) -> StoredAnswer:
    try:
        ranking = msgspec.json.decode(answer, type=Ranking)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        raise MalformedRow from None
    genres, values = ranking.genres, ranking.probabilities
    if not genres or len(genres) != len(values) or len(set(genres)) < len(genres):
        raise MalformedRow
    if not all(0 <= value <= 1 for value in values):
        raise MalformedRow
    return StoredAnswer(version.partition(".")[0], Ranking(genres, values, "batch"))


def _dynamodb(name: str) -> Scores:
    return DynamoScores(name, open_client("dynamodb", TIMEOUTS))


SQLITE: Final = "sqlite"
SCHEMES: Final = (SQLITE, "dynamodb")


def open_scores(url: str) -> Scores:
    """The store of a URL, sqlite:PATH or dynamodb:TABLE, for writing. Raises InputError where the URL is another."""
    scheme, name = _parts(url)
    return SqliteScores(Path(name)) if scheme == SQLITE else _dynamodb(name)


def read_scores(url: str) -> ScoreReader:
    """The store of a URL, for reading. Raises InputError where the URL is invalid."""
    scheme, name = _parts(url)
    return SqliteReader(Path(name)) if scheme == SQLITE else _dynamodb(name)


def check_scores(url: str) -> None:
    """Raises InputError where no answers can ever be read at a URL."""
    scheme, name = _parts(url)
    if scheme == SQLITE:
        check_sqlite(Path(name))
    else:
        _dynamodb(name).close()


def _parts(url: str) -> tuple[str, str]:
    scheme, _, name = url.partition(":")
    if scheme not in SCHEMES or not name:
        raise InputError(f"invalid store URL {url!r}; expected sqlite:PATH or dynamodb:TABLE")
    if scheme == SQLITE and (name.startswith("//") or name == ":memory:" or "\0" in name):
        bare = name.lstrip("/") or "PATH"
        raise InputError(
            f"invalid store URL {url!r}; expected sqlite:{bare} for a file under the working folder, "
            f"or sqlite:/{bare} for an absolute path"
        )
    return scheme, name

"""Key-value stores of batch answers: written by `score`, read back one user at a time.

Every run writes under its own version and then points `current` at it in one step, so a reader sees all of a run or
nothing of it. The version before stays readable for those who have just read the pointer. A version begins with the
id of the bundle that answered, up to the first full stop. A run that answers nobody is refused, and changes nothing.

`write` raises InputError with the store's name and the reason; `get` raises what the store's own client raises.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from firstspin.aws.clients import clear, open_client
from firstspin.data.formats import sqlite_file
from firstspin.files import make_private_folder
from firstspin.records import InputError, Ranking, StoredAnswer

Batch = tuple[list[str], list[Ranking]]
Rows = list[tuple[str, bytes]]
CURRENT: Final = "#current"
ITEMS_A_CALL: Final = 25
"""DynamoDB takes no more in one BatchWriteItem."""

TABLES: Final = {"scores", "current"}
TRIES: Final = 8
KEPT: Final = timedelta(days=3)
TIMEOUTS: Final = {"connect_timeout": 2, "read_timeout": 5, "retries": {"max_attempts": 3, "mode": "standard"}}


class Malformed(ValueError):
    """A row that no `score` of ours wrote."""


class ScoreReader(Protocol):
    """Answers by user."""

    def get(self, user_id: str) -> StoredAnswer | None:
        """The current answer for a user; None when there is none. Raises Malformed for a row that can't be read."""


class Scores(ScoreReader, Protocol):
    """Answers by user, to be written too."""

    def write(self, version: str, batches: Iterator[Batch]) -> None:
        """Keep a run's answers and make them the current ones."""


class SqliteScores:
    """Answers in an SQLite file; the two latest versions are kept.

    A whole run is one transaction: readers go on with the run before, what a killed run wrote was never there, and
    another run waits for a few seconds and is then refused.
    """

    def __init__(self, path: Path) -> None:
        self._name = f"sqlite:{path}"
        make_private_folder(path.absolute().parent)
        sqlite_file.refuse_unusable(path)
        sqlite_file.make_private(path)
        with _clear(self._name):
            # SQLite itself lets one thread in at a time
            self._connection = sqlite3.connect(path.absolute(), isolation_level=None, check_same_thread=False)
            if not sqlite_file.tables(self._connection) <= TABLES:
                raise InputError(f"{path} holds other tables than those of `firstspin score`; it is left as it is")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS scores "
                "(version TEXT, user_id TEXT, answer BLOB, PRIMARY KEY (version, user_id)) WITHOUT ROWID"
            )
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS current (one INTEGER PRIMARY KEY CHECK (one = 1), version TEXT)"
            )

    def write(self, version: str, batches: Iterator[Batch]) -> None:
        with _clear(self._name), self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM scores WHERE version IS NOT (SELECT version FROM current)")
            for rows in _rows(batches, self._name):
                connection.executemany(
                    "INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", [(version, user, answer) for user, answer in rows]
                )
            connection.execute("INSERT OR REPLACE INTO current VALUES (1, ?)", [version])

    def get(self, user_id: str) -> StoredAnswer | None:
        return _look_up(self._connection, user_id)


class SqliteReader:
    """Reads what `SqliteScores` keeps and changes nothing. It waits for a file, and follows one that is replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._opened: tuple[sqlite_file.Identity, sqlite3.Connection] | None = None

    def get(self, user_id: str) -> StoredAnswer | None:
        if not self._path.exists():
            return None
        return _look_up(self._connection(), user_id)

    def _connection(self) -> sqlite3.Connection:
        """For all threads the same; that of a file which was replaced closes after the last look into it."""
        with self._lock:
            now = sqlite_file.identity(self._path)[:1]
            if self._opened is None or self._opened[0] != now:
                self._opened = now, _read_only(self._path)
            return self._opened[1]


def check_sqlite(path: Path) -> None:
    """Raise InputError where no answers can be at this path, now or later."""
    sqlite_file.refuse_unusable(path, writing=False)
    if not path.exists():
        return
    with _clear(f"sqlite:{path}"), closing(_read_only(path)) as opened:
        found = sqlite_file.tables(opened)
    if found and not found >= TABLES:
        raise InputError(f"{path} is not a store that `firstspin score` wrote")


def _read_only(path: Path) -> sqlite3.Connection:
    at = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(at, uri=True, isolation_level=None, check_same_thread=False)


def _look_up(connection: sqlite3.Connection, user_id: str) -> StoredAnswer | None:
    found = connection.execute(
        "SELECT answer, version FROM scores JOIN current USING (version) WHERE user_id = ?", [user_id]
    ).fetchone()
    return _kept(*found) if found else None


@contextmanager
def _clear(store: str) -> Iterator[None]:
    """Whatever SQLite can't do becomes an InputError with the store's name and the reason."""
    try:
        yield
    except sqlite3.Error as problem:
        hint = " (is another run writing to it?)" if "locked" in str(problem) else ""
        raise InputError(f"{store}: {problem}{hint}") from problem


class DynamoScores:
    """Answers in a DynamoDB table with the keys `user_id` (hash) and `version` (range), all text.

    Items of a run expire by the attribute `expires` (epoch seconds) where the table has it as its time to live.
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
        about = {"version": {"S": version}, "expires": {"N": str(int((self._now() + KEPT).timestamp()))}}
        pointer = {"user_id": {"S": CURRENT}, "version": {"S": CURRENT}, "points_to": {"S": version}}
        with clear(self._name):
            for rows in _rows(batches, self._name):
                items = [{"user_id": {"S": user}, "answer": {"B": answer}} | about for user, answer in rows]
                for start in range(0, len(items), ITEMS_A_CALL):
                    self._put(items[start : start + ITEMS_A_CALL])
            self._client.put_item(TableName=self._table, Item=pointer)

    def get(self, user_id: str) -> StoredAnswer | None:
        pointer = self._item(CURRENT, CURRENT)
        found = self._item(user_id, pointer["points_to"]["S"]) if pointer else None
        return _kept(found.get("answer", {}).get("B"), found["version"]["S"]) if found else None

    def _item(self, user_id: str, version: str) -> dict[str, Any] | None:
        # consistent: the pointer may be newer than a replica of the item
        found: dict[str, Any] = self._client.get_item(
            TableName=self._table, Key={"user_id": {"S": user_id}, "version": {"S": version}}, ConsistentRead=True
        )
        return found.get("Item")

    def _put(self, items: list[dict[str, Any]]) -> None:
        """Write at most 25 items; what DynamoDB leaves unprocessed is sent again, ever later."""
        left = {self._table: [{"PutRequest": {"Item": item}} for item in items]}
        for attempt in range(TRIES):
            left = self._client.batch_write_item(RequestItems=left)["UnprocessedItems"]
            if not left:
                return
            self._sleep(float(self._rng.uniform(0, 0.05 * 2**attempt)))
        unwritten = len(left[self._table])
        raise InputError(f"{self._name} left {unwritten} items unwritten after {TRIES} tries")


def _rows(batches: Iterator[Batch], store: str) -> Iterator[Rows]:
    """Each batch as keys and encoded answers; a user who stands twice in it counts once, the later answer.

    Raises InputError at the end where nobody was in any.
    """
    nobody = True
    for users, rankings in batches:
        nobody = nobody and not users
        yield list(dict(zip(users, map(msgspec.json.encode, rankings), strict=True)).items())
    if nobody:
        raise InputError(f"{store}: there is nobody to answer, so the answers kept before stay")


def _kept(answer: bytes, version: str) -> StoredAnswer:
    try:
        found = msgspec.json.decode(answer, type=Ranking)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        raise Malformed from None
    genres, chances = found.genres, found.probabilities
    if not genres or len(genres) != len(chances) or len(set(genres)) < len(genres):
        raise Malformed
    if not all(0 <= chance <= 1 for chance in chances):
        raise Malformed
    return StoredAnswer(version.partition(".")[0], Ranking(genres, chances, "batch"))


def _dynamodb(name: str) -> Scores:
    return DynamoScores(name, open_client("dynamodb", TIMEOUTS))


SQLITE: Final = "sqlite"
SCHEMES: Final = (SQLITE, "dynamodb")


def open_scores(url: str) -> Scores:
    """The store of a URL, sqlite:PATH or dynamodb:TABLE, to write to. Raises InputError for any other."""
    scheme, name = _parts(url)
    return SqliteScores(Path(name)) if scheme == SQLITE else _dynamodb(name)


def read_scores(url: str) -> ScoreReader:
    """The store of a URL, to read from. Raises InputError for what is none."""
    scheme, name = _parts(url)
    return SqliteReader(Path(name)) if scheme == SQLITE else _dynamodb(name)


def check_scores(url: str) -> None:
    """Raise InputError for a URL at which no answers can ever be read."""
    scheme, name = _parts(url)
    if scheme == SQLITE:
        check_sqlite(Path(name))
    else:
        _dynamodb(name)


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

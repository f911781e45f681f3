"""The event store in a SQLite file."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from event_store_contract import EventStoreContract, kept, put
from made_events import NOON, SECRET, clicks, ids, listen, shown

from firstspin.events.database import Session
from firstspin.events.databases.sqlite import SqliteDatabase
from firstspin.events.erasure import erase
from firstspin.events.export import export
from firstspin.events.schema import Secret, Unavailable, scoped
from firstspin.events.store import open_database, open_store
from firstspin.records import InputError


class TestSqlite(EventStoreContract):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "events.sqlite"
        self.url = f"sqlite:///{self.path}"

    @contextmanager
    def held(self) -> Iterator[None]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")

    def plan(self, session: Session, query: str) -> str:
        return str(session.run(f"EXPLAIN QUERY PLAN {query}", (SECRET.user_hash("anna"), 200)))


def test_a_store_is_made_in_a_folder_that_somebody_else_holds_locked(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # as a workspace is for as long as its process lives
        with closing(open_database(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET)) as database:
            database.open()
            assert put(database, [], clicks("a", 3))[1] == ("stored",) * 3
    finally:
        os.close(folder)


def _write_some(url: str, process: int) -> None:
    store = open_store(url, SECRET)
    statuses = store.submit([*clicks("shared", 20), *clicks(f"own{process}-", 20)]).result(30)
    store.close()
    assert set(statuses[20:]) == {"stored"}


def test_processes_that_start_on_no_file_share_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.sqlite"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_some, args=(url, i)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    database = open_database(url, SECRET)
    assert len(kept(database)) == 20 + 4 * 20
    database.close()


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    path.write_text("user_id,registered_at\n" * 100)
    with pytest.raises(InputError, match=r"events\.sqlite is not an event store"):
        open_store(f"sqlite:///{path}", SECRET)
    assert path.read_text() == "user_id,registered_at\n" * 100


@pytest.mark.parametrize("table", ["places (url TEXT)", "events (id INTEGER)", "about (author TEXT)"])
def test_an_sqlite_file_of_something_else_is_left_alone(table: str, tmp_path: Path) -> None:
    path = tmp_path / "places.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE {table}")
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"places\.sqlite (is not an event store|lacks the tables of an event store)"):
        open_store(f"sqlite:///{path}", SECRET)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["places.sqlite"]


def test_a_store_that_lost_a_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    open_store(f"sqlite:///{path}", SECRET).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE erased")
    with pytest.raises(InputError, match=r"events\.sqlite lacks tables of an event store"):
        open_store(f"sqlite:///{path}", SECRET)


def test_a_store_that_must_be_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_database(f"sqlite:///{tmp_path / 'typo.sqlite'}", SECRET, create=False).open()
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_private_from_its_creation_on_with_its_log(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        database = open_database(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET)
        database.open()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        database.close()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(
        ("events.sqlite", "events.sqlite-wal", "events.sqlite-shm", "events.sqlite-reserve"), 0o600
    )


def test_what_was_acknowledged_is_in_the_file_at_the_path_also_when_the_one_before_was_deleted(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    one, two = (open_database(f"sqlite:///{path}", SECRET) for _ in range(2))
    put(one, [], clicks("before", 5))
    put(two, [], clicks("also before", 5))
    path.unlink()  # its log stays, as after a careless rm
    assert put(one, [], clicks("after", 5))[1] == ("stored",) * 5
    assert put(two, [], clicks("later", 5))[1] == ("stored",) * 5
    assert put(one, [], clicks("last", 5))[1] == ("stored",) * 5
    found = open_database(f"sqlite:///{path}", SECRET)
    assert set(kept(found)) == ids([*clicks("after", 5), *clicks("later", 5), *clicks("last", 5)])
    for database in (found, one, two):
        database.close()
    whole(path)


def test_a_file_moved_away_has_all_that_was_acknowledged_and_a_store_in_its_place_is_taken_up(tmp_path: Path) -> None:
    path, aside, other = (tmp_path / name for name in ("events.sqlite", "aside.sqlite", "other.sqlite"))
    restored = open_database(f"sqlite:///{other}", SECRET)
    put(restored, [], clicks("restored", 3))
    restored.close()
    one, two = (open_database(f"sqlite:///{path}", SECRET) for _ in range(2))
    put(one, [], clicks("one", 50))
    put(two, [], clicks("two", 50))
    path.rename(aside)
    other.rename(path)
    assert put(two, [], clicks("after", 5))[1] == ("stored",) * 5
    assert put(one, [], clicks("later", 5))[1] == ("stored",) * 5
    assert set(kept(one)) == ids([*clicks("restored", 3), *clicks("after", 5), *clicks("later", 5)])
    one.close()
    two.close()
    whole(path)
    with closing(sqlite3.connect(f"file:{aside}?immutable=1", uri=True)) as connection:
        moved = {event_id for (event_id,) in connection.execute("SELECT event_id FROM events")}
    assert moved == ids([*clicks("one", 50), *clicks("two", 50)])


def test_a_store_of_another_key_in_the_place_of_ours_is_not_written(tmp_path: Path) -> None:
    path, other = tmp_path / "events.sqlite", tmp_path / "other.sqlite"
    open_store(f"sqlite:///{other}", Secret(bytes(32))).close()
    database = open_database(f"sqlite:///{path}", SECRET)
    put(database, [], clicks("e", 3))
    other.replace(path)
    with pytest.raises(InputError, match="under another key"):
        put(database, [], clicks("f", 3))


def whole(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_store_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    open_store(f"sqlite:///{path}", SECRET).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE about SET value = '4' WHERE name = 'version'")
    with pytest.raises(InputError, match="version 4; this release of firstspin supports 3"):
        open_store(f"sqlite:///{path}", SECRET)


def test_a_file_that_lost_its_middle_is_unavailable_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    database = open_database(f"sqlite:///{path}", SECRET)
    put(database, [], clicks("e", 500))
    database.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(Unavailable, match="malformed"):
        put(database, [], clicks("f", 500))


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///events.sqlite", "events.sqlite"),
        ("sqlite:///a/b c.sqlite", "a/b c.sqlite"),
        ("sqlite:////var/lib/events.sqlite", "/var/lib/events.sqlite"),
    ],
)
def test_an_address_names_a_file(url: str, path: str) -> None:
    database = open_database(url, SECRET)
    assert isinstance(database, SqliteDatabase)
    assert database.path == Path(path)


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        (
            "sqlite://ev2.sqlite",
            "sqlite:///ev2.sqlite (under the working folder) or sqlite:////ev2.sqlite (an absolute",
        ),
        ("sqlite://run/ev2.sqlite", "sqlite:///run/ev2.sqlite (under"),
        ("sqlite:ev2.sqlite", "expected sqlite:///ev2.sqlite (under"),
        ("sqlite:/var/ev2.sqlite", "expected sqlite:////var/ev2.sqlite (an absolute path, four slashes)"),
        ("SQLite:///ev2.sqlite", "expected sqlite:///ev2.sqlite (under"),
    ],
)
def test_an_address_with_other_slashes_is_refused_with_the_right_spelling(url: str, meant: str) -> None:
    with pytest.raises(InputError, match=re.escape(meant)):
        open_database(url, SECRET)


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite:///:memory:", "sqlite:////", "sqlite:///e.sqlite?mode=memory"])
def test_an_address_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="no file name"):
        open_database(url, SECRET)


@pytest.mark.parametrize("url", ["", "events.sqlite", "mysql://user:word@host/name", "duckdb:///x"])
def test_an_address_of_another_kind_is_refused_without_a_password_in_it(url: str) -> None:
    with pytest.raises(InputError, match="expected sqlite:///PATH or postgresql://HOST/NAME") as refused:
        open_database(url, SECRET)
    assert "word" not in str(refused.value)


def test_no_file_keeps_a_trace_of_an_erased_user(tmp_path: Path) -> None:
    users = [f"user-{i:04}@example.org" for i in range(900)]
    erased, others = users[::3], users[1::3]
    path = tmp_path / "events.sqlite"
    database = SqliteDatabase(path, SECRET.fingerprint, listens_by_user=True, reserve_bytes=1 << 16)
    for turn in range(10):  # so that pages split and rows move
        put(
            database,
            [shown(user, f"experiment {turn}") for user in users],
            [listen(f"{turn} of {user}", user) for user in users],
        )
    assert _found(tmp_path, [SECRET.user_hash(user) for user in erased]) == set(map(SECRET.user_hash, erased))
    assert erase(database, SECRET, erased, now=NOON).compacted
    needles = [needle for user in erased for needle in _traces(user)]
    assert _found(tmp_path, needles) == set()
    assert _found(tmp_path, [SECRET.user_hash(user) for user in others]) == set(map(SECRET.user_hash, others))
    database.close()


def _traces(user: str) -> list[bytes]:
    hashed = SECRET.user_hash(user)
    kept = [hashed, SECRET.event_id(f"7 of {user}"), shown(user, "experiment 7").exposure_id]
    return [*kept, user.encode(), hashed.hex().encode(), scoped(hashed, "experiment 7").encode()]


def _found(folder: Path, needles: list[bytes]) -> set[bytes]:
    files = b"".join(path.read_bytes() for path in folder.iterdir())
    return {needle for needle in needles if needle in files}


def test_a_text_that_is_not_utf_8_is_a_foreign_row_to_readers_and_the_message_does_not_repeat_it(
    tmp_path: Path,
) -> None:
    with closing(SqliteDatabase(tmp_path / "events.sqlite", SECRET.fingerprint)) as database:
        put(database, [shown("anna"), shown("bert")], [])
        broken = "UPDATE exposures SET station_id = CAST(x'ff' || 'secret' AS TEXT) WHERE user_hash = ?"
        database.transact(lambda session: session.run(broken, (SECRET.user_hash("anna"),)))
        with pytest.raises(InputError, match="rows that firstspin did not write") as refused:
            export(database, tmp_path / "out", "spring")
        with pytest.raises(InputError, match="rows that firstspin did not write"):
            database.transact(lambda session: session.run("SELECT station_id FROM exposures"), deleting=True)
        assert "secret" not in str(refused.value)
        database.close()  # with the query of the failed export
        assert erase(database, SECRET, ["anna"], now=NOON).deleted.exposures == 1
        assert export(database, tmp_path / "out", "spring").exposures == 1

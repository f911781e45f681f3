"""The event store in a SQLite file."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from event_store_contract import EventStoreContract, kept, put
from made_events import NOON, SECRET, click, clicks, shown

from firstspin.experiment.erase import erase
from firstspin.experiment.events import Unavailable, scoped
from firstspin.experiment.sqlite import SqliteDatabase
from firstspin.experiment.store import open_database, open_store
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


def test_a_store_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    open_store(f"sqlite:///{path}", SECRET).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE about SET value = '2' WHERE name = 'version'")
    with pytest.raises(InputError, match="version 2, this program knows 1"):
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
        ("sqlite:events.sqlite", "events.sqlite"),
        ("sqlite:////var/lib/events.sqlite", "/var/lib/events.sqlite"),
        ("sqlite:/var/lib/events.sqlite", "/var/lib/events.sqlite"),
    ],
)
def test_an_address_names_a_file(url: str, path: str) -> None:
    database = open_database(url, SECRET)
    assert isinstance(database, SqliteDatabase)
    assert database.path == Path(path)


@pytest.mark.parametrize("url", ["", "events.sqlite", "mysql://host/name", "duckdb:///x"])
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="an event store is at sqlite:///PATH or postgresql://HOST/NAME"):
        open_database(url, SECRET)


def test_no_file_keeps_a_trace_of_an_erased_user(tmp_path: Path) -> None:
    users = [f"user-{i:04}@example.org" for i in range(900)]
    erased, others = users[::3], users[1::3]
    database = SqliteDatabase(tmp_path / "events.sqlite", SECRET.fingerprint, reserve_bytes=1 << 16)
    for turn in range(10):  # so that pages split and rows move
        put(
            database,
            [shown(user, f"experiment {turn}") for user in users],
            [click(f"{turn} of {user}", user) for user in users],
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

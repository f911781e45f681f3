"""The event store in PostgreSQL: a real server, started for these tests alone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from event_store_contract import QUICK, EventStoreContract, kept, put
from made_app import ask, new_app
from made_events import NOON, SECRET, click, clicks, ids, listen, shown
from made_service import until
from private_postgres import Cluster, cluster, missing

from firstspin.events.database import Session, write
from firstspin.events.erasure import erase
from firstspin.events.recent_listens import RecentListens
from firstspin.events.schema import Unavailable
from firstspin.events.store import open_database, open_store
from firstspin.records import InputError
from firstspin.service.app import App
from firstspin.service.http.messages import Reply, Request
from firstspin.service.process.worker import load
from firstspin.serving.lookups import PAUSE, UserLookups
from firstspin.serving.policy import PolicySettings

psycopg = pytest.importorskip("psycopg", reason="needs the extra 'postgres'")
pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with cluster() as server:
        yield server


@pytest.fixture
def url(server: Cluster) -> str:
    """Where no store is yet, and nobody waits long for a lock."""
    with psycopg.connect(server.url) as connection:
        connection.execute("DROP SCHEMA IF EXISTS firstspin CASCADE")
    return f"{server.url}&options=-c%20lock_timeout%3D300ms"


class TestPostgres(EventStoreContract):
    @pytest.fixture(autouse=True)
    def _empty(self, url: str) -> None:
        self.url = url

    @contextmanager
    def held(self) -> Iterator[None]:
        with psycopg.connect(self.url) as other, other.transaction():
            other.execute("LOCK TABLE firstspin.erased IN ACCESS EXCLUSIVE MODE")
            yield

    def plan(self, session: Session, query: str) -> str:
        session.run("SET enable_seqscan = off")  # of a table with two rows, the planner reads all
        return str(session.run(f"EXPLAIN {query}", (SECRET.user_hash("anna"), 200)))


def test_a_server_that_crashes_keeps_what_was_acknowledged_and_the_store_goes_on_alone(
    server: Cluster, url: str
) -> None:
    store = open_store(url, SECRET, QUICK)
    for turn in range(20):
        store.submit(clicks(f"{turn}-", 10)).result(10)
    server.control("stop", "-m", "immediate")
    with pytest.raises(Unavailable, match="PostgreSQL"):
        store.submit([click("refused")]).result(10)
    assert store.submit_exposures([shown("meanwhile")])
    assert not store.health().ready
    assert "\n" not in store.health().reason
    server.control("start")
    while not store.health().ready:
        time.sleep(0.01)
    assert store.submit([click("after")]).result(10) == ("stored",)
    assert store.close().exposures == {"stored": 1}
    database = open_database(url, SECRET)
    acknowledged = {event_id for turn in range(20) for event_id in ids(clicks(f"{turn}-", 10))}
    assert set(kept(database)) - ids([click("refused")]) == acknowledged | ids([click("after")])
    database.close()


def test_kill_9_of_the_writer_loses_no_acknowledged_event(url: str) -> None:
    command = [sys.executable, str(Path(__file__).parents[2] / "event_writer.py"), url, "0"]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline() for _ in range(200)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += writer.stdout.readlines()
    writer.stdout.close()
    writer.wait()
    database = open_database(url, SECRET)
    rows = kept(database)
    database.close()
    assert len(rows) == len(set(rows))
    assert {SECRET.event_id(line.decode().strip()) for line in acknowledged if line.endswith(b"\n")} <= set(rows)


def test_a_row_on_its_way_while_its_user_is_erased_does_not_stay(url: str) -> None:
    writer, eraser = open_database(url, SECRET), open_database(f"{url}%20-c%20lock_timeout%3D0", SECRET)
    eraser.open()
    erasing = threading.Thread(target=lambda: erase(eraser, SECRET, ["anna"], now=NOON))

    def write_slowly(session: Session) -> None:
        write(session, [], [click("on its way", "anna")])
        erasing.start()
        erasing.join(0.3)
        assert erasing.is_alive()  # it waits for us

    writer.transact(write_slowly)
    erasing.join()
    assert kept(writer) == []
    assert put(writer, [], [click("too late", "anna")]) == ((), ("erased",))
    writer.close()
    eraser.close()


def test_a_server_that_hangs_is_answered_without_and_found_again(server: Cluster, url: str, folder: Path) -> None:
    with closing(open_database(url, SECRET, listens_by_user=True)) as writer:
        put(writer, [], [listen("1", "anna", station_id="1")])
    now = 0
    recent = RecentListens(
        partial(open_database, url, SECRET, read_only=True, listens_by_user=True, patience=0.5), SECRET
    )
    lookups = UserLookups(lambda: recent, lambda: now, budget=0.5, threads=2, queue=1)
    app = new_app(listens=lookups, policy=PolicySettings(listens_from_events=True))
    app.serve(load(folder))

    def several(number: int) -> list[bytes]:
        async def replies() -> list[Reply]:
            asked = [Request("POST", "/v1/recommendations", b"", {}, b'{"user_id":"anna"}')] * number
            return list(await asyncio.gather(*[one for one in app(asked) if not isinstance(one, Reply)]))

        return [bytes(reply.body) for reply in asyncio.run(replies())]

    def moved() -> bool:
        nonlocal now
        now += PAUSE
        [body] = several(1)
        return b'"listens":1' in body

    until(moved)
    with server.hanging():
        without = several(8)
        counts = outcomes(app)
        assert (counts["late"], counts["full"]) == (3, 5)
        without += [*several(1), *several(1), *several(1)]
        assert outcomes(app)["paused"] >= 1
        assert len(set(without)) == 1
        assert b'"listens"' not in without[0]
    until(moved)
    lookups._threads.shutdown()
    recent.close()


def outcomes(app: App) -> dict[str, float]:
    lines = [line for line in ask(app, "GET", "/metrics").body.decode().splitlines() if "listen_lookups_total{" in line]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


def test_a_query_that_takes_long_is_cancelled_by_the_server(url: str) -> None:
    with closing(open_database(url, SECRET, listens_by_user=True)) as writer:
        writer.open()
    reader = open_database(url, SECRET, read_only=True, listens_by_user=True, patience=0.2)
    with closing(reader), reader.reading() as session, pytest.raises(psycopg.errors.QueryCanceled):
        session.run("SELECT pg_sleep(60)")


def test_no_table_file_keeps_a_trace_of_an_erased_user(server: Cluster, url: str) -> None:
    users = [f"user-{i:04}@example.org" for i in range(90)]
    database = open_database(url, SECRET, listens_by_user=True)
    for turn in range(20):
        put(database, [shown(user) for user in users], [listen(f"{turn} of {user}", user) for user in users])
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("ANALYZE")  # the planner's samples must not remember anybody either
        admin.execute("CHECKPOINT")
        assert _found(server, users) == set(users)
        assert erase(database, SECRET, users[::3], now=NOON).compacted
        admin.execute("ANALYZE")
        admin.execute("CHECKPOINT")
    database.close()
    assert _found(server, users) == set(users) - set(users[::3])


def _found(server: Cluster, users: list[str]) -> set[str]:
    with psycopg.connect(server.url) as connection:
        ((oid,),) = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchall()
    files = [path.read_bytes() for path in (server.data / "base" / str(oid)).iterdir()]
    return {user for user in users if any(SECRET.user_hash(user) in file for file in files)}


def test_an_invalid_url_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="PostgreSQL can't parse it"):
        open_database("postgresql://host/name?colour=blue", SECRET)

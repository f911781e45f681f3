"""Stores of the service that are wrong are refused before anything starts; those that are away cost no newcomer."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path

import pytest
from forked_service import ended
from made_events import SECRET
from made_service import Callers, Service, admin, ask_for, click, send, serving, until, workers
from private_postgres import Cluster, cluster, missing
from small_disk import BALLAST, fill_up, small_disk

from firstspin.data.formats import sqlite_file
from firstspin.events.schema import Secret
from firstspin.events.store import open_database, open_store
from firstspin.records import InputError, Ranking
from firstspin.serving.score_stores import SqliteScores

QUICK = ("--drain-delay", "0.2")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "events.secret"
    path.write_text(bytes(range(32)).hex())
    return path


# ------------------------------------------------------------------------------------------------- wrong for good


def refused(folder: Path, *options: object) -> str:
    """The one line of a service that does not start; nobody ever listened on its port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    done = ended(["--bundle", folder, "--port", port, *options])
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.startswith("firstspin serve: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ("mysql://a/b", "invalid event store URL mysql:…; expected sqlite:///PATH or postgresql://HOST/NAME"),
        ("sqlite://ev2.sqlite", "expected sqlite:///ev2.sqlite (under the working folder)"),
        ("sqlite:///{here}/stations.csv", "stations.csv is not an SQLite file; name another one"),
        ("sqlite:///{here}/scores.db", "scores.db is not an event store"),
        ("sqlite:///{here}/folder", "folder is a folder; name a file in it"),
        ("sqlite:///{here}/no/such/events.sqlite", "no/such does not exist; create it or correct the path"),
        ("sqlite:///{here}/pipe", "pipe is not a file"),
        ("sqlite:///{here}/other.sqlite", "pass the secret file that belongs to it"),
        ("postgresql://host/name?colour=blue", "PostgreSQL can't parse it"),
    ],
)
def test_an_event_store_that_can_never_be_one_is_refused_before_the_port_is_open(
    events: str, words: str, folder: Path, secret: Path, tmp_path: Path
) -> None:
    (tmp_path / "stations.csv").write_text("station_id,name,genre\n1,One,Rock\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    open_store(f"sqlite:///{tmp_path / 'other.sqlite'}", Secret(bytes(32))).close()
    with closing(SqliteScores(tmp_path / "scores.db")) as scores:
        scores.write("one", iter([(["u"], [Ranking(("Rock",), (1.0,), "model")])]))
    said = refused(folder, "--events", events.format(here=tmp_path), "--events-secret", secret)
    assert words in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no digits", "expected 64 hexadecimal digits"),
        ("\udcff", "expected 64 hexadecimal digits"),
        (None, "Is a directory"),
    ],
)
def test_a_secret_that_is_none_is_refused(content: str | None, words: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.mkdir() if content is None else path.write_bytes(content.encode(errors="surrogateescape"))
    store = ("--events", f"sqlite:///{tmp_path / 'events.sqlite'}")
    assert words in refused(folder, *store, "--events-secret", path)
    assert "does not exist" in refused(folder, *store, "--events-secret", tmp_path / "no" / "secret")
    assert not (tmp_path / "events.sqlite").exists()


def test_a_lost_secret_is_told_and_no_other_is_made_in_its_place(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "events.sqlite"
    open_store(f"sqlite:///{store}", SECRET).close()
    said = refused(folder, "--events", f"sqlite:///{store}", "--events-secret", tmp_path / "lost.secret")
    assert "lost.secret did not exist; if it was lost, put its copy back" in said
    assert not (tmp_path / "lost.secret").exists()


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ("sqlite://scores.db", "expected sqlite:scores.db for a file under the working folder, or sqlite:/scores.db"),
        ("sqlite:{here}/folder", "folder is a folder; name a file in it"),
        ("sqlite:{here}/stations.csv", "stations.csv is not an SQLite file"),
        ("sqlite:{here}/no/scores.db", "no does not exist; create it or correct the path"),
        ("sqlite:{here}/events.sqlite", "events.sqlite is not a store written by `firstspin score`"),
        ("redis:scores", "invalid store URL 'redis:scores'; expected sqlite:PATH or dynamodb:TABLE"),
    ],
)
def test_a_score_store_that_can_never_be_one_is_refused(scores: str, words: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "stations.csv").write_text("station_id,name,genre\n1,One,Rock\n")
    (tmp_path / "folder").mkdir()
    open_store(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET).close()
    assert words in refused(folder, "--scores", scores.format(here=tmp_path))


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe", b"{", b'{"keys": 1}', b'name = "x"\n', b"2026-01-31T12:00:00Z"]
)
def test_keys_plans_and_clocks_that_are_none_are_refused(
    content: bytes | None, folder: Path, secret: Path, tmp_path: Path
) -> None:
    path = tmp_path / "given"
    path.mkdir() if content is None else path.write_bytes(content)
    store = ("--events", f"sqlite:///{tmp_path / 'events.sqlite'}", "--events-secret", secret)
    for options in (("--keys", path), (*store, "--experiment", path), ("--clock", path)):
        said = refused(folder, *options)
        assert "given" in said
        assert not any(word in said for word in ("Error", "0x", "codec", "Errno"))


def test_a_file_that_this_user_may_not_write_is_refused(tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("needs the right to become another user (root)")
    theirs, ours = tmp_path / "theirs.sqlite", tmp_path / "ours" / "ours.sqlite"
    ours.parent.mkdir(mode=0o777)
    for path in (theirs, ours):
        open_store(f"sqlite:///{path}", SECRET).close()
    for path in (tmp_path, *tmp_path.parents):
        path.chmod(path.stat().st_mode | 0o005)
    heard, told = get_context("fork").Pipe(duplex=False)

    def as_nobody() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        for path in (theirs, ours, tmp_path / "new.sqlite"):
            with pytest.raises(InputError) as problem:
                sqlite_file.refuse_unusable(path)
            told.send(str(problem.value))

    process = get_context("fork").Process(target=as_nobody)
    process.start()
    process.join()
    told.close()
    assert "may not read and write it" in heard.recv()
    assert "may not read and write it" in heard.recv()
    assert "may not write files in" in heard.recv()


# ------------------------------------------------------------------------------------------------------ only away


def store_gauge(service: Service) -> float:
    lines = service.ask("GET", "/metrics")[2].decode().splitlines()
    return float(next(line for line in lines if line.startswith("firstspin_event_store_ready ")).split()[1])


def troubles(service: Service) -> set[str]:
    """What the admin port says of the workers' event stores."""
    told = admin(service, "GET", "/state")[1]["workers"]
    return {worker["event_store"] for worker in told}  # type: ignore[attr-defined]


@contextmanager
def answering_without_store(folder: Path, *options: object) -> Iterator[Service]:
    """A service that answers newcomers, refuses events and says so; in the end its store is back."""
    with serving(folder, "--workers", "2", "--admin-port", "0", *map(str, options), *QUICK) as service:
        assert ask_for(service, "anna")[0] == 200
        assert send(service, click("early"))[0] == 503
        until(lambda: "" not in troubles(service))
        assert store_gauge(service) == 0
        yield service
        until(lambda: send(service, click("late"))[1] in (["stored"], ["duplicate"]))
        until(lambda: troubles(service) == {""} and store_gauge(service) == 2)


def test_a_store_of_another_version_costs_no_recommendation(folder: Path, secret: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    open_store(f"sqlite:///{path}", SECRET).close()

    def become(version: str) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE about SET value = ? WHERE name = 'version'", [version])

    become("4")
    with answering_without_store(folder, "--events", f"sqlite:///{path}", "--events-secret", secret) as service:
        until(
            lambda: all("version 4; this release of firstspin supports 3" in trouble for trouble in troubles(service))
        )
        until(lambda: len(workers(service)) == 3)  # and the admin process
        assert sum("events can't be stored" in line["event"] for line in service.lines()) == 2  # once a worker
        become("3")


def test_a_store_that_is_locked_at_the_start_is_taken_up_later(folder: Path, secret: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    open_store(f"sqlite:///{path}", SECRET).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with answering_without_store(folder, "--events", f"sqlite:///{path}", "--events-secret", secret) as service:
            until(lambda: all("locked" in trouble for trouble in troubles(service)))
            other.close()


def test_a_disk_that_is_full_at_the_start_keeps_no_service_from_starting(
    folder: Path, secret: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", megabytes=20) as disk:
        fill_up(disk)
        store = ("--events", f"sqlite:///{disk / 'events.sqlite'}", "--events-secret", secret)
        with answering_without_store(folder, *store):
            (disk / BALLAST).unlink()


def test_a_disk_that_is_mounted_read_only_at_the_start_keeps_no_service_from_starting(
    folder: Path, secret: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", megabytes=20) as disk:
        open_store(f"sqlite:///{disk / 'events.sqlite'}", SECRET).close()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        store = ("--events", f"sqlite:///{disk / 'events.sqlite'}", "--events-secret", secret)
        with answering_without_store(folder, *store):
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    pytest.importorskip("psycopg", reason="needs the extra 'postgres'")
    if missing():
        pytest.skip(missing())
    with cluster() as running:
        yield running


def test_a_server_that_is_down_at_the_start_is_taken_up_later(folder: Path, secret: Path, server: Cluster) -> None:
    server.control("stop", "-m", "fast")
    try:
        with answering_without_store(folder, "--events", server.url, "--events-secret", secret) as service:
            until(lambda: all("PostgreSQL" in trouble for trouble in troubles(service)))
            server.control("start")
    finally:
        if not (server.data / "postmaster.pid").exists():
            server.control("start")


def test_a_store_of_another_key_that_comes_later_is_never_written_and_costs_no_recommendation(
    folder: Path, server: Cluster, tmp_path: Path
) -> None:
    other = tmp_path / "other.secret"
    other.write_text(bytes(32).hex())
    with closing(open_database(server.url, SECRET)) as database:
        database.open()
    assert "another key" in refused(folder, "--events", server.url, "--events-secret", other)
    with server.hanging():
        started = serving(folder, "--admin-port", "0", "--events", server.url, "--events-secret", str(other), *QUICK)
        service = started.__enter__()
    try:
        until(lambda: any("another key" in trouble for trouble in troubles(service)))
        assert ask_for(service, "anna")[0] == 200
        assert send(service, click("early"))[0] == 503
    finally:
        started.__exit__(None, None, None)


# ---------------------------------------------------------------------------------------------------- it hangs


def test_a_server_that_hangs_costs_events_a_503_in_time_and_nothing_else(
    folder: Path, secret: Path, server: Cluster
) -> None:
    options = ("--workers", "2", "--events", server.url, "--events-secret", str(secret), *QUICK)
    with serving(folder, "--admin-port", "0", *options) as service:
        assert send(service, click("before"))[0] == 202
        with server.hanging():
            connection = service.connect()
            connection.settimeout(2)  # the answer comes before that, or this is a TimeoutError
            connection.close()
            with Callers(service, 2).calling() as callers:
                for number in range(20):
                    assert in_time(service, f"during {number}") == 503
                    assert ask_for(service, f"user {number}")[0] == 200
                assert callers.failures == []
            until(lambda: "" not in troubles(service))
            before = threads(service)
            for number in range(20):
                assert in_time(service, f"later {number}") == 503
            after = threads(service)
            lasting = before.keys() & after.keys()  # a check of the store is a process of its own, soon gone
            assert len(lasting) >= 2
            assert {pid: after[pid] for pid in lasting} == {pid: before[pid] for pid in lasting}
            assert service.ask("GET", "/ping")[0] == 200
        until(lambda: send(service, click("after"))[1] in (["stored"], ["duplicate"]))


def threads(service: Service) -> dict[int, int]:
    """The number of threads of each child."""
    found = {}
    for pid in workers(service):
        with suppress(FileNotFoundError):  # it ended meanwhile
            found[pid] = len(list(Path(f"/proc/{pid}/task").iterdir()))
    return found


def in_time(service: Service, event: str) -> int:
    """The status of an event, or a TimeoutError after two seconds."""
    with answering_in_time(service):
        return send(service, click(event))[0]


@contextmanager
def answering_in_time(service: Service) -> Iterator[None]:
    """Every request raises TimeoutError where nothing arrives for two seconds."""
    patient = service.connect
    try:
        service.connect = lambda port=None: hasty(patient(port))  # type: ignore[method-assign]
        yield
    finally:
        service.connect = patient  # type: ignore[method-assign]


def hasty(connection: socket.socket) -> socket.socket:
    connection.settimeout(2)
    return connection


@pytest.mark.parametrize("at_work", [True, False], ids=["an event is on its way", "at rest"])
def test_a_service_ends_in_time_while_its_server_hangs(
    at_work: bool, folder: Path, secret: Path, server: Cluster
) -> None:
    options = ("--events", server.url, "--events-secret", str(secret), *QUICK)
    with serving(folder, *options) as service:
        assert send(service, click("before"))[0] == 202
        with server.hanging():
            if at_work:
                assert in_time(service, "during") == 503
                assert ask_for(service, "anna")[0] == 200
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(20) == 0


def test_an_erasure_is_refused_in_time_while_its_server_hangs_and_done_afterwards(
    folder: Path, secret: Path, server: Cluster
) -> None:
    options = ("--admin-port", "0", "--events", server.url, "--events-secret", str(secret), *QUICK)
    with serving(folder, *options) as service:
        assert send(service, click("before"))[0] == 202
        body = b'{"user_ids": ["anna"]}'
        with server.hanging():
            for _ in range(2):  # a check that hangs holds up none after it
                with answering_in_time(service):
                    assert admin(service, "POST", "/erase", body)[0] == 503
        until(lambda: admin(service, "POST", "/erase", body)[0] == 200)
        with server.hanging():
            assert admin(service, "POST", "/erase", body)[0] == 503
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(20) == 0


# ------------------------------------------------------------------------------------------------- it disappears


def test_a_file_deleted_while_it_is_served_is_made_again_and_holds_what_is_acknowledged_from_then_on(
    folder: Path, secret: Path, tmp_path: Path
) -> None:
    path = tmp_path / "events.sqlite"
    store = ("--events", f"sqlite:///{path}", "--events-secret", str(secret))
    with serving(folder, "--workers", "2", *store, *QUICK) as service:
        for number in range(20):
            assert send(service, click(f"before {number}"))[0] == 202
        path.unlink()
        acknowledged = [f"after {n}" for n in range(40) if send(service, click(f"after {n}"))[1] == ["stored"]]
        assert len(acknowledged) > 20
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = {event_id for (event_id,) in connection.execute("SELECT event_id FROM events")}
    assert {SECRET.event_id(event) for event in acknowledged} <= found


def test_a_secret_deleted_while_it_is_served_changes_nothing(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    secret = tmp_path / "events.secret"
    secret.write_text(bytes(range(32)).hex())
    with serving(folder, "--events", f"sqlite:///{path}", "--events-secret", str(secret), *QUICK) as service:
        assert send(service, click("same"))[1] == ["stored"]
        secret.unlink()
        os.kill(workers(service)[0], signal.SIGKILL)
        service.wait_for("a worker serves a model", times=2)
        until(lambda: send(service, click("same"))[1] == ["duplicate"])
        assert not secret.exists()


def test_scores_that_are_replaced_are_followed(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.db"
    with serving(folder, "--scores", f"sqlite:{path}", "--scores-first", "--scores-seconds", "5", *QUICK) as service:
        assert ask_for(service, "u")[1]["source"] == "model"
        model = ask_for(service, "u")[1]["model"]
        for genre in ("Rock", "Jazz"):
            path.unlink(missing_ok=True)
            answer = Ranking((genre,), (1.0,), "model")
            with closing(SqliteScores(path)) as scores:
                scores.write(f"{model}.{genre}", iter([(["u"], [answer])]))
            told = ask_for(service, "u")[1]
            assert (told["source"], told["genres"][0]["genre"]) == ("batch", genre)

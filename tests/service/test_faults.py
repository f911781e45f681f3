"""The faults that need everything switched on: keys, an event store, an experiment and an admin port, for real.

What happens to a socket is in test_protocol.py, to a process in test_operate.py, to the store alone in
test_experiment_store.py; docs/faults.md lists every case with its tests.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from in_threads import at_work
from made_experiments import PLAN
from made_service import Callers, Service, admin, ask_for, click, request, resident, send, serving, until, workers
from small_disk import BALLAST, fill_up, small_disk

from firstspin.events.schema import read_secret
from firstspin.events.store import open_database
from firstspin.experiment.plan import freeze

APP, OPS, SLOW = "key-of-app", "key-of-ops", "key-of-slow"


@pytest.fixture
def current(folder: Path, tmp_path: Path) -> Path:
    link = tmp_path / "current"
    link.symlink_to(folder)
    return link


def keeping(folder: Path, store: Path | None = None) -> tuple[str, ...]:
    """Options for a service that runs an experiment and keeps what happens in it."""
    experiment = folder / "experiment.toml"
    freeze(PLAN, experiment)
    return (
        *("--state", str(folder / "state"), "--events", f"sqlite:///{store or folder / 'events.sqlite'}"),
        *("--experiment", str(experiment), "--drain-delay", "0.2"),
    )


def rows(path: Path, columns: str = "event_id", table: str = "events") -> list[tuple[Any, ...]]:
    """What is kept in a file that is whole."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute(f"SELECT {columns} FROM {table} ORDER BY seq").fetchall()


# ----------------------------------------------------------------------------------------------- what was acknowledged


class Senders:
    """Clients that send clicks without pause, each with an id of its own, and note which were acknowledged."""

    def __init__(self, service: Service, number: int = 3) -> None:
        self._service, self._number = service, number
        self.acknowledged: list[str] = []
        self.refused = Counter[int]()

    @contextmanager
    def sending(self) -> Iterator[Senders]:
        with at_work(self._number, self._send):
            yield self

    def _send(self, sender: int, end: threading.Event) -> None:
        for turn in range(1_000_000):
            if end.is_set():
                return
            event = f"{sender}-{turn}-{time.monotonic_ns()}"
            try:
                status, told = send(self._service, click(event))
            except OSError:
                continue
            if (status, told) == (202, ["stored"]):
                self.acknowledged.append(event)
            else:
                self.refused[status] += 1


def stored(folder: Path, store: Path | None = None) -> set[bytes]:
    """The ids of the events that are kept."""
    return {event_id for (event_id,) in rows(store or folder / "events.sqlite")}


def hashed(folder: Path, events: list[str]) -> set[bytes]:
    """Event ids as the store has them."""
    secret = read_secret(folder / "state" / "events.secret")
    return {secret.event_id(event) for event in events}


def test_case_22_a_killed_worker_loses_no_acknowledged_event(current: Path, tmp_path: Path) -> None:
    with serving(current, "--workers", "2", *keeping(tmp_path)) as service:
        with Senders(service).sending() as senders:
            for kills in range(1, 4):
                before = len(senders.acknowledged)
                until(lambda before=before: len(senders.acknowledged) > before + 20)  # type: ignore[misc]
                os.kill(workers(service)[0], signal.SIGKILL)
                service.wait_for("a worker serves a model", times=2 + kills)
        assert set(senders.refused) <= {503}
    assert hashed(tmp_path, senders.acknowledged) <= stored(tmp_path)


def test_cases_23_and_44_after_kill_9_of_the_parent_the_store_is_whole_and_arms_are_the_same(
    current: Path, tmp_path: Path
) -> None:
    options = keeping(tmp_path)
    users = [f"user {number}" for number in range(40)]
    with serving(current, *options) as service:
        before = {user: ask_for(service, user)[1]["source"] for user in users}
        with Senders(service).sending() as senders:
            until(lambda: len(senders.acknowledged) > 30)
            service.process.kill()
    assert set(before.values()) == {"model", "rule-arm"}
    assert hashed(tmp_path, senders.acknowledged) <= stored(tmp_path)
    with serving(current, "--workers", "2", *options) as again:
        assert {user: ask_for(again, user)[1]["source"] for user in users} == before
        assert send(again, click("after"))[1] == ["stored"]


def test_case_20_what_was_decided_before_sigterm_is_kept(current: Path, tmp_path: Path) -> None:
    with serving(current, *keeping(tmp_path)) as service:
        for number in range(200):
            assert ask_for(service, f"user {number}")[0] == 200
        service.process.terminate()
        assert service.process.wait(28) == 0
    url, secret = f"sqlite:///{tmp_path / 'events.sqlite'}", read_secret(tmp_path / "state" / "events.secret")
    with closing(open_database(url, secret)) as database, database.snapshot() as session:  # many wait in batches
        assert session.run("SELECT count(*) FROM exposures") == [(200,)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", megabytes=20) as place:
        yield place


def test_case_36_while_the_disk_is_full_newcomers_are_answered_and_events_come_back_later(
    current: Path, disk: Path, tmp_path: Path
) -> None:
    store = disk / "events.sqlite"
    with serving(current, *keeping(tmp_path, store)) as service, Senders(service, 1).sending() as senders:
        until(lambda: len(senders.acknowledged) > 10)
        fill_up(disk)
        until(lambda: senders.refused[503] > 3)
        for number in range(20):
            assert ask_for(service, f"user {number}")[0] == 200
        assert service.ask("GET", "/ping")[0] == 200
        (disk / BALLAST).unlink()
        before = len(senders.acknowledged)
        until(lambda: len(senders.acknowledged) > before + 10)
        assert set(senders.refused) == {503}
        service.process.terminate()
        assert service.process.wait(28) == 0
    assert hashed(tmp_path, senders.acknowledged) <= stored(tmp_path, store)
    assert len(rows(store, table="exposures", columns="exposure_id")) == 20  # they waited for the disk


def test_case_37_while_the_store_is_held_events_are_refused_and_newcomers_answered(
    current: Path, tmp_path: Path
) -> None:
    with serving(current, *keeping(tmp_path)) as service:
        assert send(service, click("before"))[1] == ["stored"]
        with closing(sqlite3.connect(tmp_path / "events.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with Callers(service, 2).calling() as callers:
                assert send(service, click("during"))[0] == 503
                assert ask_for(service, "anna")[0] == 200
            other.execute("ROLLBACK")
        assert callers.failures == []
        until(lambda: send(service, click("during"))[1] == ["stored"])


# ---------------------------------------------------------------------------------------- one service, all switched on


def write_keys(path: Path, *lines: dict[str, object]) -> str:
    """A file of keys: each line's `key` is kept as its hash."""
    hashes = [hashlib.sha256(str(line["key"]).encode()).hexdigest() for line in lines]
    kept = [line | {"sha256": digest} for line, digest in zip(lines, hashes, strict=True)]
    path.write_text(json.dumps({"keys": [{name: line[name] for name in line if name != "key"} for line in kept]}))
    return str(path)


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    """The service and its folder."""
    place: Path = tmp_path_factory.mktemp("whole")
    keys = write_keys(
        place / "keys.json",
        {"name": "app", "key": APP},
        {"name": "ops", "key": OPS, "admin": True},
        {"name": "slow", "key": SLOW, "rate": 5},
    )
    (place / "b").symlink_to(folder)
    with serving(place / "b", "--keys", keys, "--admin-port", "0", *keeping(place)) as running:
        yield running, place


def test_case_18_a_key_is_changed_without_a_gap_and_the_old_one_ends(current: Path, tmp_path: Path) -> None:
    ends = (datetime.now(UTC) + timedelta(seconds=6)).isoformat()
    old, new = {"name": "app", "key": "spring", "until": ends}, {"name": "app", "key": "summer"}
    with serving(current, "--keys", write_keys(tmp_path / "keys.json", old, new), "--drain-delay", "0") as service:
        assert ask_for(service, "carl", authorization="Bearer spring")[0] == 200
        assert ask_for(service, "carl", authorization="Bearer summer")[0] == 200
        until(lambda: ask_for(service, "carl", authorization="Bearer spring")[0] == 403)
        assert ask_for(service, "carl", authorization="Bearer summer")[0] == 200
        for wrong in ({}, {"x_api_key": "summe"}, {"authorization": "Bearer"}, {"x_api_key": "\xff"}):
            assert ask_for(service, "carl", **wrong)[0] == 401
        assert send(service, click("no key"))[0] == 401
        write_keys(tmp_path / "keys.json", {"name": "app", "key": "autumn"})  # summer is taken away
        until(lambda: ask_for(service, "carl", authorization="Bearer summer")[0] == 401)
        assert ask_for(service, "carl", authorization="Bearer autumn")[0] == 200
        os.kill(workers(service)[0], signal.SIGKILL)  # the one in its place knows too
        service.wait_for("a worker serves a model", times=2)
        assert ask_for(service, "carl", authorization="Bearer summer")[0] == 401
        (tmp_path / "keys.json").write_text("{")
        service.wait_for("the file of keys can't be read")
        assert ask_for(service, "carl", authorization="Bearer autumn")[0] == 200
        assert service.recommend(age=31)  # /invocations lies behind the platform's own door


def test_a_file_without_a_key_lets_nobody_in(current: Path, tmp_path: Path) -> None:
    with serving(current, "--keys", write_keys(tmp_path / "keys.json"), "--drain-delay", "0") as service:
        assert ask_for(service, "carl")[0] == 401


def test_case_19_a_caller_over_its_rate_waits_and_no_other_does(whole: tuple[Service, Path]) -> None:
    service, _ = whole
    told = [ask_for(service, "carl", x_api_key=SLOW) for _ in range(40)]
    assert Counter(status for status, _ in told)[429] >= 20
    assert {answer["error"]["code"] for status, answer in told if status == 429} == {"too_many_requests"}
    assert ask_for(service, "carl", x_api_key=APP)[0] == 200
    until(lambda: ask_for(service, "carl", x_api_key=SLOW)[0] == 200)


def test_admin_calls_take_an_admin_key(whole: tuple[Service, Path]) -> None:
    service, _ = whole
    assert admin(service, "GET", "/state")[0] == 401
    assert admin(service, "GET", "/state", x_api_key=APP)[0] == 403
    assert admin(service, "GET", "/state", x_api_key=OPS)[0] == 200


def test_what_the_admin_port_can_not_read_is_refused_without_a_word_of_it(whole: tuple[Service, Path]) -> None:
    service, _ = whole
    for body in (
        b'{"user_ids":["telltale\\ud800"]}',
        b'{"user_ids":[NaN,1e400]}',
        b'{"telltale":1}',
        b"\xfftelltale",
        b"[" * 9999,
    ):
        status, told = admin(service, "POST", "/erase", body, x_api_key=OPS)
        assert status in (400, 422), body
        assert told["error"]["code"] in ("invalid", "malformed")  # type: ignore[index]
        assert "telltale" not in str(told)
    assert "telltale" not in service.log.read_text()


def test_case_38_an_event_sent_ten_thousand_times_at_once_is_one_row(whole: tuple[Service, Path]) -> None:
    service, folder = whole
    statuses: list[tuple[int, list[str]]] = []

    def send_many() -> None:
        statuses.extend(send(service, *[click("same")] * 500, x_api_key=APP) for _ in range(5))

    senders = [threading.Thread(target=send_many) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert {status for status, _ in statuses} == {202}
    told = Counter(status for _, each in statuses for status in each)
    assert told == {"stored": 1, "duplicate": 9_999}
    assert len(rows(folder / "events.sqlite")) == len(stored(folder))


def test_case_15_who_leaves_in_the_middle_of_a_request_was_shown_nothing(whole: tuple[Service, Path]) -> None:
    service, folder = whole
    body = json.dumps({"user_id": "gone", "age": 31}).encode()
    sent = request("POST", "/v1/recommendations", body, x_api_key=APP)
    for part in (len(sent) // 2, len(sent) - 1):
        with service.connect() as connection:
            connection.sendall(sent[:part])
    assert ask_for(service, "stays", x_api_key=APP)[0] == 200
    secret = read_secret(folder / "state" / "events.secret")
    until(lambda: (secret.user_hash("stays"),) in rows(folder / "events.sqlite", "user_hash", "exposures"))
    assert (secret.user_hash("gone"),) not in rows(folder / "events.sqlite", "user_hash", "exposures")


def test_case_46_an_erased_user_never_comes_back(whole: tuple[Service, Path]) -> None:
    service, folder = whole
    with_key = {"x_api_key": APP}
    assert send(service, click("d1", "dora"), **with_key)[1] == ["stored"]
    assert ask_for(service, "dora", **with_key)[0] == 200
    hashed_user = (read_secret(folder / "state" / "events.secret").user_hash("dora"),)
    until(lambda: hashed_user in rows(folder / "events.sqlite", "user_hash", "exposures"))
    body = json.dumps({"user_ids": ["dora"]}).encode()
    status, told = admin(service, "POST", "/erase", body, x_api_key=OPS)
    assert (status, told["ok"]) == (200, True)
    assert send(service, click("d2", "dora"), click("e1", "emil"), **with_key)[1] == ["invalid", "stored"]
    assert ask_for(service, "dora", **with_key)[0] == 200  # answered as ever, and not kept
    assert ask_for(service, "emil", **with_key)[0] == 200
    emil = (read_secret(folder / "state" / "events.secret").user_hash("emil"),)
    until(lambda: emil in rows(folder / "events.sqlite", "user_hash", "exposures"))
    for table in ("events", "exposures"):
        assert hashed_user not in rows(folder / "events.sqlite", "user_hash", table)


def test_case_47_neither_user_nor_key_is_written_down_anywhere(whole: tuple[Service, Path]) -> None:
    service, folder = whole
    told = {"user_id": "telltale", "age": 31, "gender": "telltale", "country": "telltale", "genres": ["telltale"]}
    for key in (APP, "telltale"):
        service.ask("POST", "/v1/recommendations", json.dumps(told).encode(), x_api_key=key)
        send(service, click("telltale", "telltale"), {"telltale": "telltale"}, x_api_key=key)
    assert service.ask("POST", "/v1/telltale?telltale=telltale", b"{")[0] == 404
    secret = read_secret(folder / "state" / "events.secret")
    until(lambda: (secret.event_id("telltale"),) in rows(folder / "events.sqlite"))
    written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    written.append(service.ask("GET", "/metrics")[2])
    for word in ("telltale", APP, OPS, SLOW):
        assert not any(word.encode() in text for text in written), word


def test_case_9_what_is_refused_for_its_size_takes_no_memory(whole: tuple[Service, Path]) -> None:
    service, _ = whole
    told = {worker["pid"] for worker in admin(service, "GET", "/state", x_api_key=OPS)[1]["workers"]}  # type: ignore[attr-defined]
    (pid,) = told
    before = resident(pid)
    head = b"POST /invocations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    for _ in range(4):
        with service.connect() as connection, suppress(ConnectionError):
            connection.sendall(head)
            for _ in range(800):
                connection.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")
    assert service.recommend(age=31)
    assert resident(pid) < before + 40  # of the 200 MB sent


def test_case_50_ping_is_answered_while_every_connection_asks_about_thousands(whole: tuple[Service, Path]) -> None:
    service, _ = whole
    lines = request("POST", "/invocations", b"{}\n" * 10_000, content_type="application/jsonlines")
    asking = [service.connect() for _ in range(4)]
    for connection in asking:
        connection.sendall(lines)
    with service.connect() as connection:
        connection.settimeout(2)
        connection.sendall(request("GET", "/ping"))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
    for connection in asking:
        connection.close()
    assert service.recommend(age=31)


# ------------------------------------------------------------------------------------------------------- the whole list


def test_every_case_of_the_list_has_the_tests_that_it_names() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "faults.md").read_text(encoding="utf-8")
    cases = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", page, re.MULTILINE)
    assert [int(number) for number, _ in cases] == list(range(1, max(50, len(cases)) + 1))
    for number, told in cases:
        for file, words in re.findall(r"`(\S+\.py)` ((?:\"[^\"]+\"(?:, )?)+)", told):
            names = re.findall(r"def (test_\w+)", (Path(__file__).parent.parent / file).read_text(encoding="utf-8"))
            for fragment in re.findall(r"\"([^\"]+)\"", words):
                assert any(fragment.replace(" ", "_") in name for name in names), (number, file, fragment)
        assert ".py`" in told, number

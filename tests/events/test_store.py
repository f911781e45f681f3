"""What was acknowledged is there: after kill -9, after the power went, after the disk was full."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from made_events import NOON, SECRET, click, clicks, ids, shown
from preloaded import preloaded
from small_disk import BALLAST, fill_up, small_disk

from firstspin.events.databases.sqlite import SqliteDatabase
from firstspin.events.erasure import erase
from firstspin.events.schema import Unavailable
from firstspin.events.store import EventStore, QueueLimits, open_store

WRITER = Path(__file__).parent.parent / "event_writer.py"


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def kept(path: Path) -> list[bytes]:
    """The ids of all events in a file that is whole."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [event_id for (event_id,) in connection.execute("SELECT event_id FROM events ORDER BY seq")]


def killed_writer(url: str, first: int, seconds: float, environment: dict[str, str] | None = None) -> set[int]:
    """Let a writer work so long after its first acknowledgement, then kill -9; the numbers it acknowledged."""
    writer = subprocess.Popen(
        [sys.executable, str(WRITER), url, str(first)], stdout=subprocess.PIPE, env=os.environ | (environment or {})
    )
    assert writer.stdout is not None
    heard = [writer.stdout.readline()]
    assert heard[0]
    timer = subprocess.Popen(["sh", "-c", f"sleep {seconds}; kill -9 {writer.pid}"])
    heard += writer.stdout.readlines()
    writer.wait()
    timer.wait()
    writer.stdout.close()
    assert writer.returncode == -signal.SIGKILL
    return {int(line) for line in heard if line.endswith(b"\n")}


def survive_kills(url: str, path: Path, kills: int) -> int:
    """Kill so many writers, each of which begins with events its predecessor sent; how many were acknowledged."""
    rng = random.Random(7)
    acknowledged: set[int] = set()
    for _ in range(kills):
        first = max(0, max(acknowledged, default=0) - 200)
        acknowledged |= killed_writer(url, first, rng.uniform(0.05, 0.5))
        rows = kept(path)
        assert len(rows) == len(set(rows))
        assert {SECRET.event_id(str(number)) for number in acknowledged} <= set(rows)
    return len(acknowledged)


def test_kill_9_loses_no_acknowledged_event_and_doubles_none(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    assert survive_kills(url_of(path), path, kills=3) > 100


@pytest.mark.soak
def test_ten_times_kill_9_loses_no_acknowledged_event_and_doubles_none(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    assert survive_kills(url_of(path), path, kills=10) > 1000


def test_when_the_power_goes_what_was_acknowledged_is_on_the_disk(tmp_path: Path) -> None:
    library, synced = preloaded("synced_only", tmp_path), tmp_path / "synced"
    synced.mkdir()
    watched = {"LD_PRELOAD": str(library), "SYNCED": str(synced), "SYNCED_NAME": "events.sqlite"}
    acknowledged = killed_writer(url_of(tmp_path / "events.sqlite"), 0, 0.3, watched)
    assert acknowledged
    assert {SECRET.event_id(str(number)) for number in acknowledged} <= set(kept(synced / "events.sqlite"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", megabytes=3) as place:
        yield place


def fill(store: EventStore) -> list[bytes]:
    """Send events until the disk is full; the ids of those that were acknowledged."""
    acknowledged: list[bytes] = []
    for turn in range(1000):
        events = clicks(f"{turn}-", 100, user_id=f"user {turn}")
        future = store.submit(events)
        refusal = future.exception(30)
        if refusal is not None:
            assert "full" in str(refusal)
            return acknowledged
        acknowledged += [event.event_id for event in events]
    raise AssertionError("the disk is too large")


def test_a_full_disk_refuses_events_keeps_what_it_has_and_goes_on_alone(disk: Path) -> None:
    path = disk / "events.sqlite"
    ballast = disk / BALLAST
    ballast.write_bytes(bytes(1 << 20))
    database = SqliteDatabase(path, SECRET.fingerprint, reserve_bytes=1 << 19)
    store = EventStore(database, QueueLimits(linger=0.001, retry=0.02))
    acknowledged = fill(store)
    assert not store.health().ready
    assert store.submit_exposures([shown("during")])  # a newcomer's answer doesn't wait, and the exposure does
    ballast.unlink()
    while not store.health().ready:
        time.sleep(0.01)
    assert store.submit([click("after")]).result(10) == ("stored",)
    assert store.close().exposures == {"stored": 1}
    rows = kept(path)
    assert len(rows) == len(set(rows))
    assert {*acknowledged, SECRET.event_id("after")} <= set(rows)


@pytest.mark.parametrize("serving", [True, False])
def test_on_a_full_disk_a_user_can_still_be_erased(disk: Path, serving: bool) -> None:
    path = disk / "events.sqlite"
    store = EventStore(
        SqliteDatabase(path, SECRET.fingerprint, reserve_bytes=1 << 19), QueueLimits(linger=0.001, retry=0.02)
    )
    acknowledged = fill(store)
    if not serving:
        store.close()
    fill_up(disk)
    database = SqliteDatabase(path, SECRET.fingerprint, reserve_bytes=1 << 19)
    erasure = erase(database, SECRET, ["user 0"], now=NOON)
    database.close()
    store.close()
    (disk / BALLAST).unlink()
    assert erasure.deleted.events == 100
    assert set(kept(path)) & set(acknowledged) == set(acknowledged) - ids(clicks("0-", 100))


def test_a_store_out_of_reach_at_the_start_is_found_when_it_comes(tmp_path: Path) -> None:
    folder = tmp_path / "not yet"
    store = open_store(url_of(folder / "events.sqlite"), SECRET, QueueLimits(retry=0.01))
    assert not store.health().ready
    with pytest.raises(Unavailable):
        store.submit([click("early")]).result(10)
    assert store.submit_exposures([shown()])
    folder.mkdir()
    while not store.health().ready:
        time.sleep(0.01)
    assert store.close().exposures == {"stored": 1}


@pytest.mark.parametrize("ended", [True, False], ids=["in time", "never"])
def test_a_write_that_fails_at_the_end_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ended: bool
) -> None:
    path = tmp_path / "events.sqlite"
    database = SqliteDatabase(path, SECRET.fingerprint, patience=0.01)
    store = EventStore(database, QueueLimits(exposures_linger=30, retry=0.01))
    assert store.submit([click("before")]).result(30) == ("stored",)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert store.submit_exposures([shown()]) == 1

        def end() -> None:
            if ended and store.health().failures > 1 and other.in_transaction:
                other.execute("ROLLBACK")

        store.close(20 if ended else 1, end)
        health = store.close()  # and the writer has ended
    assert (health.exposures.get("stored", 0), health.dropped_exposures) == (int(ended), int(not ended))
    assert ("1 exposures are dropped" in caplog.text) is not ended

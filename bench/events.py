"""Claim: acknowledging events only once they are on the disk is affordable, because commits are shared.

Beside the store, what one would write first: a transaction a row, on the same table and as safe (WAL, synchronous =
FULL). Files lie in the current folder, so start it where the disk is a real one.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path

from firstspin.events.database import write
from firstspin.events.databases.sqlite import SqliteDatabase
from firstspin.events.erasure import erase
from firstspin.events.schema import Event, Exposure, Secret, exposure, read_batch
from firstspin.events.store import EventStore, QueueLimits, Statuses

SECRET = Secret(bytes(32))
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
REPEATS = 5
WARM_UP = 1_000


def made(n: int) -> list[Event]:
    """n clicks of n users."""
    at = 1_769_860_800_000_000
    return [
        Event(
            event_id=os.urandom(16),
            type="click",
            user_hash=os.urandom(16),
            station_id="1234",
            at=at,
            received_at=at,
            seconds=None,
            flag="",
        )
        for _ in range(n)
    ]


def alone(folder: Path, n: int) -> tuple[float, float]:
    """Events a second and CPU microseconds an event of a transaction a row."""
    database = SqliteDatabase(folder / "alone.sqlite", SECRET.fingerprint)
    events = made(n)
    database.transact(lambda session: write(session, [], made(WARM_UP)))
    began, busy = time.perf_counter(), time.process_time()
    for event in events:
        database.transact(lambda session, event=event: write(session, [], [event]))  # type: ignore[misc]
    seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    database.close()
    return n / seconds, cpu / n * 1e6


def together(folder: Path, n: int, senders: int, batch: int = 1, linger: float = 0.002) -> tuple[float, float]:
    """The same of the store: so many senders, each sending its next batch once the one before is acknowledged."""
    store = EventStore(SqliteDatabase(folder / "together.sqlite", SECRET.fingerprint), QueueLimits(linger=linger))
    store.submit(made(WARM_UP)).result()
    waiting = [made(batch) for _ in range(n // batch)]
    done = threading.Semaphore(0)

    def send_next(before: Future[Statuses] | None) -> None:
        if before is not None:
            before.result()
            done.release()
        if waiting:
            store.submit(waiting.pop()).add_done_callback(send_next)

    began, busy = time.perf_counter(), time.process_time()
    for _ in range(senders):
        send_next(None)
    for _ in range(n // batch):
        done.acquire()
    seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    store.close()
    return n / seconds, cpu / n * 1e6


def arriving(folder: Path, a_second: int, linger: float) -> tuple[float, float]:
    """CPU share in percent, and median milliseconds to the answer, of events that arrive one by one at this rate."""
    store = EventStore(SqliteDatabase(folder / "arriving.sqlite", SECRET.fingerprint), QueueLimits(linger=linger))
    events, waits = made(2 * a_second), list[float]()
    began, busy = time.perf_counter(), time.process_time()
    for i, event in enumerate(events):
        time.sleep(max(0.0, began + i / a_second - time.perf_counter()))
        sent = time.perf_counter()
        store.submit([event]).add_done_callback(lambda _, sent=sent: waits.append(time.perf_counter() - sent))
    store.close()
    share = (time.process_time() - busy) / (time.perf_counter() - began)
    return share * 100, statistics.median(waits) * 1e3


def on_the_request_path(folder: Path) -> tuple[float, float, float]:
    """Microseconds of the thread to make an exposure, to hand it over, and to check an event out of a batch of 100."""
    store = EventStore(SqliteDatabase(folder / "path.sqlite", SECRET.fingerprint))
    candidates = {"model": tuple("abcde"), "rule": tuple("fghij")}

    def shown(i: int) -> Exposure:
        return exposure(
            SECRET,
            experiment="first-message@3f2a9c1b",
            user_id=f"user {i}",
            arm="model",
            propensity=0.5,
            decided_at=NOW,
            source="model",
            model="3f2a9c1b",
            station_id="17",
            candidates=candidates,
        )

    n = 10_000
    began = time.thread_time()
    for i in range(n):
        shown(i)
    making = time.thread_time() - began
    exposures = [shown(i) for i in range(n)]
    began = time.thread_time()
    for kept in exposures:
        store.submit_exposures([kept])
    handing = time.thread_time() - began
    store.close()
    item = '{"event_id":"%d","type":"click","user_id":"u","station_id":"17","at":"2026-01-31T12:00:00Z"}'
    body = ('{"events":[' + ",".join(item % i for i in range(100)) + "]}").encode()
    began = time.thread_time()
    for _ in range(n // 100):
        read_batch(body, SECRET, received_at=NOW)
    return making / n * 1e6, handing / n * 1e6, (time.thread_time() - began) / n * 1e6


def erasing(folder: Path, rows: int) -> tuple[float, float]:
    """Seconds to erase one user, and a hundred, from a store of so many events."""
    database = SqliteDatabase(folder / f"erasing-{rows}.sqlite", SECRET.fingerprint)
    for _ in range(rows // 10_000):
        database.transact(lambda session: write(session, [], made(10_000)))
    began = time.perf_counter()
    erase(database, SECRET, ["one"], now=NOW)
    middle = time.perf_counter()
    erase(database, SECRET, [f"user {i}" for i in range(100)], now=NOW)
    ended = time.perf_counter()
    database.close()
    return middle - began, ended - middle


def main() -> None:
    with tempfile.TemporaryDirectory(dir=".", prefix="bench-events-") as name:
        folder = Path(name)
        print(f"events acknowledged after their commit (SQLite, WAL, synchronous=FULL), medians of {REPEATS}")
        print(f"  {'':44}{'events/s':>10}{'CPU us/event':>14}{'ratio':>8}")
        base = [alone(folder, 500) for _ in range(REPEATS)]
        single = statistics.median(rate for rate, _ in base)
        print(f"  {'a transaction a row':44}{single:10,.0f}{statistics.median(c for _, c in base):14.0f}{1:8.1f}")
        for senders, batch, n in [(1, 1, 100), (64, 1, 10_000), (512, 1, 20_000), (8, 100, 20_000)]:
            runs = [together(folder, n, senders, batch) for _ in range(REPEATS)]
            rate, cpu = (statistics.median(run[i] for run in runs) for i in (0, 1))
            what = f"the store, {senders} senders of {batch} at a time"
            print(f"  {what:44}{rate:10,.0f}{cpu:14.0f}{rate / single:8.1f}")
        print("events that arrive one by one, 2,000 a second")
        for linger in (0.0, 0.002, 0.01):
            runs = [arriving(folder, 2_000, linger) for _ in range(REPEATS)]
            share, wait = (statistics.median(run[i] for run in runs) for i in (0, 1))
            spaced = f"commits at least {linger * 1e3:2.0f} ms apart"
            print(f"  {spaced}: {share:3.0f}% of a core, answer after {wait:5.1f} ms")
        paths = [on_the_request_path(folder) for _ in range(REPEATS)]
        making, handing, checking = (statistics.median(run[i] for run in paths) for i in (0, 1, 2))
        print(f"on the request's path, CPU: make an exposure {making:.1f} us, hand it over {handing:.1f} us, ", end="")
        print(f"check an event {checking:.1f} us")
        for rows in (100_000, 1_000_000):
            one, hundred = erasing(folder, rows)
            print(f"erase from {rows:9,} events: one user {one:6.2f} s, a hundred {hundred:6.2f} s")


if __name__ == "__main__":
    main()

"""The service is killed again and again under a load of events: what it acknowledged is there, once."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from made_bundles import pack
from made_events import SECRET
from made_service import Service, exchange, kill_group, request, serving

SENDERS, BATCH = 4, 20


class Sender(threading.Thread):
    """Sends batches on one connection until that breaks; a batch without an answer is sent again the next time."""

    def __init__(self, service: Service, number: int, left: dict[int, list[str]], acknowledged: list[str]) -> None:
        super().__init__()
        self._service, self._number, self._left, self._acknowledged = service, number, left, acknowledged
        self.wrong: list[object] = []

    def run(self) -> None:
        try:
            with self._service.connect() as connection:
                while True:
                    batch = self._left.setdefault(self._number, self._next())
                    events = [
                        {
                            "event_id": e,
                            "type": "click",
                            "user_id": e[:9],
                            "station_id": "1",
                            "at": "2026-01-31T12:00:00Z",
                        }
                        for e in batch
                    ]
                    sent = request("POST", "/v1/events", json.dumps({"events": events}).encode())
                    status, _, body = exchange(connection, sent)
                    statuses = {result["status"] for result in json.loads(body)["results"]}
                    if status != 202 or not statuses <= {"stored", "duplicate"}:
                        self.wrong.append((status, body))
                        return
                    self._acknowledged += batch
                    del self._left[self._number]
        except OSError:
            return

    def _next(self) -> list[str]:
        first = time.monotonic_ns()
        return [f"sender {self._number} {first + n}" for n in range(BATCH)]


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.soak)])
def test_no_acknowledged_event_is_lost_or_doubled_when_the_service_is_killed(tmp_path: Path, kills: int) -> None:
    pack(tmp_path / "b")
    (tmp_path / "events.secret").write_text(bytes(range(32)).hex())
    kept = ("--events", f"sqlite:///{tmp_path / 'events.sqlite'}", "--events-secret", str(tmp_path / "events.secret"))
    left: dict[int, list[str]] = {}
    acknowledged: list[str] = []
    for kill in range(kills):
        before = len(acknowledged)
        with serving(tmp_path / "b", "--workers", "2", "--drain-delay", "0", *kept) as service:
            senders = [Sender(service, number, left, acknowledged) for number in range(SENDERS)]
            for sender in senders:
                sender.start()
            time.sleep(0.3 + 0.05 * kill)
            kill_group(service.process.pid)
            for sender in senders:
                sender.join()
        assert [sender.wrong for sender in senders] == [[]] * SENDERS
        assert len(acknowledged) > before
    with closing(sqlite3.connect(tmp_path / "events.sqlite")) as connection:
        stored = [event_id for (event_id,) in connection.execute("SELECT event_id FROM events")]
    known = {SECRET.event_id(event) for event in acknowledged}
    unanswered = {SECRET.event_id(event) for batch in left.values() for event in batch}
    assert len(stored) == len(set(stored))
    assert known <= set(stored) <= known | unanswered
    assert len(known) == len(acknowledged)

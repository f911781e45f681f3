"""What the store keeps reaches the sink, each row at least once and in the order of its user."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from event_store_contract import put
from made_events import NOON, SECRET, click, clicks, shown
from stand_in_firehose import Firehose, firehose

from firstspin.events.database import Database
from firstspin.events.erasure import erase
from firstspin.events.firehose import FirehoseSink, ForwardTally, forward, send
from firstspin.events.schema import Exposure, candidates_json, scoped
from firstspin.events.store import open_database

boto3 = pytest.importorskip("boto3", reason="needs the extra 'aws'")
config = pytest.importorskip("botocore.config")

STREAMS = {"exposures": "lake-exposures", "events": "lake-events"}


@pytest.fixture
def server() -> Iterator[Firehose]:
    with firehose() as server:
        yield server


@pytest.fixture
def sink(server: Firehose) -> Iterator[FirehoseSink]:
    client = boto3.client(
        "firehose",
        endpoint_url=server.url,
        region_name="eu-west-1",
        aws_access_key_id="none",
        aws_secret_access_key="none",
        config=config.Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}),
    )
    yield FirehoseSink(client, STREAMS, scope="lake")
    client.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path}/events.sqlite", SECRET)
    yield database
    database.close()


class Waits:
    """A pause that takes no time: it writes down how long it should have been, and ends when all is sent."""

    def __init__(self, most: int = 1000) -> None:
        self.seconds: list[float] = []
        self.most = most

    def __call__(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        return seconds == IDLE or len(self.seconds) == self.most


IDLE = 12345.0


def drain(database: Database, sink: FirehoseSink, waits: Waits | None = None) -> ForwardTally:
    return forward(database, sink, rng=np.random.default_rng(5), pause=waits or Waits(), idle=IDLE)


def arrived(server: Firehose) -> list[str]:
    return [line["event_id"] for line in server.lines["lake-events"]]


def test_a_row_arrives_as_a_line_of_json_without_the_stores_own_hash(
    server: Firehose, sink: FirehoseSink, database: Database
) -> None:
    put(database, [shown()], [click("e", minutes=1.5)])
    assert drain(database, sink) == ForwardTally(sent=2)
    user_key = scoped(SECRET.user_hash("anna"), "lake")
    assert server.lines["lake-exposures"] == [
        {
            "exposure_id": shown().exposure_id.hex(),
            "experiment": "spring",
            "user_key": user_key,
            "arm": "model",
            "propensity": 0.5,
            "decided_at": "2026-01-31T12:00:00Z",
            "source": "model",
            "model": "3f2a9c1b",
            "station_id": "17",
            "candidates": {"model": ["17", "4"], "rule": ["9"]},
            "carousel": None,
            "relevance": None,
            "listens": None,
            "schema": 2,
        }
    ]
    assert server.lines["lake-events"] == [
        {
            "event_id": click("e").event_id.hex(),
            "type": "click",
            "user_key": user_key,
            "station_id": "17",
            "at": "2026-01-31T12:01:30Z",
            "received_at": "2026-01-31T12:01:30Z",
            "seconds": None,
            "flag": "",
            "schema": 1,
        }
    ]
    assert SECRET.user_hash("anna").hex() not in str(server.lines)


def test_what_was_taken_is_not_sent_again(server: Firehose, sink: FirehoseSink, database: Database) -> None:
    put(database, [], clicks("a", 3))
    assert drain(database, sink) == ForwardTally(sent=3)
    put(database, [], clicks("a", 5))
    assert drain(database, sink) == ForwardTally(sent=2)
    assert arrived(server) == [event.event_id.hex() for event in clicks("a", 5)]


def test_of_a_call_that_failed_in_part_only_the_failed_are_sent_again_in_order(
    server: Firehose, sink: FirehoseSink, database: Database
) -> None:
    rng = random.Random(3)
    server.refuses = lambda record: rng.random() < 0.4  # noqa: ARG005
    events = [click(f"{turn} of {user}", f"user {user}") for turn in range(20) for user in range(60)]
    for start in range(0, len(events), 100):
        put(database, [], events[start : start + 100])
        send(database, sink, "events")
    assert drain(database, sink).failed > 0
    assert len(arrived(server)) == len(events) == len(set(arrived(server)))
    for user in range(60):
        mine = [click(f"{turn} of {user}").event_id.hex() for turn in range(20)]
        assert [event_id for event_id in arrived(server) if event_id in mine] == mine


@pytest.mark.parametrize("error", [(503, "ServiceUnavailableException"), (400, "ResourceNotFoundException"), (500, "")])
def test_a_sink_that_takes_nothing_costs_nothing_but_time(
    server: Firehose, sink: FirehoseSink, database: Database, error: tuple[int, str]
) -> None:
    put(database, [], clicks("a", 7))
    server.error = error
    waits = Waits(most=12)
    assert drain(database, sink, waits) == ForwardTally(failed=12 * 7)
    ceilings = [min(60.0, 0.1 * 2**failures) for failures in range(1, 13)]
    assert all(0 <= wait <= ceiling for wait, ceiling in zip(waits.seconds, ceilings, strict=True))
    assert max(waits.seconds) > 5
    server.error = None
    assert drain(database, sink) == ForwardTally(sent=7)
    assert len(arrived(server)) == 7


def test_the_backlog_of_a_sink_that_is_gone_outlives_the_process(sink: FirehoseSink, tmp_path: Path) -> None:
    path = f"sqlite:///{tmp_path}/events.sqlite"
    with firehose() as gone:
        nowhere = boto3.client(
            "firehose",
            endpoint_url=gone.url,
            region_name="eu-west-1",
            aws_access_key_id="none",
            aws_secret_access_key="none",
            config=config.Config(connect_timeout=1, retries={"total_max_attempts": 1}),
        )
    first = open_database(path, SECRET)
    put(first, [], clicks("a", 700))
    assert send(first, FirehoseSink(nowhere, STREAMS, "lake"), "events") == ForwardTally(failed=700)
    nowhere.close()
    first.close()
    second = open_database(path, SECRET)
    assert drain(second, sink) == ForwardTally(sent=700)
    second.close()


def test_an_answer_that_is_lost_sends_twice_and_the_id_tells(
    server: Firehose, sink: FirehoseSink, database: Database
) -> None:
    put(database, [], clicks("a", 5))
    server.forgets_to_answer = True
    assert send(database, sink, "events") == ForwardTally(failed=5)
    server.forgets_to_answer = False
    assert drain(database, sink) == ForwardTally(sent=5)
    assert len(arrived(server)) == 10
    assert list(dict.fromkeys(arrived(server))) == [event.event_id.hex() for event in clicks("a", 5)]


def wide(user_id: str, turn: int) -> Exposure:
    """An exposure of about 40,000 bytes."""
    exposure = shown(user_id, f"experiment {turn}")
    return type(exposure)(
        **{name: getattr(exposure, name) for name in exposure.__struct_fields__ if name != "candidates"},
        candidates=candidates_json({"model": ["x" * 200] * 100, "rule": ["y" * 200] * 100}),
    )


def test_calls_and_records_keep_to_the_limits(server: Firehose, sink: FirehoseSink, database: Database) -> None:
    put(database, [wide("user 0", turn) for turn in range(30)], [])  # more than a record can hold
    put(database, [wide(f"user {user}", turn) for turn in range(30) for user in range(1, 6)], [])
    put(database, [], [click(f"e{user}", f"user {user}") for user in range(1200)])
    assert drain(database, sink) == ForwardTally(sent=180 + 1200)
    assert max(len(record) for call in server.calls for record in call) > 900_000
    assert max(sum(map(len, call)) for call in server.calls) > 3_900_000
    assert max(len(call) for call in server.calls) == 500
    for user in range(6):
        key = scoped(SECRET.user_hash(f"user {user}"), "lake")
        turns = [line["experiment"] for line in server.lines["lake-exposures"] if line["user_key"] == key]
        assert turns == [f"experiment {turn}" for turn in range(30)]


def test_what_was_erased_before_it_was_sent_never_goes_out(
    server: Firehose, sink: FirehoseSink, database: Database
) -> None:
    put(database, [], [click("sent", "anna")])
    drain(database, sink)
    put(database, [], [click("not sent", "anna"), click("other", "bert")])
    assert erase(database, SECRET, ["anna"], now=NOON).deleted.sent == 1
    drain(database, sink)
    assert arrived(server) == [click("sent").event_id.hex(), click("other").event_id.hex()]


def test_a_database_that_is_held_is_waited_for(server: Firehose, sink: FirehoseSink, database: Database) -> None:
    put(database, [], clicks("a", 2))
    waits = Waits(most=3)
    database.close()
    away = open_database("sqlite:////nowhere/events.sqlite", SECRET)
    assert forward(away, sink, rng=np.random.default_rng(1), pause=waits, idle=IDLE) == ForwardTally(failed=3)
    assert server.calls == []

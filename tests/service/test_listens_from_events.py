"""A user's own listens, from the event store, are evidence for the next answer: in time, or not at all."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command_line import firstspin
from made_app import NOW, ask, new_app
from made_bundles import pack
from made_experiments import HALVES, SECRET
from made_service import QUICK, serving, until

from firstspin.events.erasure import erase
from firstspin.events.recent_listens import RecentListens
from firstspin.events.store import EventStore, open_database
from firstspin.experiment.assign import assign
from firstspin.models.evidence.scoring import NO_EVIDENCE
from firstspin.models.prediction_sets import PredictionSets
from firstspin.records import Listen, Listens, Registration
from firstspin.service.app import App
from firstspin.service.exposures import ExposureLog
from firstspin.service.http.messages import Reply, Request
from firstspin.service.process.worker import load
from firstspin.service.served_model import ServedModel
from firstspin.serving import bundle
from firstspin.serving.bundle import Bundle
from firstspin.serving.content import recommendation
from firstspin.serving.lookups import FAILURES, UserLookups
from firstspin.serving.policy import PolicySettings, decide

SETTINGS = PolicySettings(listens_from_events=True)
HEARD = (Listen("1", 300.0), Listen("nowhere", 9.0), Listen("5", 60.0))


class Memory:
    """A store of listens that counts the lookups, and answers while it is not held."""

    def __init__(self) -> None:
        self.asked = 0
        self.problem: Exception | None = None
        self.free = threading.Event()
        self.free.set()

    def get(self, user_id: str) -> Listens | None:
        self.asked += 1
        self.free.wait(20)
        if self.problem:
            raise self.problem
        return None if user_id.startswith("nobody") else HEARD


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'events.sqlite'}"


@pytest.fixture
def store(url: str) -> Iterator[EventStore]:
    opened = EventStore(open_database(url, SECRET, listens_by_user=True))
    until(lambda: opened.health().ready)
    yield opened
    opened.close()


@pytest.fixture
def reader(url: str) -> Iterator[RecentListens]:
    with closing(
        RecentListens(partial(open_database, url, SECRET, read_only=True, listens_by_user=True), SECRET)
    ) as it:
        yield it


def app_with(folder: Path, lookups: Memory | RecentListens | UserLookups[Listens], **options: Any) -> App:
    listens = lookups if isinstance(lookups, UserLookups) else UserLookups(lambda: lookups, lambda: 0, budget=20)
    made = new_app(listens=listens, **{"policy": SETTINGS} | options)
    made.serve(load(folder))
    return made


def body(user: str, **fields: object) -> bytes:
    return json.dumps({"user_id": user, "genres": ["Pop"]} | fields).encode()


def answer(app: App, user: str, **fields: object) -> dict[str, Any]:
    reply = ask(app, "POST", "/v1/recommendations", body(user, **fields))
    assert reply.status == 200, reply.body
    return json.loads(reply.body)  # type: ignore[no-any-return]


def lookups(app: App) -> dict[str, float]:
    lines = [line for line in ask(app, "GET", "/metrics").body.decode().splitlines() if "listen_lookups_total{" in line]
    return {line.split('"')[1]: count for line in lines if (count := float(line.split()[-1]))}


def expected(loaded: Bundle, registration: Registration, settings: PolicySettings = SETTINGS) -> dict[str, Any]:
    decision = decide(registration, "anna", loaded, None, settings)
    return json.loads(msgspec.json.encode(recommendation(registration, decision, loaded)))  # type: ignore[no-any-return]


def listened(event_id: str, user: str, station: str, seconds: float, minute: int = 0) -> dict[str, object]:
    of_user = {"event_id": event_id, "type": "listen", "user_id": user, "station_id": station}
    return of_user | {"at": f"2026-01-31T11:{minute:02}:00Z", "seconds": seconds}


def test_events_of_a_user_move_the_next_answer_as_listens_of_the_request_would(
    folder: Path, store: EventStore, reader: RecentListens
) -> None:
    app, loaded = app_with(folder, reader, ledger=ExposureLog(store, SECRET, lambda: NOW)), bundle.load(folder)
    before = answer(app, "anna")
    assert before == expected(loaded, Registration(genres=("Pop",)))
    events = [listened(str(n), "anna", one.station_id, one.seconds or 0.0, n) for n, one in enumerate(HEARD)]
    sent = json.dumps({"events": [*events[::-1], listened("other", "berta", "3", 60.0)]}).encode()
    assert ask(app, "POST", "/v1/events", sent).status == 202
    moved = answer(app, "anna")
    assert moved == expected(loaded, Registration(genres=("Pop",), listens=HEARD))
    assert moved["listens"] == 2
    assert moved["genres"] != before["genres"]
    of_request = [{"station_id": one.station_id, "seconds": one.seconds} for one in HEARD]
    assert answer(app, "nobody", listens=of_request) == moved
    assert lookups(app) == {"none": 1, "found": 1}  # none for a request with listens of its own
    assert answer(app, "anna", listens=[]) == moved


def test_a_user_is_forgotten_with_the_erasure(folder: Path, url: str, store: EventStore, reader: RecentListens) -> None:
    app = app_with(folder, reader, ledger=ExposureLog(store, SECRET, lambda: NOW))
    before, sent = answer(app, "anna"), json.dumps({"events": [listened("1", "anna", "1", 300.0)]}).encode()
    assert ask(app, "POST", "/v1/events", sent).status == 202
    assert answer(app, "anna") != before
    with closing(open_database(url, SECRET)) as database:
        erase(database, SECRET, ["anna"], now=NOW)
    assert answer(app, "anna") == before
    again = json.dumps({"events": [listened("2", "anna", "1", 300.0)]}).encode()
    assert b"erased" in ask(app, "POST", "/v1/events", again).body
    assert answer(app, "anna") == before


def test_nothing_is_looked_up_where_it_may_not_or_can_not_be_used(folder: Path, memory: Memory) -> None:
    app = app_with(folder, memory)
    young = answer(app, "anna", age=9)
    assert young["source"] == "under-age"
    assert "listens" not in young
    refusing = app_with(folder, memory, policy=PolicySettings(refuse_under_age=True, listens_from_events=True))
    assert ask(refusing, "POST", "/v1/recommendations", body("anna", age=9)).status == 403
    assert ask(app, "POST", "/v1/recommendations", body("anna", age=-1)).status == 422
    assert ask(app, "POST", "/v1/recommendations", b"{}").status == 422
    assert ask(app, "POST", "/invocations", b'{"genres":["Pop"]}').status == 200
    several = b'{"instances":[' + body("anna") + b"]}"
    assert "listens" not in json.loads(ask(app, "POST", "/v1/recommendations", several).body)["predictions"][0]
    without_model = new_app(listens=UserLookups(lambda: memory, lambda: 0), policy=SETTINGS, without_model=True)
    assert answer(without_model, "anna")["source"] == "no-model"
    assert "listens" not in answer(app_with(folder, memory, policy=PolicySettings()), "anna")
    assert memory.asked == 0


def test_both_arms_of_an_experiment_are_looked_up_and_only_the_model_is_moved(
    tmp_path: Path, url: str, store: EventStore, memory: Memory
) -> None:
    pack(tmp_path / "with rows", rows=PredictionSets(0.9, 800_000))
    policy = replace(SETTINGS, calibrated_rows=True)
    app = app_with(
        tmp_path / "with rows", memory, ledger=ExposureLog(store, SECRET, lambda: NOW, HALVES), policy=policy
    )
    users = [*map(str, range(10)), *(f"nobody{number}" for number in range(10))]
    arms = {user: assignment.arm for user in users if (assignment := assign(HALVES.split, user))}
    assert set(arms.values()) == {"rule", "model"}
    for user, arm in arms.items():
        given = answer(app, user)
        assert ("listens" in given) == (arm == "model" and user.isdigit())
        assert ("rows" in given) == (arm == "model" and not user.isdigit())  # their guarantee holds without listens
    assert memory.asked == len(arms)
    store.close()
    with closing(open_database(url, SECRET)) as database, database.snapshot() as session:
        rows = session.run("SELECT DISTINCT arm, listens FROM exposures ORDER BY 1, 2")
    assert set(rows) == {("model", 2), ("model", None), ("rule", None)}


def test_a_late_store_a_full_queue_and_an_open_circuit_are_answered_without_and_counted(
    folder: Path, memory: Memory
) -> None:
    alone = expected(bundle.load(folder), Registration(genres=("Pop",)))
    slow = UserLookups(lambda: memory, lambda: 0, budget=0.2, threads=1, queue=2)
    app = app_with(folder, slow)
    memory.free.clear()

    async def at_once() -> list[Reply]:
        asked = [Request("POST", "/v1/recommendations", b"", {}, body("anna")) for _ in range(10)]
        begun = app(asked)
        return list(await asyncio.gather(*[one for one in begun if not isinstance(one, Reply)]))

    assert [json.loads(reply.body) for reply in asyncio.run(at_once())] == [alone] * 10
    assert lookups(app) == {"late": 3, "full": 7}
    for _ in range(FAILURES - 3 + 4):
        assert answer(app, "anna") == alone
    assert lookups(app) == {"late": FAILURES, "full": 7, "paused": 4}
    assert memory.asked == 1  # the first one hangs; those behind it were withdrawn
    memory.free.set()


@pytest.mark.parametrize(("problem", "outcome"), [(OSError("down"), "failed"), (ValueError(), "malformed")])
def test_a_store_that_fails_leaves_the_answer_without_listens(
    folder: Path, memory: Memory, problem: Exception, outcome: str
) -> None:
    app = app_with(folder, memory)
    memory.problem = problem
    assert answer(app, "anna") == expected(bundle.load(folder), Registration(genres=("Pop",)))
    assert lookups(app) == {outcome: 1}


def test_a_model_without_use_for_listens_needs_no_lookup(folder: Path, memory: Memory) -> None:
    app = app_with(folder, memory)
    app.serve(ServedModel.of(replace(bundle.load(folder), evidence=NO_EVIDENCE)))
    assert "listens" not in answer(app, "anna")
    assert memory.asked == 0


def test_a_service_uses_what_its_users_listened_to_until_they_are_erased(folder: Path, tmp_path: Path) -> None:
    events, secret = f"sqlite:///{tmp_path / 'events.sqlite'}", tmp_path / "secret"
    options = ("--events", events, "--events-secret", str(secret), "--listens-from-events")
    with serving(folder, *options, *QUICK) as service:

        def ask_service() -> dict[str, Any]:
            return json.loads(service.ask("POST", "/v1/recommendations", body("anna"))[2])  # type: ignore[no-any-return]

        before = ask_service()
        sent = json.dumps({"events": [listened("1", "anna", "1", 300.0)]}).encode()
        until(lambda: service.ask("POST", "/v1/events", sent)[0] == 202)
        until(lambda: ask_service().get("listens") == 1)
        done = firstspin("events", "erase", "anna", "--events", events, "--events-secret", secret)
        assert done.returncode == 0, done
        assert ask_service() == before

"""The answers of batch, read back by the service: before the model's or in its place, in time or not at all."""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from library import Recommender
from made_app import NOW, Broken, ask, new_app
from made_experiments import HALVES, SECRET
from made_service import QUICK, serving

from firstspin.events.store import open_store
from firstspin.experiment.assign import assign
from firstspin.records import InputError, Ranking, Registration, StoredAnswer
from firstspin.score import score
from firstspin.service.app import App
from firstspin.service.exposures import ExposureLog
from firstspin.service.process.worker import load
from firstspin.service.served_model import ServedModel
from firstspin.serving import bundle
from firstspin.serving.lookups import FAILURES, PAUSE, UserLookups
from firstspin.serving.policy import PolicySettings
from firstspin.serving.score_stores import MalformedRow

BATCH = Ranking(("Classical", "Jazz"), (0.6, 0.4), "batch")
HASTY = 0.02


class Memory:
    """A store of batch answers, in what mood it is."""

    def __init__(self, **answers: StoredAnswer) -> None:
        self.answers = answers
        self.asked = 0
        self.problem: Exception | None = None
        self.held = threading.Event()
        self.held.set()

    def get(self, user_id: str) -> StoredAnswer | None:
        self.asked += 1
        self.held.wait(5)
        if self.problem:
            raise self.problem
        return self.answers.get(user_id)


@pytest.fixture
def memory(folder: Path) -> Memory:
    return Memory(u1=StoredAnswer(bundle.load(folder).id, BATCH), u2=StoredAnswer("another0", BATCH))


def app_with(folder: Path, store: Memory, *, first: bool = True, min_age: int = 13, **policy: object) -> App:
    settings = PolicySettings(min_age, stored_first=first)
    made = new_app(stored=UserLookups(lambda: store, lambda: 0, budget=5), policy=settings, **policy)
    made.serve(load(folder))
    return made


def break_model(app: App, folder: Path) -> None:
    loaded = bundle.load(folder)
    broken = replace(loaded, predictor=Broken(loaded.predictor.encoder))  # type: ignore[arg-type]
    app.serve(ServedModel.of(broken))


def source(app: App, user: str, **told: object) -> str:
    reply = ask(app, "POST", "/v1/recommendations", msgspec.json.encode({"user_id": user} | told))
    assert reply.status == 200, reply.body
    return str(json.loads(reply.body)["source"])


def counted(app: App) -> dict[str, float]:
    lines = [line for line in ask(app, "GET", "/metrics").body.decode().splitlines() if "kept_answers_total{" in line]
    return {line.split('"')[1]: count for line in lines if (count := float(line.split()[-1]))}


def test_a_known_user_is_answered_by_batch_with_stations_and_all_others_by_the_model(
    folder: Path, memory: Memory
) -> None:
    app = app_with(folder, memory)
    reply = json.loads(ask(app, "POST", "/v1/recommendations", b'{"user_id":"u1","genres":["Rock"]}').body)
    expected = Recommender(bundle.load(folder)).fill(Registration(genres=("Rock",)), BATCH)
    assert reply == json.loads(msgspec.json.encode(expected))
    assert source(app, "nobody", age=31) == "model"
    assert counted(app) == {"found": 1, "none": 1}


def test_as_a_fallback_it_is_asked_only_where_the_model_fails(folder: Path, memory: Memory) -> None:
    app = app_with(folder, memory, first=False)
    assert (source(app, "u1", age=31), memory.asked) == ("model", 0)
    break_model(app, folder)
    assert source(app, "u1", age=31) == "batch"
    assert source(app, "nobody", age=31) == "rule"


def test_before_there_is_a_model_who_is_known_gets_genres_and_no_station(memory: Memory) -> None:
    app = new_app(without_model=True, stored=UserLookups(lambda: memory, lambda: 0, budget=5))
    reply = json.loads(ask(app, "POST", "/v1/recommendations", b'{"user_id":"u2"}').body)
    assert (reply["model"], reply["source"], reply["genres"][0]["genre"]) == ("another0", "batch", "Classical")
    assert "stations" not in reply
    assert source(app, "nobody") == "no-model"


def test_who_is_under_age_gets_nothing_that_may_be_made_of_age_and_gender(folder: Path, memory: Memory) -> None:
    made = app_with(folder, memory, min_age=16)
    assert source(made, "u1", age=14) == "under-age"
    assert (source(made, "u1", age=16), memory.asked) == ("batch", 1)


def test_case_33_what_another_bundle_answered_and_what_nobody_can_read_is_counted_and_left_aside(
    folder: Path, memory: Memory
) -> None:
    app = app_with(folder, memory)
    assert source(app, "u2", age=31) == "model"
    memory.problem = MalformedRow()
    for _ in range(FAILURES + 1):
        assert source(app, "u1", age=31) == "model"
    assert counted(app) == {"other-version": 1, "malformed": FAILURES + 1}  # a bad row is no reason for a pause


def test_who_is_in_the_experiment_is_answered_by_the_arm_and_several_at_once_by_the_model(
    folder: Path, memory: Memory, tmp_path: Path
) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET)
    app = app_with(folder, memory, ledger=ExposureLog(store, SECRET, lambda: NOW, HALVES))
    assert assign(HALVES.split, "u1") is not None
    assert source(app, "u1", age=31) in ("model", "rule")
    store.close()
    several = ask(app_with(folder, memory), "POST", "/v1/recommendations", b'{"instances":[{"user_id":"u1"}]}')
    assert json.loads(several.body)["predictions"][0]["source"] != "batch"
    assert memory.asked == 0


def test_invocations_name_no_user_and_ask_nobody(folder: Path, memory: Memory) -> None:
    assert json.loads(ask(app_with(folder, memory), "POST", "/invocations", b'{"age":31}').body)["source"] == "model"
    assert memory.asked == 0


def test_case_32_a_slow_store_is_given_up_in_time_then_left_in_peace_and_then_asked_again(memory: Memory) -> None:
    now = 0
    store = UserLookups(lambda: memory, lambda: now, budget=HASTY)

    def outcomes(times: int) -> list[str]:
        async def look() -> list[str]:
            return [(await store.get("u1"))[1] for _ in range(times)]

        return asyncio.run(look())

    memory.held.clear()
    assert outcomes(FAILURES + 2) == ["late"] * FAILURES + ["paused"] * 2
    now = PAUSE  # still down: one more look is enough to know
    assert outcomes(2) == ["late", "paused"]
    memory.held.set()
    now = 3 * PAUSE
    store._budget = 5
    assert outcomes(3) == ["found"] * 3


def test_a_store_that_cannot_be_opened_is_tried_again(memory: Memory) -> None:
    attempts = iter([InputError("no such table"), None])

    def opening() -> Memory:
        if problem := next(attempts):
            raise problem
        return memory

    store = UserLookups(opening, lambda: 0, budget=5)

    async def look() -> list[str]:
        return [(await store.get("u1"))[1] for _ in range(2)]

    assert asyncio.run(look()) == ["failed", "found"]


def test_from_score_to_the_service_and_a_later_run_is_seen_at_once(folder: Path, tmp_path: Path) -> None:
    people, scores = tmp_path / "registrations.csv", tmp_path / "scores.db"
    with people.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("user_id", "registered_at", "age", "gender", "country", "genres"))
        rows.writerow(("007", "2026-01-01T00:00:00Z", 31, "", "", "Rock"))
    with serving(folder, "--scores", f"sqlite:{scores}", "--scores-first", "--scores-seconds", "5", *QUICK) as service:
        asked = b'{"user_id":"007","age":31,"genres":["Rock"]}'

        def answer() -> dict[str, object]:
            told: dict[str, object] = json.loads(service.ask("POST", "/v1/recommendations", asked)[2])
            return told

        assert answer()["source"] == "model"
        score(folder, people, f"sqlite:{scores}", now=datetime(2026, 11, 25, tzinfo=UTC))
        by_batch = answer()
        assert by_batch["source"] == "batch"
        assert by_batch | {"source": "model"} == service.recommend(age=31, genres=["Rock"])


def test_an_address_that_is_none_is_told_at_the_start(folder: Path) -> None:
    words = [sys.executable, "-m", "firstspin.service", "--bundle", str(folder), "--scores", "redis:scores"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "invalid store URL 'redis:scores'; expected sqlite:PATH or dynamodb:TABLE" in done.stderr

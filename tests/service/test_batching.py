"""Requests of one turn of the event loop: one batch a bundle whatever their route, answers as if alone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from made_app import NOW, new_app
from made_experiments import HALVES, SECRET

from firstspin.events.store import EventStore, open_database, open_store
from firstspin.models.predictor import Array, Scorer, State
from firstspin.service.app import App
from firstspin.service.exposures import ExposureLog
from firstspin.service.http.messages import Reply, Request
from firstspin.service.served_model import ServedModel
from firstspin.serving import bundle

REGISTRATIONS: list[dict[str, object]] = [
    {"age": 45, "genres": ["Rock"]},
    {"age": 31, "gender": "female", "country": "SE"},
    {},
    {"age": 9, "genres": ["Jazz"]},
    {"genres": ["Rock", "Jazz"]},
    {"age": 61, "genres": ["nothing known"]},
    {"age": 19, "country": "XX", "genres": ["Jazz", "Rock"]},
]
USERS = [f"user-{n}" for n in range(6)]  # of both arms


@dataclass
class Counting:
    """The bundle's scorer, and the sizes of the batches that it scored. Fails for `broken` rows."""

    scorer: Scorer
    broken: Callable[[Array], bool] = lambda _: False
    batches: list[int] = field(default_factory=list)
    kind = "counting"

    def scores(self, rows: Array) -> Array:
        self.batches.append(len(rows))
        if self.broken(rows):
            raise FloatingPointError("no scores")
        return self.scorer.scores(rows)

    def state(self) -> State:
        return self.scorer.state()

    def check(self, columns: int, genres: int) -> None:
        self.scorer.check(columns, genres)


def asked(route: str, registration: dict[str, object]) -> Request:
    return Request("POST", route, b"", {b"content-type": b"application/json"}, json.dumps(registration).encode())


def requests() -> list[Request]:
    """Seven of `/invocations`; in between some of `/v1`, one of them under age."""
    made = [asked("/invocations", registration) for registration in REGISTRATIONS]
    for position, user in enumerate(USERS):
        of_user = asked("/v1/recommendations", {"user_id": user, **REGISTRATIONS[position]})
        made.insert(2 * position, of_user)
    return made


@pytest.fixture
def scorer(folder: Path) -> Counting:
    return Counting(bundle.load(folder).predictor.scorer)


@pytest.fixture
def served(folder: Path, scorer: Counting) -> ServedModel:
    loaded = bundle.load(folder)
    return ServedModel.of(replace(loaded, predictor=replace(loaded.predictor, scorer=scorer)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    opened = open_store(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET)
    yield opened
    opened.close()


def app_with(store: EventStore, served: ServedModel) -> App:
    app = new_app(ledger=ExposureLog(store, SECRET, lambda: NOW, HALVES))
    app.serve(served)
    return app


def replies(app: App, together: list[Request]) -> list[Reply]:
    made = app(together)
    assert all(isinstance(reply, Reply) for reply in made)
    return [reply for reply in made if isinstance(reply, Reply)]


def exposures(tmp_path: Path, store: EventStore) -> list[tuple[object, ...]]:
    store.close()
    columns = "hex(user_hash), arm, source, station_id, candidates"
    with closing(sqlite3.connect(tmp_path / "events.sqlite")) as connection:
        return connection.execute(f"select {columns} from exposures order by 1").fetchall()


def test_seven_invocations_and_one_recommendation_are_one_batch(
    store: EventStore, served: ServedModel, scorer: Counting
) -> None:
    together = [asked("/invocations", {"age": 20 + n}) for n in range(7)]
    together.insert(3, asked("/v1/recommendations", {"user_id": "anna", "age": 45}))
    assert [reply.status for reply in replies(app_with(store, served), together)] == [200] * 8
    assert scorer.batches == [8]


def test_answers_of_a_turn_and_their_exposures_are_those_of_each_request_alone(
    store: EventStore, served: ServedModel, scorer: Counting, tmp_path: Path
) -> None:
    together = replies(app_with(store, served), requests())
    assert scorer.batches == [sum("age" not in one or int(str(one["age"])) >= 13 for one in REGISTRATIONS) + 5]
    rows = exposures(tmp_path, store)
    (tmp_path / "alone").mkdir()
    other = open_store(f"sqlite:///{tmp_path / 'alone' / 'events.sqlite'}", SECRET)
    alone = app_with(other, served)
    assert together == [reply for request in requests() for reply in replies(alone, [request])]
    assert rows == exposures(tmp_path / "alone", other)
    recorded = {
        SECRET.user_hash(user).hex().upper() for n, user in enumerate(USERS) if REGISTRATIONS[n].get("age") != 9
    }
    assert {row[0] for row in rows} == recorded
    assert {row[1] for row in rows} == {"rule", "model"}


def test_where_the_model_fails_for_one_the_others_of_its_turn_are_answered_by_it(
    store: EventStore, served: ServedModel, scorer: Counting, tmp_path: Path
) -> None:
    app = app_with(store, served)
    expected = replies(app, requests())
    age = served.bundle.predictor.encoder.columns.index("age")  # type: ignore[union-attr]
    scorer.broken = lambda rows: bool(np.any(rows[:, age] == 61))
    sources = [json.loads(reply.body)["source"] for reply in replies(app, requests())]
    old = [json.loads(reply.body)["source"] for reply in expected]
    changed = [n for n, (before, after) in enumerate(zip(old, sources, strict=True)) if before != after]
    assert {sources[n] for n in changed} == {"rule"}
    assert "rule-arm" in sources
    assert all(b'"age": 61' in requests()[n].body for n in changed)
    assert [reply.status for reply in expected] == [200] * len(expected)
    assert len(exposures(tmp_path, store)) == 5  # asked twice, shown the same


def test_while_the_event_store_is_down_each_request_gets_the_same_answer(
    store: EventStore, served: ServedModel, tmp_path: Path
) -> None:
    expected = replies(app_with(store, served), requests())
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "events.sqlite").mkdir()  # a folder in the file's place
    down = EventStore(open_database(f"sqlite:///{tmp_path / 'down' / 'events.sqlite'}", SECRET))
    assert replies(app_with(down, served), requests()) == expected
    assert down.close(2.0).dropped_exposures == 5


def test_an_exposure_that_can_not_be_made_is_dropped_and_counted_and_nothing_else(
    store: EventStore, served: ServedModel, tmp_path: Path
) -> None:
    expected = replies(app_with(store, served), requests())

    class Failing(ExposureLog):
        def exposures(self, user_id: str, *rest: object) -> tuple[object, ...]:  # type: ignore[override]
            if user_id == USERS[1]:
                raise RuntimeError("no exposure")
            return super().exposures(user_id, *rest)  # type: ignore[arg-type]

    (tmp_path / "other").mkdir()
    other = open_store(f"sqlite:///{tmp_path / 'other' / 'events.sqlite'}", SECRET)
    app = new_app(ledger=Failing(other, SECRET, lambda: NOW, HALVES))
    app.serve(served)
    assert replies(app, requests()) == expected
    metrics = replies(app, [Request("GET", "/metrics", b"", {}, b"")])[0].body.decode()
    assert "firstspin_exposures_dropped_total 1.0" in metrics
    answers = [line for line in metrics.splitlines() if line.startswith("firstspin_answers_total")]
    assert sum(float(line.split()[-1]) for line in answers) == len(expected)
    assert len(exposures(tmp_path / "other", other)) == 4

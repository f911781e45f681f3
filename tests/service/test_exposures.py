"""Users of the service: keys, rates, the experiment's arms, and events that are kept or refused."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import msgspec
import pytest
from forked_service import ended
from made_app import NOW, ask, code, new_app
from made_experiments import HALVES, PLAN, SECRET

from firstspin.events.store import EventStore, open_store
from firstspin.experiment.assign import assign
from firstspin.experiment.plan import experiment_key, freeze
from firstspin.records import InputError
from firstspin.service.api_keys import Key, Keys, read_keys
from firstspin.service.app import App, AppOptions, Clock
from firstspin.service.exposures import ExposureLog
from firstspin.service.metrics import SharedMetrics
from firstspin.service.process.worker import load
from firstspin.serving.experiment import running
from firstspin.serving.policy import PolicySettings
from firstspin.serving.refusal import Refusal


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    opened = open_store(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET)
    yield opened
    opened.close()


@pytest.fixture
def app(folder: Path, store: EventStore) -> App:
    made = new_app(ledger=ExposureLog(store, SECRET, lambda: NOW, HALVES))
    made.serve(load(folder))
    return made


def recommend(app: App, **told: object) -> dict[str, object]:
    reply = ask(app, "POST", "/v1/recommendations", json.dumps(told).encode())
    assert reply.status == 200, reply.body
    return json.loads(reply.body)  # type: ignore[no-any-return]


def exposures(tmp_path: Path, store: EventStore) -> list[dict[str, object]]:
    store.close()
    with closing(sqlite3.connect(tmp_path / "events.sqlite")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("select * from exposures")]


def user_of(arm: str) -> str:
    return next(u for u in map(str, range(100)) if getattr(assign(HALVES.split, u), "arm", "") == arm)


def test_where_the_plan_says_so_an_answer_names_experiment_and_arm(folder: Path, store: EventStore) -> None:
    open_plan = running(msgspec.structs.replace(PLAN, name_arm=True))
    app = new_app(ledger=ExposureLog(store, SECRET, lambda: NOW, open_plan))
    app.serve(load(folder))
    users = [str(number) for number in range(8)]
    arms = {user: assignment.arm for user in users if (assignment := assign(open_plan.split, user))}
    assert set(arms.values()) == {"model", "rule"}
    body = {"instances": [{"user_id": user, "age": 45, "genres": ["Rock"]} for user in users]}
    several = ask(app, "POST", "/v1/recommendations", json.dumps(body).encode())
    for user, answer in zip(users, json.loads(several.body)["predictions"], strict=True):
        assert (answer["experiment"], answer["arm"]) == (open_plan.key, arms[user])
        assert recommend(app, user_id=user, age=45, genres=["Rock"]) == answer
    assert "arm" not in recommend(app, user_id=users[0], age=9)
    assert b"experiment" not in ask(app, "POST", "/invocations", b'{"age": 45}').body


def test_each_user_is_answered_by_the_arm_and_the_exposure_is_kept(app: App, store: EventStore, tmp_path: Path) -> None:
    by_model = recommend(app, user_id=user_of("model"), age=45, genres=["Rock"])
    by_rule = recommend(app, user_id=user_of("rule"), age=45, genres=["Rock"])
    assert (by_model["source"], by_rule["source"]) == ("model", "rule-arm")
    assert by_rule.keys() == by_model.keys() == {"model", "source", "genres", "stations", "message", "carousels"}
    assert by_rule["genres"][0]["genre"] == "Rock"  # type: ignore[index]
    kept = exposures(tmp_path, store)
    assert sorted(str(row["arm"]) for row in kept) == ["model", "rule"]
    assert {(row["experiment"], row["propensity"]) for row in kept} == {(experiment_key(PLAN), 0.5)}
    for row in kept:
        would = json.loads(str(row["candidates"]))
        answer = {"model": by_model, "rule": by_rule}[str(row["arm"])]
        assert would[row["arm"]] == [station["station_id"] for station in answer["stations"]]  # type: ignore[attr-defined]
        assert row["station_id"] == would[row["arm"]][0]
    assert not any(name in row for row in kept for name in ("age", "gender", "country", "user_id"))


def test_case_7_of_children_nothing_is_kept(app: App, store: EventStore, tmp_path: Path) -> None:
    for user in range(20):
        assert recommend(app, user_id=str(user), age=12, gender="female")["source"] == "under-age"
    assert exposures(tmp_path, store) == []


def test_case_7_policy_may_refuse_children(folder: Path) -> None:
    app = new_app(policy=PolicySettings(refuse_under_age=True))
    app.serve(load(folder))
    refused = ask(app, "POST", "/invocations", b'{"age":12}')
    assert (refused.status, code(refused)) == (403, "under_age")
    assert ask(app, "POST", "/invocations", b'{"age":13}').status == 200


def test_case_43_a_clock_that_jumps_back_changes_no_arm_no_rate_and_no_time_taken(
    folder: Path, store: EventStore, tmp_path: Path
) -> None:
    today = [NOW]
    tallies = SharedMetrics(1)
    policy = AppOptions(
        keys=Keys((key("app", b"one", rate=1),)), ledger=ExposureLog(store, SECRET, lambda: today[0], HALVES)
    )
    app = App(tallies, tallies.row(0), Clock(count(0, 50_000_000).__next__, lambda: today[0]), policy)
    app.serve(load(folder))
    body = json.dumps({"user_id": user_of("rule"), "age": 45}).encode()
    first = ask(app, "POST", "/v1/recommendations", body, x_api_key="one")
    assert ask(app, "POST", "/v1/recommendations", body, x_api_key="one").status == 429
    today[0] -= timedelta(hours=1)
    while (again := ask(app, "POST", "/v1/recommendations", body, x_api_key="one")).status == 429:
        continue  # rates and times taken go by the other clock, which only ever grows
    assert again.body == first.body
    assert len(exposures(tmp_path, store)) == 1  # the same message to the same user is the same exposure
    assert 0 < tallies.total("firstspin_latency_seconds", "whole", "sum") < 60e9


def test_a_request_about_many_users_counts_as_so_many(folder: Path) -> None:
    keys = Keys((key("app", b"one", rate=10), key("other", b"two", rate=10)))
    now = [0]
    tallies = SharedMetrics(1)
    app = App(tallies, tallies.row(0), Clock(lambda: now[0], lambda: NOW), AppOptions(keys=keys))
    app.serve(load(folder))
    many = b'{"user_id":"1"}\n' * 100

    def status(body: bytes, caller: str = "one") -> int:
        kind = "application/jsonlines"
        return ask(app, "POST", "/v1/recommendations", body, x_api_key=caller, content_type=kind).status

    assert status(many) == 200
    assert status(many[:16]) == 429
    assert status(many[:16], "two") == 200
    now[0] += 9_000_000_000  # 90 of them are paid off
    assert status(many[:16]) == 429
    now[0] += 1_000_000_000
    assert status(many[:16]) == 200


def test_users_need_an_id_and_several_are_answered_in_order(app: App) -> None:
    assert ask(app, "POST", "/v1/recommendations", b"{}").status == 422
    two = ask(app, "POST", "/v1/recommendations", b'{"instances":[{"user_id":"a"},{"user_id":"b"}]}')
    assert len(json.loads(two.body)["predictions"]) == 2
    assert ask(app, "POST", "/v1/recommendations", b"a,31,,,\n", content_type="text/csv").status == 415


CLICK = {"event_id": "e1", "type": "click", "user_id": "u", "station_id": "1", "at": "2026-01-31T12:00:00Z"}


def send(app: App, *events: object) -> tuple[int, list[str]]:
    reply = ask(app, "POST", "/v1/events", json.dumps({"events": events}).encode())
    return reply.status, [result["status"] for result in json.loads(reply.body).get("results", [])]


def test_cases_38_and_40_events_are_kept_once_and_a_bad_one_spoils_no_other(app: App) -> None:
    assert send(app, CLICK, {"event_id": "e2"}, CLICK | {"event_id": "e3"}) == (202, ["stored", "invalid", "stored"])
    assert send(app, CLICK) == (202, ["duplicate"])
    assert send(app) == (202, [])


def test_events_that_are_none_are_refused(app: App, folder: Path) -> None:
    assert ask(app, "POST", "/v1/events", b"[").status == 400
    assert ask(app, "POST", "/v1/events", b"{}", content_type="text/csv").status == 415
    without = new_app()
    without.serve(load(folder))
    assert code(ask(without, "POST", "/v1/events", b'{"events":[]}')) == "events_unavailable"


def test_case_36_events_that_cannot_be_kept_are_503_and_recommendations_go_on(app: App, store: EventStore) -> None:
    store.close()
    reply = ask(app, "POST", "/v1/events", json.dumps({"events": [CLICK]}).encode())
    assert (reply.status, code(reply), reply.headers) == (503, "events_unavailable", b"retry-after: 1\r\n")
    assert recommend(app, user_id=user_of("model"), age=31)


# ---------------------------------------------------------------------------------------------------------------- keys


def key(name: str, token: bytes, **more: object) -> Key:
    return Key(name, hashlib.sha256(token).hexdigest(), **more)  # type: ignore[arg-type]


def test_case_18_keys_are_asked_for_and_told_apart(folder: Path) -> None:
    ended = key("old", b"three", until=datetime(2026, 1, 31, 11, tzinfo=UTC))
    app = new_app(keys=Keys((key("app", b"one"), key("app", b"two"), ended)))
    app.serve(load(folder))
    body = b'{"user_id":"u"}'
    assert ask(app, "POST", "/v1/recommendations", body).status == 401
    assert ask(app, "POST", "/v1/recommendations", body, x_api_key="wrong").status == 401
    assert ask(app, "POST", "/v1/recommendations", body, authorization="Basic one").status == 401
    assert ask(app, "POST", "/v1/recommendations", body, authorization="Bearer three").status == 403
    assert ask(app, "POST", "/v1/recommendations", body, x_api_key="one").status == 200
    assert ask(app, "POST", "/v1/recommendations", body, authorization="bearer two").status == 200
    assert ask(app, "POST", "/invocations", b"{}").status == 200


def test_case_19_a_caller_over_its_rate_is_told_so_and_no_other_is() -> None:
    keys = Keys((key("busy", b"one", rate=2), key("busy", b"two", rate=2), key("quiet", b"three", rate=2)))
    busy, again, quiet = (keys.check({b"x-api-key": token}, NOW) for token in (b"one", b"two", b"three"))
    keys.spend(busy, 0)
    keys.spend(again, 0)
    with pytest.raises(Refusal, match="429"):
        keys.spend(busy, 0)
    keys.spend(quiet, 0)
    keys.spend(busy, 500_000_000)  # half a second later there is one more


def test_admin_calls_need_a_key_of_their_own() -> None:
    keys = Keys((key("app", b"one"), key("ops", b"two", admin=True)))
    with pytest.raises(Refusal, match="403"):
        keys.check({b"x-api-key": b"one"}, NOW, admin=True)
    assert keys.check({b"x-api-key": b"two"}, NOW, admin=True).name == "ops"


def test_files_of_keys_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text('{"keys":[{"name":"app","sha256":"%s"}]}' % ("0" * 64))
    assert [found.name for found in read_keys(path)] == ["app"]
    path.write_text('{"keys":[{"name":"app","sha256":"secret"}]}')
    with pytest.raises(InputError, match="not a file of keys") as refused:
        read_keys(path)
    assert "secret" not in str(refused.value)


def test_both_arms_of_an_a_a_test_get_the_same_answer(folder: Path, store: EventStore, tmp_path: Path) -> None:
    alike = running(msgspec.structs.replace(PLAN, control="model-a", arms={"model-a": 1.0, "model-b": 1.0}))
    app = new_app(ledger=ExposureLog(store, SECRET, lambda: NOW, alike))
    app.serve(load(folder))
    answers = [recommend(app, user_id=str(user), age=45, genres=["Rock"]) for user in range(20)]
    assert all(answer == answers[0] and answer["source"] == "model" for answer in answers)
    kept = exposures(tmp_path, store)
    assert {row["arm"] for row in kept} == {"model-a", "model-b"}
    assert all(would["model-a"] == would["model-b"] for would in (json.loads(str(row["candidates"])) for row in kept))


def test_a_plan_with_an_arm_that_nothing_here_answers_is_not_served() -> None:
    with pytest.raises(InputError, match="arm 'magic': the service answers model, rule, challenger"):
        running(msgspec.structs.replace(PLAN, arms={"rule": 1.0, "magic": 1.0}))


def test_a_plan_changed_after_sealing_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    sealed = tmp_path / "experiment.toml"
    freeze(PLAN, sealed)
    sealed.write_text(sealed.read_text().replace("rule = 1.0", "rule = 9.0"))
    kept = ("--events", f"sqlite:///{tmp_path / 'events.sqlite'}", "--state", tmp_path / "state")
    told = ended(["--bundle", folder, "--port", "0", *kept, "--experiment", sealed])
    assert told.returncode == 1
    assert told.stderr == (
        "firstspin serve: experiment.toml was changed after it was sealed; a changed plan is a new experiment\n"
    )

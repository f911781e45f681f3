"""An experiment behind the Lambda is that of the service: same users, same arms, same answers, same exposures."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from gateway_events import of_user, rest
from library import Recommender
from made_app import NOW, ask, new_app
from made_bundles import pack
from made_experiments import HALVES, PLAN, SECRET
from stand_in_firehose import Firehose, firehose
from stand_in_runtime import Endpoint
from stand_in_runtime import endpoint as running_endpoint

from firstspin.aws.front.gateway import Gateway, from_environment
from firstspin.events.firehose import SCOPE, FirehoseSink, forward
from firstspin.events.schema import scoped
from firstspin.events.store import open_database, open_store
from firstspin.experiment.assign import assign
from firstspin.experiment.plan import freeze
from firstspin.records import InputError
from firstspin.service.exposures import ExposureLog
from firstspin.service.process.worker import load
from firstspin.serving import bundle
from firstspin.serving.bodies import wire
from firstspin.serving.bodies.encodings import encoding_of
from firstspin.serving.bodies.wire import BodyReader
from firstspin.serving.experiment import running

KEY = bytes(32).hex()
STREAM = "lake-exposures"


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Lambda's environment tells boto3."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")


@pytest.fixture
def endpoint(folder: Path) -> Iterator[Endpoint]:
    """The container's answers: it refuses a user_id, as `/invocations` does."""
    answers, reader = Recommender(bundle.load(folder)), BodyReader()

    def answer(body: bytes, content_type: str) -> bytes:
        asked = reader.read(body, encoding_of(content_type))
        return wire.join(map(msgspec.json.encode, map(answers.recommend, asked.registrations)), asked)

    with running_endpoint(answer) as server:
        yield server


@pytest.fixture
def lake() -> Iterator[Firehose]:
    with firehose() as server:
        yield server


@pytest.fixture
def environment(folder: Path, tmp_path: Path) -> dict[str, str]:
    freeze(PLAN, tmp_path / "experiment.toml")
    return {
        "FIRSTSPIN_ENDPOINT": "newcomers",
        "FIRSTSPIN_BUNDLE": str(folder),
        "FIRSTSPIN_BUDGET": "30",
        "FIRSTSPIN_EXPERIMENT": str(tmp_path / "experiment.toml"),
        "FIRSTSPIN_EVENTS_KEY": KEY,
        "FIRSTSPIN_EXPOSURES_STREAM": STREAM,
    }


def made(environment: dict[str, str]) -> Gateway:
    """The Lambda of this environment, at a known time of day."""
    gateway = from_environment(environment)
    assert gateway.exposures is not None
    gateway.exposures = replace(gateway.exposures, now=lambda: NOW)
    return gateway


@pytest.fixture
def gateway(
    endpoint: Endpoint, lake: Firehose, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Gateway:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", endpoint.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_FIREHOSE", lake.url)
    return made(environment)


def of(body: object, content_type: str = "application/json") -> dict[str, Any]:
    """An event of `/v1/recommendations`."""
    text = body if isinstance(body, str) else json.dumps(body)
    return rest(text, path="/recommendations", headers={"Content-Type": content_type})


def answered(reply: dict[str, Any]) -> dict[str, Any]:
    assert reply["statusCode"] == 200, reply
    found: dict[str, Any] = json.loads(reply["body"])
    return found


def user_in(arm: str) -> str:
    return next(u for u in map(str, range(100)) if getattr(assign(HALVES.split, u), "arm", "") == arm)


def dropped(caplog: pytest.LogCaptureFixture) -> list[int]:
    """The numbers of rows that the log says were lost."""
    lines = [json.loads(text) for text in caplog.messages if text.startswith("{")]
    return [line["rows"] for line in lines if line["event"] == "exposures_dropped"]


def people(n: int, start: int = 0) -> list[dict[str, Any]]:
    """Users of all kinds: with and without answers, some under age, in two countries."""
    picks: list[list[str]] = [["Rock"], ["Jazz", "Pop"], [], ["no such genre"]]
    return [
        {
            "user_id": f"u-{i}",
            "age": [None, 12, 31, 64][i % 4],
            "country": ["DE", None][i % 2],
            "genres": picks[i // 4 % 4],
        }
        for i in range(start, start + n)
    ]


@pytest.mark.parametrize(("users", "shown"), [(1_500, 1_200), pytest.param(10_000, 7_575, marks=pytest.mark.soak)])
def test_users_get_the_services_arms_answers_and_exposures(
    gateway: Gateway, lake: Firehose, folder: Path, tmp_path: Path, users: int, shown: int
) -> None:
    address = f"sqlite:///{tmp_path / 'events.sqlite'}"
    store = open_store(address, SECRET)
    app = new_app(ledger=ExposureLog(store, SECRET, lambda: NOW, HALVES))
    app.serve(load(folder))
    for start in range(0, users, 500):
        body = json.dumps({"instances": people(500, start)})
        by_service = ask(app, "POST", "/v1/recommendations", body.encode())
        assert answered(gateway(of(body))) == json.loads(by_service.body)
    for person in people(100, 20_000):
        by_service = ask(app, "POST", "/v1/recommendations", json.dumps(person).encode())
        assert gateway(of(person))["body"].encode() == by_service.body
    store.close()
    by_lambda = {row["exposure_id"]: row for row in lake.lines.pop(STREAM)}
    assert gateway.exposures is not None
    database = open_database(address, SECRET)
    sink = FirehoseSink(gateway.exposures.sink.client, {"exposures": STREAM}, SCOPE)
    forward(database, sink, rng=np.random.default_rng(1), pause=lambda wait: wait > 0)
    database.close()
    assert {row["exposure_id"]: row for row in lake.lines[STREAM]} == by_lambda
    assert len(by_lambda) == shown  # a quarter are under age
    arms = {row["user_key"]: row["arm"] for row in by_lambda.values()}
    for user in (person["user_id"] for person in people(users) if person["age"] != 12):
        given = assign(HALVES.split, user)
        assert given is not None
        assert arms[scoped(SECRET.user_hash(user), SCOPE)] == given.arm


def test_captured_data_joins_the_exposure_of_a_lone_user_by_the_inference_id(
    gateway: Gateway, endpoint: Endpoint, lake: Firehose
) -> None:
    user = user_in("model")
    gateway(of({"user_id": user, "age": 31, "genres": ["Rock"]}))
    gateway(of({"instances": [{"user_id": user}, {"user_id": user_in("model") + "0"}]}))
    gateway(rest('{"age": 31}'))
    exposure = lake.lines[STREAM][0]
    assert endpoint.inference_ids[0] == exposure["user_key"]
    assert set(endpoint.inference_ids[1:]) == {""}  # of several, and of nobody in the experiment


def test_where_the_plan_says_so_the_lambda_names_experiment_and_arm_as_the_service_does(
    endpoint: Endpoint,
    lake: Firehose,
    environment: dict[str, str],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", endpoint.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_FIREHOSE", lake.url)
    plan = msgspec.structs.replace(PLAN, name_arm=True)
    freeze(plan, tmp_path / "open.toml")
    gateway = made(environment | {"FIRSTSPIN_EXPERIMENT": str(tmp_path / "open.toml")})
    store = open_store(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET)
    app = new_app(ledger=ExposureLog(store, SECRET, lambda: NOW, running(plan)))
    app.serve(load(folder))
    arms = set()
    for person in people(24):
        by_service = ask(app, "POST", "/v1/recommendations", json.dumps(person).encode())
        assert gateway(of(person))["body"].encode() == by_service.body
        arms.add(json.loads(by_service.body).get("arm"))
    assert arms == {"model", "rule", None}  # None is under age
    lines = gateway(of("\n".join(map(json.dumps, people(24))), "application/jsonlines"))["body"].splitlines()
    assert {json.loads(line).get("arm") for line in lines} == arms
    endpoint.moods = ["internal"] * 24
    assert {answered(gateway(of(person))).get("arm") for person in people(24)} == arms
    store.close()


def test_the_rules_arm_costs_no_call_and_the_models_arm_is_asked_without_its_user(
    gateway: Gateway, endpoint: Endpoint
) -> None:
    asked = {"age": 45, "gender": "female", "genres": ["Rock"]}
    assert answered(gateway(of({"user_id": user_in("rule"), **asked})))["source"] == "rule-arm"
    assert endpoint.asked == []
    assert answered(gateway(of({"user_id": user_in("model"), **asked})))["source"] == "model"
    assert [json.loads(body) for body in endpoint.asked] == [asked]


def test_a_list_asks_the_endpoint_once_and_is_answered_in_order(gateway: Gateway, endpoint: Endpoint) -> None:
    arms = ["model", "rule", "rule", "model", "rule", "model"]
    users = [{"user_id": user_in(arm), "age": 45, "genres": ["Rock"]} for arm in arms]
    for content_type, body in (
        ("application/json", json.dumps({"instances": users})),
        ("application/jsonlines", "\n".join(map(json.dumps, users))),
    ):
        text = gateway(of(body, content_type))["body"]
        lines = json.loads(text)["predictions"] if content_type.endswith("json") else map(json.loads, text.splitlines())
        assert [line["source"] for line in lines] == [{"rule": "rule-arm"}.get(arm, arm) for arm in arms]
    assert [len(json.loads(body)["instances"]) for body in endpoint.asked] == [3, 3]


def test_rows_and_log_hold_nothing_personal(
    gateway: Gateway, endpoint: Endpoint, lake: Firehose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "firstspin")
    endpoint.moods = ["internal"]
    lake.refuses = lambda _: True
    for i in range(40):
        person = {"user_id": f"secret-user-{i}", "age": 77, "gender": "female", "country": "XK", "genres": ["Rock"]}
        gateway(of(person))
    assert sum(dropped(caplog)) == 40
    sent = b"".join(record for call in lake.calls for record in call).decode() + caplog.text
    for personal in ("secret-user", "77,", '"age"', "gender", "female", "XK", SECRET.user_hash("secret-user-1").hex()):
        assert personal not in sent


@pytest.mark.parametrize("trouble", ["error", "refuses", "forgets", "gone"])
def test_an_exposure_that_is_lost_is_counted_and_the_answer_is_given(
    gateway: Gateway, lake: Firehose, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    if trouble == "error":
        lake.error = (503, "ServiceUnavailableException")
    elif trouble == "refuses":
        lake.refuses = lambda _: True
    elif trouble == "forgets":
        lake.forgets_to_answer = True
    else:
        lake.server_close()
    for arm in ("model", "rule"):
        assert answered(gateway(of({"user_id": user_in(arm), "age": 45})))["source"] in ("model", "rule-arm")
    assert dropped(caplog) == [1, 1]


def test_a_firehose_that_hangs_costs_a_share_of_the_budget_and_no_answer(
    endpoint: Endpoint,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running_endpoint(lambda *_: b"") as silent:  # takes the call, and never answers
        silent.moods = ["silent"]
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", endpoint.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_FIREHOSE", f"{silent.url}/endpoints/newcomers/invocations")
        gateway = made(environment | {"FIRSTSPIN_BUDGET": "0.6"})
        assert answered(gateway(of({"user_id": user_in("rule"), "age": 45})))["source"] == "rule-arm"
    assert dropped(caplog) == [1]


def test_a_record_that_is_refused_once_is_sent_again(
    gateway: Gateway, lake: Firehose, caplog: pytest.LogCaptureFixture
) -> None:
    refused = iter([True, False])
    lake.refuses = lambda _: next(refused, False)
    users = [{"user_id": user_in(arm), "age": 45} for arm in ("model", "rule")]
    gateway(of({"instances": users}))
    assert sorted(row["arm"] for row in lake.lines[STREAM]) == ["model", "rule"]
    assert [len(call) for call in lake.calls] == [2, 1]
    assert dropped(caplog) == []


def test_a_fallback_in_the_models_arm_counts_for_the_models_arm(
    gateway: Gateway, endpoint: Endpoint, lake: Firehose
) -> None:
    endpoint.moods = ["internal"]
    assert answered(gateway(of({"user_id": user_in("model"), "age": 45, "genres": ["Rock"]})))["source"] == "rule"
    [row] = lake.lines[STREAM]
    assert (row["arm"], row["source"]) == ("model", "rule")
    assert row["candidates"]["model"] == row["candidates"]["rule"]


def test_what_another_bundle_would_have_shown_is_not_made_up(
    endpoint: Endpoint, lake: Firehose, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tmp_path / "older", seed=3)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", endpoint.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_FIREHOSE", lake.url)
    gateway = made(environment | {"FIRSTSPIN_BUNDLE": str(tmp_path / "older")})
    for arm in ("model", "rule"):  # the endpoint's first answer names its bundle
        gateway(of({"user_id": user_in(arm), "age": 45, "genres": ["Rock"]}))
    by_model, by_rule = lake.lines[STREAM]
    assert by_model["candidates"]["model"][0] == by_model["station_id"]
    assert by_rule["candidates"]["model"] == []
    assert by_rule["candidates"]["rule"][0] == by_rule["station_id"]


def test_users_under_age_and_users_of_a_header_take_no_part(
    gateway: Gateway, endpoint: Endpoint, lake: Firehose
) -> None:
    assert answered(gateway(of({"user_id": user_in("rule"), "age": 12})))["source"] == "under-age"
    assert answered(gateway(of_user(user_in("rule"))))["source"] == "model"
    assert len(endpoint.asked) == 2
    assert lake.calls == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ('{"age": 31}', "application/json"),
        ('{"user_id": "", "age": 31}', "application/json"),
        ('{"user_id": 7}', "application/json"),
        ('{"instances": [{"user_id": "a"}, {"age": 31}]}', "application/json"),
        ('{"user_id": "a", "mood": "odd"}', "application/json"),
        ('{"user_id": "a"}\n{"age": 31}', "application/jsonlines"),
        ("a,31,,,Rock", "text/csv"),
        ("no json", "application/json"),
    ],
)
def test_a_bad_request_is_refused_in_the_services_words(
    gateway: Gateway, endpoint: Endpoint, folder: Path, tmp_path: Path, body: str, content_type: str
) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET)
    app = new_app(ledger=ExposureLog(store, SECRET, lambda: NOW, HALVES))
    app.serve(load(folder))
    by_service = ask(app, "POST", "/v1/recommendations", body.encode(), content_type=content_type)
    reply = gateway(of(body, content_type))
    assert (reply["statusCode"], reply["body"].encode()) == (by_service.status, by_service.body)
    store.close()
    assert endpoint.asked == []


def test_without_an_experiment_users_are_answered_in_every_encoding(
    endpoint: Endpoint, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", endpoint.url)
    named = ("FIRSTSPIN_ENDPOINT", "FIRSTSPIN_BUNDLE", "FIRSTSPIN_BUDGET")
    gateway = from_environment({name: environment[name] for name in named})
    expected = endpoint.answer(b'{"age": 45, "genres": ["Rock"]}', "application/json")
    assert gateway(of({"user_id": user_in("rule"), "age": 45, "genres": ["Rock"]}))["body"].encode() == expected
    by_model = gateway(of("user_id,age,genres\na,45,Rock\n", "text/csv"))
    genres = "|".join(one["genre"] for one in json.loads(expected)["genres"])
    assert by_model["body"].startswith(f"{genres},")
    endpoint.moods = ["missing"]
    assert answered(gateway(of({"user_id": "a", "age": 45})))["source"] in ("rule", "popular")


def test_a_lambda_whose_experiment_is_not_whole_does_not_start(environment: dict[str, str]) -> None:
    plan = Path(environment["FIRSTSPIN_EXPERIMENT"])
    for changed, problem in (
        ({"FIRSTSPIN_EVENTS_KEY": "00ff"}, "FIRSTSPIN_EVENTS_KEY: invalid key of an event store: 2 bytes"),
        ({"FIRSTSPIN_EVENTS_KEY": "not-hexadecimal"}, "FIRSTSPIN_EVENTS_KEY: is not a key"),
        ({"FIRSTSPIN_EXPOSURES_STREAM": ""}, "FIRSTSPIN_EXPOSURES_STREAM: is empty"),
        ({"FIRSTSPIN_EXPERIMENT": str(plan.with_name("none.toml"))}, "none.toml can't be read"),
    ):
        with pytest.raises(InputError, match=problem) as caught:
            from_environment(environment | changed)
        assert "not-hexadecimal" not in str(caught.value)
    for name in ("FIRSTSPIN_EVENTS_KEY", "FIRSTSPIN_EXPOSURES_STREAM"):
        with pytest.raises(InputError, match=f"{name} is not set"):
            from_environment({key: value for key, value in environment.items() if key != name})
    plan.write_text(plan.read_text().replace("model = 1.0", "model = 9.0"))
    with pytest.raises(InputError, match="was changed after it was sealed"):
        from_environment(environment)


def test_a_canary_is_refused_as_the_lambda_can_neither_answer_nor_stop_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    shares = {"model": 19.0, "challenger": 1.0}
    canary = msgspec.structs.replace(PLAN, control="model", arms=shares, harm_margin=0.05, peeking="always-valid")
    freeze(canary, tmp_path / "canary.toml")
    with pytest.raises(InputError, match="FIRSTSPIN_EXPERIMENT is a canary, which only firstspin serve can answer"):
        from_environment(environment | {"FIRSTSPIN_EXPERIMENT": str(tmp_path / "canary.toml")})

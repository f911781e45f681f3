"""Listens of a DynamoDB table (moto's) go with the registration from the Lambda to the endpoint."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from gateway_events import rest
from made_experiments import HALVES, PLAN
from stand_in_firehose import firehose
from stand_in_runtime import Endpoint
from stand_in_runtime import endpoint as running_endpoint
from stand_in_sagemaker import control_plane

from firstspin.aws.front.gateway import Gateway, from_environment
from firstspin.experiment.assign import assign
from firstspin.experiment.plan import freeze
from firstspin.models.evidence.scoring import EvidenceSettings
from firstspin.records import Listen, Registration
from firstspin.serving import bundle
from firstspin.serving.bodies.encodings import Encoding
from firstspin.serving.bodies.wire import BodyReader
from firstspin.serving.lookups import FAILURES
from firstspin.serving.policy import DEFAULTS, decide
from firstspin.serving.responses import Responses

HEARD = (Listen("1", 300.0), Listen("nowhere", 9.0), Listen("3", skipped=True), Listen("5", 86_400.0))
TABLE: dict[str, Any] = {
    "KeySchema": [{"AttributeName": "user_id", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}],
    "AttributeDefinitions": [
        {"AttributeName": "user_id", "AttributeType": "S"},
        {"AttributeName": "at", "AttributeType": "S"},
    ],
    "BillingMode": "PAY_PER_REQUEST",
}


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[str]:
    with control_plane() as server:
        yield server.url


@pytest.fixture
def environment(folder: Path, tmp_path: Path, dynamodb: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb)
    boto3.client("dynamodb").create_table(TableName=tmp_path.name, **TABLE)
    about = {"FIRSTSPIN_ENDPOINT": "newcomers", "FIRSTSPIN_BUNDLE": str(folder), "FIRSTSPIN_BUDGET": "60"}
    return about | {"FIRSTSPIN_LISTENS": tmp_path.name}


@pytest.fixture
def endpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """The container's answer, which is decided by the same policy."""
    with running_endpoint(lambda body, _: answer(folder, body)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", server.url)
        yield server


def answer(folder: Path, body: bytes) -> bytes:
    loaded = bundle.load(folder)
    [one] = BodyReader().read(body, Encoding.json).registrations
    return Responses(loaded).json(one, decide(one, None, loaded, None, DEFAULTS))


def made(environment: dict[str, str]) -> Gateway:
    gateway = from_environment(environment)
    assert gateway.listens
    gateway.listens._budget = 30  # seconds: this machine may be busy
    return gateway


def put(table: str, user: str, at: str, listen: Listen) -> None:
    item: dict[str, Any] = {"user_id": {"S": user}, "at": {"S": at}, "station_id": {"S": listen.station_id}}
    heard = {"skipped": {"BOOL": True}} if listen.skipped else {"seconds": {"N": str(listen.seconds)}}
    boto3.client("dynamodb").put_item(TableName=table, Item=item | heard)


def recommended(gateway: Gateway, user: str, **fields: object) -> bytes:
    reply = gateway(rest(json.dumps({"user_id": user, "genres": ["Pop"]} | fields), path="/v1/recommendations"))
    assert reply["statusCode"] == 200, reply
    body: str = reply["body"]
    return body.encode()


def test_listens_of_the_table_move_the_answer_as_those_of_the_request(
    folder: Path, environment: dict[str, str], endpoint: Endpoint
) -> None:
    gateway = made(environment)
    form = Registration(genres=("Pop",))
    assert recommended(gateway, "anna") == answer(folder, msgspec.json.encode(form))
    for second in (3, 0, 2, 1):
        put(environment["FIRSTSPIN_LISTENS"], "anna", f"2026-01-31T12:00:0{second}Z", HEARD[second])
    put(environment["FIRSTSPIN_LISTENS"], "berta", "2026-01-31T12:00:00Z", Listen("2", 60.0))
    expected = msgspec.structs.replace(form, listens=HEARD)
    assert recommended(gateway, "anna") == answer(folder, msgspec.json.encode(expected))
    assert msgspec.json.decode(endpoint.asked[-1], type=Registration) == expected
    own = [{"station_id": "2", "seconds": 60.0}]
    assert recommended(gateway, "anna", listens=own) == recommended(gateway, "berta")


def test_nothing_is_looked_up_where_it_may_not_be_used(
    environment: dict[str, str], endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = made(environment | {"FIRSTSPIN_LISTENS": "no-such-table"})
    recommended(gateway, "anna", age=9)
    recommended(gateway, "anna", listens=[{"station_id": "2", "seconds": 60.0}])
    gateway(rest('{"instances": [{"user_id": "anna"}]}', path="/v1/recommendations"))
    gateway(rest('{"age": 31}', headers={"Content-Type": "application/json", "X-Firstspin-User": "anna"}))
    assert len(endpoint.asked) == 4
    assert not [message for message in caplog.messages if "listens_missed" in message]


@pytest.mark.parametrize("what", ["no table", "malformed", "hanging"])
def test_a_table_that_fails_leaves_the_answer_without_listens(
    folder: Path,
    what: str,
    environment: dict[str, str],
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = environment["FIRSTSPIN_LISTENS"]
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and answers nothing
        if what == "hanging":
            monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"http://127.0.0.1:{silent.getsockname()[1]}")
        gateway = from_environment(environment) if what == "hanging" else made(environment)
        if what == "no table":
            boto3.client("dynamodb").delete_table(TableName=table)
        elif what == "malformed":
            item = {"user_id": {"S": "anna"}, "at": {"S": "1"}, "station_id": {"N": "17"}, "seconds": {"N": "3"}}
            boto3.client("dynamodb").put_item(TableName=table, Item=item)
        without = answer(folder, b'{"genres": ["Pop"]}')
        assert [recommended(gateway, "anna") for _ in range(FAILURES + 1)] == [without] * (FAILURES + 1)
    missed = [json.loads(line)["outcome"] for line in caplog.messages if "listens_missed" in line]
    reason = {"no table": "failed", "malformed": "malformed", "hanging": "late"}[what]
    assert missed == [reason] * FAILURES + [reason if what == "malformed" else "paused"]
    assert len(endpoint.asked) == FAILURES + 1


def test_exposures_have_the_number_of_listens_that_moved_the_answer(
    tmp_path: Path, environment: dict[str, str], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(PLAN, tmp_path / "experiment.toml")
    experiment = {"FIRSTSPIN_EXPERIMENT": str(tmp_path / "experiment.toml"), "FIRSTSPIN_EVENTS_KEY": "00" * 32}
    users = [str(number) for number in range(6)]
    with firehose() as lake:
        monkeypatch.setenv("AWS_ENDPOINT_URL_FIREHOSE", lake.url)
        gateway = made(environment | experiment | {"FIRSTSPIN_EXPOSURES_STREAM": "lake"})
        for user in users:
            put(environment["FIRSTSPIN_LISTENS"], user, "1", HEARD[0])
            put(environment["FIRSTSPIN_LISTENS"], user, "2", HEARD[1])
            recommended(gateway, user)
        rows = list(lake.lines["lake"])
        weightless = EvidenceSettings(weight=0.0)
        gateway.bundle = replace(gateway.bundle, evidence=replace(gateway.bundle.evidence, settings=weightless))
        user = next(user for user in users if assign(HALVES.split, user).arm == "model")  # type: ignore[union-attr]
        recommended(gateway, user, listens=[{"station_id": HEARD[0].station_id, "seconds": 60.0}])
        assert lake.lines["lake"][-1]["listens"] is None
    arms = [assignment.arm for user in users if (assignment := assign(HALVES.split, user))]
    assert set(arms) == {"model", "rule"}
    assert [(row["arm"], row["listens"]) for row in rows] == [(arm, 1 if arm == "model" else None) for arm in arms]
    assert endpoint.asked

"""The article's A/B test on the article's architecture: API Gateway event -> Lambda -> Firehose -> S3 -> verdict.

SageMaker's runtime is a stand-in that answers as the container does; Firehose and S3 are moto's. Clicks come to a
service elsewhere that shares the key, and go to the same bucket by `firstspin events forward`.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from command_line import firstspin
from gateway_events import rest
from library import Recommender
from made_app import ask, new_app
from made_experiments import HALVES, PLAN
from stand_in_runtime import Endpoint
from stand_in_runtime import endpoint as running_endpoint
from stand_in_sagemaker import control_plane

from firstspin.aws.front.gateway import Gateway, from_environment
from firstspin.events.schema import Secret
from firstspin.events.store import open_store
from firstspin.experiment.assign import assign
from firstspin.experiment.plan import freeze
from firstspin.service.exposures import ExposureLog
from firstspin.service.process.worker import load
from firstspin.serving import bundle
from firstspin.serving.bodies import wire
from firstspin.serving.bodies.encodings import encoding_of
from firstspin.serving.bodies.wire import BodyReader

USERS = 400
CLICKS = {"rule-arm": 0.2, "rule": 0.2, "model": 0.4}
"""The truth: the share of an arm's users who click."""

DOWN = 3
"""The day on which the endpoint is down: the rule answers the model's arm, which still counts for that arm."""

KEY = bytes(range(32))
STREAMS = {"exposures": "firstspin-exposures", "events": "firstspin-events"}
BUCKET = "lake"
START = datetime.combine(PLAN.starts_on, time(8), UTC)


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Firehose and S3, with the bucket and the streams of the ground stack."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with control_plane() as server:
        for service in ("FIREHOSE", "S3"):
            monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", server.url)
        region = {"LocationConstraint": "eu-central-1"}
        boto3.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=region)
        for kind, stream in STREAMS.items():
            to_bucket = {
                "BucketARN": f"arn:aws:s3:::{BUCKET}",
                "RoleARN": "arn:aws:iam::1:role/d",
                "Prefix": f"{kind}/",
            }
            boto3.client("firehose").create_delivery_stream(
                DeliveryStreamName=stream, ExtendedS3DestinationConfiguration=to_bucket
            )
        yield


@pytest.fixture
def endpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    answers, reader = Recommender(bundle.load(folder)), BodyReader()

    def answer(body: bytes, content_type: str) -> bytes:
        asked = reader.read(body, encoding_of(content_type))
        return wire.join(map(msgspec.json.encode, map(answers.recommend, asked.registrations)), asked)

    with running_endpoint(answer) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", server.url)
        yield server


@pytest.fixture
def gateway(endpoint: Endpoint, amazon: None, folder: Path, tmp_path: Path) -> Gateway:  # noqa: ARG001
    freeze(PLAN, tmp_path / "experiment.toml")
    return from_environment(
        {
            "FIRSTSPIN_ENDPOINT": "newcomers",
            "FIRSTSPIN_BUNDLE": str(folder),
            "FIRSTSPIN_BUDGET": "30",
            "FIRSTSPIN_EXPERIMENT": str(tmp_path / "experiment.toml"),
            "FIRSTSPIN_EVENTS_KEY": KEY.hex(),
            "FIRSTSPIN_EXPOSURES_STREAM": STREAMS["exposures"],
        }
    )


def register(gateway: Gateway, user: int, at: datetime) -> dict[str, Any]:
    """The answer of the Lambda to an event of API Gateway, at a time of day."""
    assert gateway.exposures is not None
    gateway.exposures = replace(gateway.exposures, now=lambda: at)
    answers = {"user_id": f"user-{user}", "age": 20 + user % 50, "genres": [["Rock"], ["Jazz", "Pop"]][user % 2]}
    reply = gateway(rest(json.dumps(answers), path="/recommendations"))
    assert reply["statusCode"] == 200
    found: dict[str, Any] = json.loads(reply["body"])
    return found


def arm_of(user: int) -> str:
    given = assign(HALVES.split, f"user-{user}")
    assert given is not None
    return given.arm


def clicks_of(users: dict[int, tuple[datetime, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The clicks of the users, by the truth of what answered them."""
    rng = random.Random(5)
    return [
        {
            "event_id": f"click-{user}",
            "type": "click",
            "user_id": f"user-{user}",
            "station_id": answer["message"]["station_id"],
            "at": (at + timedelta(minutes=30)).isoformat(),
        }
        for user, (at, answer) in users.items()
        if rng.random() < CLICKS[answer["source"]]
    ]


def downloaded(into: Path) -> Path:
    """All objects of the bucket, as `aws s3 sync` leaves them."""
    s3 = boto3.client("s3")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for one in page["Contents"]:
            path = into / one["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(s3.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read())
    return into


def test_from_the_api_gateway_event_to_the_verdict(
    gateway: Gateway, endpoint: Endpoint, folder: Path, tmp_path: Path
) -> None:
    users = {}
    for user in range(USERS):
        day = user % PLAN.days
        at = START + timedelta(days=day)
        endpoint.moods = ["internal"] if day == DOWN else ["well"]
        users[user] = (at, register(gateway, user, at))
        if user % 100 == 0:  # an app that asks again is one user
            register(gateway, user, at + timedelta(hours=2))

    secret, address = tmp_path / "events.secret", f"sqlite:///{tmp_path / 'events.sqlite'}"
    secret.write_text(KEY.hex())
    store = open_store(address, Secret(KEY))
    elsewhere = new_app(ledger=ExposureLog(store, Secret(KEY), lambda: START + timedelta(days=PLAN.days)))
    elsewhere.serve(load(folder))
    clicks = clicks_of(users)
    reply = ask(elsewhere, "POST", "/v1/events", json.dumps({"events": clicks}).encode())
    assert {result["status"] for result in json.loads(reply.body)["results"]} == {"stored"}
    store.close()
    stored = ("--events", address, "--events-secret", secret)
    sent = firstspin("events", "forward", "--events-stream", STREAMS["events"], "--once", *stored)
    assert (sent.returncode, sent.stdout.splitlines()[0]) == (0, f"{len(clicks):,} rows sent"), sent

    lake = downloaded(tmp_path / "lake")
    for personal in (b"user-7", b'"age"', b"Jazz", b"click-"):
        assert not any(personal in path.read_bytes() for path in lake.rglob("*") if path.is_file())
    told = firstspin("experiment", "analyse", "--plan", tmp_path / "experiment.toml", "--delivered", lake, "--json")
    assert told.returncode == 0, told.stderr
    verdict = json.loads(told.stdout)
    by_hash = Counter(arm_of(user) for user in range(USERS))
    assert verdict["users"] == dict(by_hash)
    assert verdict["sample_ratio"]["sound"]
    assert verdict["sample_ratio"]["users"] == dict(by_hash)
    [clicked] = verdict["metrics"]
    clickers = Counter(arm_of(int(click["user_id"].removeprefix("user-"))) for click in clicks)
    [beside] = clicked["beside_control"]
    for name, share in (("control", "rule"), ("treatment", "model")):
        assert beside["lift"][name] == pytest.approx(clickers[share] / by_hash[share])
    assert beside["lift"]["relative"]["low"] > 0
    assert (verdict["decision"], verdict["winner"]) == ("winner", "model")

"""From tables to an answer by way of SageMaker: trained, packed, deployed, served and asked as AWS does each.

The container is the image's own entrypoint in a private /opt/ml; S3 and SageMaker's control plane are moto, the runtime
is a stand-in that passes calls on to the container, and the Lambda runs in AWS's runtime client.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from command_line import firstspin
from gateway_events import rest
from stand_in_runtime import endpoint, function, runtime_api
from stand_in_sagemaker import control_plane
from training_job import ENTRYPOINT, start

from firstspin.aws import rollout
from firstspin.aws.clients import open_account
from firstspin.aws.deployment import Rollout
from firstspin.aws.endpoint import serving
from firstspin.aws.hosting import Hosting
from firstspin.aws.package import package
from firstspin.simulation.world import write_world
from firstspin.tools.sagemaker_check import lifecycle
from firstspin.tools.sagemaker_check.client import ReadLimits
from firstspin.tools.sagemaker_check.payloads import Payload
from firstspin.tools.sagemaker_check.player import Target

HOSTING = Hosting("firstspin:1", "arn:aws:iam::123456789012:role/firstspin-serves", "ml.c5.large")
NEWCOMERS = {
    ("--age", "31", "--gender", "female", "--country", "US", "--genres", "Rock|Jazz"): (
        '{"age": 31, "gender": "female", "country": "US", "genres": ["Rock", "Jazz"]}'
    ),
    ("--age", "9"): '{"age": 9}',
    (): "{}",
}


def recommend(bundle: Path, *words: str) -> bytes:
    """What the terminal answers."""
    done = firstspin("recommend", "--bundle", bundle, *words, "--json")
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n").encode()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account with a bucket."""
    with control_plane() as server:
        told = {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="firstspin-models")
        yield


@pytest.mark.usefixtures("aws")
def test_from_tables_to_the_lambdas_answer_which_is_the_terminals_to_the_last_bit(tmp_path: Path) -> None:
    job = tmp_path / "job"
    write_world(job / "input" / "data" / "training", 600, 5)
    assert start(job, {"model": "logistic"}).wait(120) == 0
    bundle = job / "model"

    account = open_account()
    packed = package(bundle, tmp_path / "model.tar.gz")
    plan = rollout.plan_deploy(account, "newcomers", packed, ("firstspin-models", "m"), HOSTING, Rollout())
    rollout.carry_out(plan, lambda _: None)
    rollout.wait(account, plan, lambda _: None, clock=lambda: 0.0, sleep=lambda _: None, deadline=1, every=0)

    now = serving(account, "newcomers")
    assert now is not None
    bucket, _, key = now.archive.removeprefix("s3://").partition("/")
    account.s3.download_file(bucket, key, str(tmp_path / "downloaded.tar.gz"))
    image = Target(ENTRYPOINT, environment=os.environ, limits=ReadLimits(ready=60))
    with lifecycle.serving(image, tmp_path / "host", tmp_path / "downloaded.tar.gz", {}) as host:
        client = host.client
        assert client is not None, host.failure
        with (
            endpoint(lambda body, kind: client.invoke(Payload(kind, body)).body) as runtime,
            runtime_api() as api,
            function(api, runtime, bundle),
        ):
            for words, body in NEWCOMERS.items():
                kind, answer = api.invoke(rest(body))
                assert (kind, answer["statusCode"]) == ("response", 200)
                assert answer["body"].encode() == recommend(bundle, *words)
            assert len(runtime.asked) == len(NEWCOMERS)  # every answer is the endpoint's, none the fallback's

"""The probe of deploy/aws: its calls and what it reads are checked by botocore's models of the services."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from firstspin.aws.autoscaling import DIMENSION
from firstspin.serving.score_stores import CURRENT

SOURCE = Path(__file__).parents[2] / "deploy" / "aws" / "probe" / "index.py"
NOW = 1_795_392_000.0
TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/firstspin/variant/AllTraffic",
    "ScalableDimension": DIMENSION,
    "MinCapacity": 2,
    "MaxCapacity": 10,
    "RoleARN": "arn:aws:iam::123456789012:role/a",
    "CreationTime": 0,
}
ENDPOINT = {
    "EndpointName": "firstspin",
    "EndpointArn": "arn:aws:sagemaker:eu-central-1:123456789012:endpoint/firstspin",
    "EndpointStatus": "InService",
    "CreationTime": 0,
    "LastModifiedTime": 0,
    "ProductionVariants": [{"VariantName": "AllTraffic", "CurrentInstanceCount": 7}],
}
POINTER = {"user_id": {"S": CURRENT}, "version": {"S": CURRENT}, "points_to": {"S": "b.1"}}
WRITTEN = POINTER | {"written": {"N": str(int(NOW - 36 * 3600))}}
Answers = dict[str, dict[str, Any] | None]


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answers], dict[str, float]]:
    """Runs the probe against these answers of AWS, None for a refusal; the metrics that it sends."""
    for name in ("ENDPOINT", "NAMESPACE"):
        monkeypatch.setenv(name, "firstspin")
    monkeypatch.setenv("VARIANT", "AllTraffic")
    monkeypatch.setenv("TABLE", "firstspin-scores")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    spec = importlib.util.spec_from_file_location("probe", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    operations = {
        "application-autoscaling": "describe_scalable_targets",
        "sagemaker": "describe_endpoint",
        "dynamodb": "get_item",
    }

    def run(answers: Answers) -> dict[str, float]:
        sent: dict[str, float] = {}

        def client(service: str) -> Any:
            made = boto3.client(service, region_name="eu-central-1")
            stubber = Stubber(made)
            if service == "cloudwatch":
                stubber.add_response("put_metric_data", {})
                made.meta.events.register("provide-client-params.cloudwatch.*", keep)
            elif (answer := answers[service]) is None:
                stubber.add_client_error(operations[service], "AccessDeniedException")
            else:
                stubber.add_response(operations[service], answer)
            stubber.activate()
            return made

        def keep(params: dict[str, Any], **_: object) -> None:
            assert params["Namespace"] == "firstspin"
            sent.update({one["MetricName"]: one["Value"] for one in params["MetricData"]})

        module.handler({}, None, client=client, now=lambda: NOW)
        return sent

    return run


def test_what_no_metric_of_aws_tells_is_sent(probe: Callable[[Answers], dict[str, float]]) -> None:
    answers: Answers = {
        "application-autoscaling": {"ScalableTargets": [TARGET]},
        "sagemaker": ENDPOINT,
        "dynamodb": {"Item": WRITTEN},
    }
    assert probe(answers) == {"scalable_targets": 1, "instances": 7, "instances_left": 3, "answers_age_hours": 36}


@pytest.mark.parametrize(("least", "most", "left"), [(4, 20, 13), (2, 7, 0), (2, 5, -2), (7, 7, None)])
def test_how_many_may_be_added_follows_the_bounds_of_the_hour(
    probe: Callable[[Answers], dict[str, float]], least: int, most: int, left: int | None
) -> None:
    target = TARGET | {"MinCapacity": least, "MaxCapacity": most}
    answers: Answers = {
        "application-autoscaling": {"ScalableTargets": [target]},
        "sagemaker": ENDPOINT,
        "dynamodb": {"Item": WRITTEN},
    }
    assert probe(answers).get("instances_left") == left


def test_a_target_that_is_gone_is_a_zero(probe: Callable[[Answers], dict[str, float]]) -> None:
    answers: Answers = {
        "application-autoscaling": {"ScalableTargets": []},
        "sagemaker": ENDPOINT,
        "dynamodb": {"Item": WRITTEN},
    }
    assert probe(answers)["scalable_targets"] == 0


@pytest.mark.parametrize("stored", [{}, {"Item": POINTER}], ids=["no answers", "a pointer without its time"])
def test_where_no_answers_were_stored_they_have_no_age(
    stored: dict[str, Any], probe: Callable[[Answers], dict[str, float]]
) -> None:
    answers: Answers = {"application-autoscaling": {"ScalableTargets": []}, "sagemaker": ENDPOINT, "dynamodb": stored}
    assert probe(answers) == {"scalable_targets": 0, "instances": 7}


def test_a_check_that_is_refused_hides_no_other_and_is_logged(
    probe: Callable[[Answers], dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    answers: Answers = {"application-autoscaling": None, "sagemaker": None, "dynamodb": {"Item": WRITTEN}}
    assert probe(answers) == {"answers_age_hours": 36}
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["event"], line["check"]) for line in logged] == [
        ("probe_failed", "scalable_targets"),
        ("probe_failed", "instances"),
        ("probe_failed", "instances_left"),
    ]


def test_where_nothing_can_be_measured_nothing_is_sent(probe: Callable[[Answers], dict[str, float]]) -> None:
    assert probe({"application-autoscaling": None, "sagemaker": None, "dynamodb": None}) == {}

"""Every five minutes: what no metric of AWS tells, as metrics of our own. A Lambda's whole source, so it needs no zip.

- `scalable_targets`: 1 while the endpoint's variant scales, 0 once its target is gone.
- `instances`: how many the variant has.
- `instances_left`: how many autoscaling may add at the moment; nothing where its min is its max, or it has no target.
- `answers_age_hours`: the age of the stored answers that are current; nothing where none were ever stored.

A check that fails is logged and sends nothing, which the alarm on `scalable_targets` counts as a fault.
"""

import json
import os
import time

import boto3

SCALED = "sagemaker:variant:DesiredInstanceCount"
POINTER = {"user_id": {"S": "#current"}, "version": {"S": "#current"}}


def handler(_event, _context, client=boto3.client, now=time.time):
    """Send the metrics that can be measured."""
    endpoint, variant = os.environ["ENDPOINT"], os.environ["VARIANT"]
    checks = {
        "scalable_targets": lambda: float(len(targets(client, endpoint, variant))),
        "instances": lambda: instances(client, endpoint, variant),
        "instances_left": lambda: instances_left(client, endpoint, variant),
        "answers_age_hours": lambda: answers_age_hours(client("dynamodb"), os.environ["TABLE"], now()),
    }
    measured = {}
    for name, check in checks.items():
        try:
            measured[name] = check()
        except Exception as problem:
            print(json.dumps({"event": "probe_failed", "check": name, "kind": type(problem).__name__}))  # noqa: T201
    data = [{"MetricName": name, "Value": value} for name, value in measured.items() if value is not None]
    if data:
        client("cloudwatch").put_metric_data(Namespace=os.environ["NAMESPACE"], MetricData=data)
    return measured


def targets(client, endpoint, variant):
    resource = f"endpoint/{endpoint}/variant/{variant}"
    found = client("application-autoscaling").describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[resource], ScalableDimension=SCALED
    )
    return found["ScalableTargets"]


def instances(client, endpoint, variant):
    variants = client("sagemaker").describe_endpoint(EndpointName=endpoint)["ProductionVariants"]
    return next(float(one["CurrentInstanceCount"]) for one in variants if one["VariantName"] == variant)


def instances_left(client, endpoint, variant):
    for target in targets(client, endpoint, variant):
        if target["MinCapacity"] < target["MaxCapacity"]:
            return target["MaxCapacity"] - instances(client, endpoint, variant)
    return None


def answers_age_hours(dynamodb, table, now):
    pointer = dynamodb.get_item(TableName=table, Key=POINTER).get("Item", {})
    return (now - float(pointer["written"]["N"])) / 3600 if "written" in pointer else None

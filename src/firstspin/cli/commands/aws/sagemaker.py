"""`firstspin sagemaker …`: the table of its commands, each with an example."""

from __future__ import annotations

from firstspin.cli.apps import command, new_app
from firstspin.cli.commands.aws import releases
from firstspin.cli.commands.aws.contract import check
from firstspin.cli.commands.aws.load_test import load_test

app = new_app("firstspin sagemaker", "Check a container against SageMaker's contract; deploy a bundle to an endpoint.")

for function, example in (
    (check, "check --url http://127.0.0.1:8080"),
    (load_test, "load-test --url http://127.0.0.1:8080 --p99 50"),
    (releases.package, "package --bundle bundle --out model.tar.gz"),
    (
        releases.deploy,
        "deploy --bundle bundle --endpoint newcomers --bucket models --image IMAGE --role ARN --dry-run",
    ),
    (
        releases.promote,
        "promote --bundle bundle --data data --endpoint newcomers --alarm newcomers-endpoint-5xx --dry-run",
    ),
    (
        releases.shadow,
        "shadow --bundle bundle --endpoint newcomers --percent 10 --alarm newcomers-endpoint-5xx --dry-run",
    ),
    (releases.rollback, "rollback --endpoint newcomers --dry-run"),
    (releases.fetch, "fetch --endpoint newcomers --out served"),
    (releases.prune, "prune --endpoint newcomers --keep 5 --dry-run"),
):
    command(app, example.split()[0], example=f"firstspin sagemaker {example}")(function)

"""Every day: label -> train -> gate -> package -> score -> promote, each one firstspin command.

Airflow knows when and in what order, firstspin knows how: it lives in an environment of its own, which FIRSTSPIN names.
A bundle that does not beat the serving one is no failure: the day goes on with the bundle that serves, so that the
batch answers stay fresh. What a task says is in its log; a command that fails fails its task with that command's
line. A promotion that fails for good, as one that alarms take back, brings back the answers of the bundle that serves
then. Which one that is, the endpoint says: nothing is kept here that a rollback by hand could make untrue.

How often a task is tried again is Airflow's own setting (default_task_retries). Ours are environment variables of the
workers:

    FIRSTSPIN           the command, as in /opt/firstspin/bin/firstspin
    FIRSTSPIN_DATA      folder of the three tables
    FIRSTSPIN_WORK      folder that all workers share: a folder a run
    FIRSTSPIN_ENDPOINT  name of the SageMaker endpoint
    FIRSTSPIN_SCORES    dynamodb:TABLE or sqlite:PATH
    FIRSTSPIN_TRAIN     further words for `firstspin train`, as in "--model lightgbm"
    FIRSTSPIN_PROMOTE   further words for `firstspin sagemaker promote`; unless it is set, the alarms of deploy/aws:
                        "--alarm NAME-endpoint-5xx --alarm NAME-endpoint-failed --alarm NAME-endpoint-latency"
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import dag, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

log = logging.getLogger(__name__)
SERVING = "serving"


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
)
def firstspin_daily() -> None:
    """The day's story."""
    bundle = train(label())
    chosen = gate(bundle)
    package(chosen) >> score(chosen) >> promote(chosen)


@task
def label() -> str:
    """Who listened to what, and a census of everyone without a label: its log is where to look when they grow few."""
    out = today() / "labelled.parquet"
    firstspin("label", "--data", os.environ["FIRSTSPIN_DATA"], "--out", out)
    return str(out)


@task
def train(_labelled: str) -> str:
    """A bundle of today that carries its own scorecard."""
    out = today() / "bundle"
    firstspin("train", "--data", os.environ["FIRSTSPIN_DATA"], "--out", out, *further("FIRSTSPIN_TRAIN"))
    return str(out)


@task
def gate(bundle: str) -> str:
    """The bundle to go on with: today's if it beats the serving one, or else that one."""
    try:
        firstspin("sagemaker", "promote", "--bundle", bundle, "--dry-run", "--json", *of_endpoint(), *how_to_promote())
    except CommandFailed as problem:
        if not problem.refused:
            raise
        log.info("%s; today goes on with the one that serves", problem)
        return serving(today())
    return bundle


@task
def package(bundle: str) -> str:
    """The archive as it will be uploaded, kept beside the bundle."""
    out = Path(bundle).parent / "model.tar.gz"
    firstspin("sagemaker", "package", "--bundle", bundle, "--out", out)
    return str(out)


@task
def score(bundle: str) -> None:
    """Everyone's answer, for the hour when the endpoint fails."""
    keep_answers(bundle)


def answers_of_what_serves(context: Mapping[str, Any]) -> None:
    """Those that `score` made current are of a bundle that does not serve; called when no try is left."""
    keep_answers(serving(today(context)))


@task(on_failure_callback=answers_of_what_serves)
def promote(bundle: str) -> None:
    """Blue/green; asked about the bundle that serves already, the command changes nothing."""
    if Path(bundle).name == SERVING:
        raise AirflowSkipException("today's bundle did not pass the gate")
    firstspin("sagemaker", "promote", "--bundle", bundle, *of_endpoint(), *how_to_promote())


def keep_answers(bundle: str) -> None:
    """Ask a bundle about everyone, and make its answers the current ones."""
    registrations = next(Path(os.environ["FIRSTSPIN_DATA"]).glob("registrations.*"))
    firstspin("score", "--bundle", bundle, "--registrations", registrations, "--out", os.environ["FIRSTSPIN_SCORES"])


class CommandFailed(AirflowException):
    """A firstspin command that failed: what it wrote to stderr, and its `output`."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output

    @property
    def refused(self) -> bool:
        """Whether `promote --json` reports that the bundle did not pass the gate."""
        try:
            return json.loads(self.output)["gate"]["passes"] is False
        except (ValueError, KeyError, TypeError):  # it failed before its verdict
            return False


def firstspin(*words: object) -> str:
    """The output of the command. Raises CommandFailed for an exit status other than 0."""
    command = [os.environ["FIRSTSPIN"], *map(str, words)]
    log.info("%s", shlex.join(command))
    # in a log a bad row is named without what stands in it
    environment = os.environ | {"FIRSTSPIN_BARE_ERRORS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    log.info("%s%s", done.stdout, done.stderr)
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise CommandFailed(said or f"exit status {done.returncode}", done.stdout)
    return done.stdout


def today(context: Mapping[str, Any] | None = None) -> Path:
    """The folder of this run, and of no other on the same day; outside of a task its context must be given."""
    moment = (context or get_current_context())["dag_run"].run_after
    folder = Path(os.environ["FIRSTSPIN_WORK"]) / f"{moment:%Y-%m-%dT%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def serving(folder: Path) -> str:
    """The bundle that the endpoint answers from at this moment, brought into a folder."""
    out = folder / SERVING
    firstspin("sagemaker", "fetch", "--out", out, *of_endpoint())
    return str(out)


def of_endpoint() -> list[str]:
    return ["--endpoint", os.environ["FIRSTSPIN_ENDPOINT"]]


def how_to_promote() -> list[str]:
    """With the alarms of the front stack, unless the workers name others."""
    alarms = [f"{os.environ['FIRSTSPIN_ENDPOINT']}-endpoint-{alarm}" for alarm in ("5xx", "failed", "latency")]
    named = [word for alarm in alarms for word in ("--alarm", alarm)]
    return further("FIRSTSPIN_PROMOTE") if "FIRSTSPIN_PROMOTE" in os.environ else named


def further(name: str) -> list[str]:
    return shlex.split(os.environ.get(name, ""))


daily = firstspin_daily()

if __name__ == "__main__":  # one run here and now, without a scheduler; told as JSON on the last line
    run = daily.test()
    print(json.dumps({one.task_id: str(one.state) for one in run.get_task_instances()}))  # noqa: T201

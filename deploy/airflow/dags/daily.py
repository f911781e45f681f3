"""Every day: label -> train -> gate -> package -> promote -> score, each one firstspin command.

Airflow knows when and in what order, firstspin knows how: it lives in an environment of its own, which FIRSTSPIN names.
A bundle that does not pass the gate against the serving one is no failure: its promotion is skipped. The gate compares
both on users who registered after the training data of either, so training data end FIRSTSPIN_HOLD_BACK_DAYS before the
run. Whatever became of the release, the
last step scores everyone with the bundle that serves then, so that the batch answers stay fresh and are of that bundle.
Which one that is, the endpoint says: nothing is kept here that a rollback by hand could make untrue. `outcome` fails
where any task failed, because Airflow judges a run by its last task.

A release that alarms took back is not tried again: the same bundle would fail the same traffic again. A backfill labels
and trains as of the end of its interval, and releases nothing: what serves is a matter of today.

How often a task is tried again is Airflow's own setting (default_task_retries). Ours are environment variables of the
workers:

    FIRSTSPIN           the command, as in /opt/firstspin/bin/firstspin
    FIRSTSPIN_DATA      folder of the three tables
    FIRSTSPIN_WORK      folder that all workers share: a folder a run
    FIRSTSPIN_ENDPOINT  name of the SageMaker endpoint
    FIRSTSPIN_SCORES    dynamodb:TABLE or sqlite:PATH
    FIRSTSPIN_KEEP      folders of runs to keep (14); older ones are deleted
    FIRSTSPIN_HOLD_BACK_DAYS
                        days that training leaves to the gate: those of the label, and of the registrations that the
                        gate compares on (60 + 14)
    FIRSTSPIN_TRAIN     further words for `firstspin train`, as in "--model lightgbm"
    FIRSTSPIN_PROMOTE   further words for `firstspin sagemaker promote`; unless it is set, the alarms of deploy/aws:
                        "--alarm NAME-endpoint-5xx --alarm NAME-endpoint-failed …", all that watch the endpoint
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import TriggerRule, chain, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

log = logging.getLogger(__name__)
ALARMS = ("5xx", "failed", "latency", "latency-mean")


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"execution_timeout": timedelta(hours=2)},
    doc_md=__doc__,
)
def firstspin_daily() -> None:
    """The day's story."""
    bundle = train(label())
    chosen = gate(bundle)
    tasks = [bundle, chosen, package(chosen), promote(chosen), score()]
    chain(*tasks)
    tasks >> outcome()


@task
def label() -> str:
    """Who listened to what, and a census of everyone without a label: its log is where to look when they grow few."""
    out = today() / "labelled.parquet"
    prune(out.parent)
    firstspin("label", "--data", os.environ["FIRSTSPIN_DATA"], "--out", out, *until(get_current_context()))
    return str(out)


@task(execution_timeout=timedelta(hours=6))
def train(_labelled: str) -> str:
    """A bundle of today that carries its own scorecard."""
    out, ends = today() / "bundle", held_back(get_current_context())
    firstspin("train", "--data", os.environ["FIRSTSPIN_DATA"], "--out", out, *ends, *further("FIRSTSPIN_TRAIN"))
    return str(out)


@task
def gate(bundle: str) -> str:
    """Today's bundle, if it passes the gate against the serving one."""
    refuse_backfill(get_current_context())
    try:
        firstspin("sagemaker", "promote", "--bundle", bundle, "--dry-run", "--json", *how_to_promote())
    except CommandFailed as problem:
        if problem.refused:
            raise AirflowSkipException(str(problem)) from None
        raise
    return bundle


@task
def package(bundle: str) -> str:
    """The archive as it will be uploaded, kept beside the bundle."""
    out = Path(bundle).parent / "model.tar.gz"
    firstspin("sagemaker", "package", "--bundle", bundle, "--out", out)
    return str(out)


@task(execution_timeout=timedelta(hours=10))
def promote(bundle: str) -> None:
    """Blue/green, or rolling, for up to eight hours; a bundle that serves already changes nothing."""
    try:
        firstspin("sagemaker", "promote", "--bundle", bundle, *how_to_promote())
    except CommandFailed as problem:
        if problem.taken_back:
            raise AirflowFailException(str(problem)) from None
        raise


@task(trigger_rule=TriggerRule.ALL_DONE)
def score() -> None:
    """Everyone's answer by the bundle that serves, for the hour when the endpoint fails."""
    refuse_backfill(get_current_context())
    bundle = today() / "serving"
    firstspin("sagemaker", "fetch", "--out", bundle, *of_endpoint())
    registrations = next(Path(os.environ["FIRSTSPIN_DATA"]).glob("registrations.*"))
    firstspin("score", "--bundle", bundle, "--registrations", registrations, "--out", os.environ["FIRSTSPIN_SCORES"])


@task(trigger_rule=TriggerRule.ONE_FAILED, retries=0)
def outcome() -> None:
    """Fail the run where a task failed, though `score` ran to its end; skipped on a good day."""
    raise AirflowFailException("a task of this run failed")


def until(context: Mapping[str, Any]) -> list[str]:
    """In a backfill the end of its interval, which later listens must not reach; else the last listen counts."""
    run = context["dag_run"]
    return ["--data-ends", f"{run.data_interval_end:%Y-%m-%dT%H:%M:%SZ}"] if is_backfill(run) else []


def held_back(context: Mapping[str, Any]) -> list[str]:
    """The end of the training data: so far back that users who registered later have a label by now."""
    run = context["dag_run"]
    moment = run.data_interval_end if is_backfill(run) else run.run_after
    ends = moment - timedelta(days=float(os.environ.get("FIRSTSPIN_HOLD_BACK_DAYS", "74")))
    return ["--data-ends", f"{ends:%Y-%m-%dT%H:%M:%SZ}"]


def refuse_backfill(context: Mapping[str, Any]) -> None:
    """A bundle of the past is not released, nor are the answers of today written once a day of the past."""
    if is_backfill(context["dag_run"]):
        raise AirflowSkipException("a backfill releases nothing")


def is_backfill(run: Any) -> bool:
    return str(run.run_type) in ("backfill", "DagRunType.BACKFILL_JOB")


def prune(newest: Path) -> None:
    """Delete the folders of the oldest runs; what has another name is left alone."""
    runs = sorted(newest.parent.glob("[0-9]" * 4 + "-[0-9][0-9]-[0-9][0-9]T" + "[0-9]" * 6))
    keep = max(int(os.environ.get("FIRSTSPIN_KEEP", "14")), 1)
    for folder in runs[:-keep]:
        if folder != newest:
            log.info("deleting %s", folder)
            shutil.rmtree(folder)


class CommandFailed(AirflowException):
    """A firstspin command that failed: what it wrote to stderr, and its `output`."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output

    @property
    def refused(self) -> bool:
        """Whether `promote --json` reports that the bundle did not pass the gate."""
        try:
            return json.loads(self.output)["gate"]["decision"] != "promote"
        except (ValueError, KeyError, TypeError):  # it failed before its verdict
            return False

    @property
    def taken_back(self) -> bool:
        """Whether the endpoint went back to the bundle before: the alarms', or a failed start."""
        return " went back to " in str(self)


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


def today() -> Path:
    """The folder of this run, and of no other on the same day."""
    moment = get_current_context()["dag_run"].run_after
    folder = Path(os.environ["FIRSTSPIN_WORK"]) / f"{moment:%Y-%m-%dT%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def of_endpoint() -> list[str]:
    return ["--endpoint", os.environ["FIRSTSPIN_ENDPOINT"]]


def how_to_promote() -> list[str]:
    """The endpoint, the gate's tables, and the alarms of the front stack, unless the workers name others."""
    named = [word for alarm in ALARMS for word in ("--alarm", f"{os.environ['FIRSTSPIN_ENDPOINT']}-endpoint-{alarm}")]
    words = further("FIRSTSPIN_PROMOTE") if "FIRSTSPIN_PROMOTE" in os.environ else named
    return ["--data", os.environ["FIRSTSPIN_DATA"], *of_endpoint(), *words]


def further(name: str) -> list[str]:
    return shlex.split(os.environ.get(name, ""))


daily = firstspin_daily()

if __name__ == "__main__":  # one run here and now, without a scheduler; told as JSON on the last line
    run = daily.test()
    print(json.dumps({one.task_id: str(one.state) for one in run.get_task_instances()}))  # noqa: T201

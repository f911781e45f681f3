"""A day of the DAG, for real: Airflow runs it in its own environment on SQLite, each task runs the firstspin command.

Only AWS is stood in for: moto, with a control plane whose endpoints live as SageMaker's do.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from stand_in_sagemaker import ControlPlane, control_plane, moto_server

from firstspin.aws.deployment import MARGIN_SECONDS, MAX_SECONDS
from firstspin.serving.bundle import load
from firstspin.serving.score_stores import open_scores

HERE = Path(__file__).parent
AIRFLOW = HERE / ".venv" / "bin"
FIRSTSPIN = str(Path(sys.executable).with_name("firstspin"))
ROLE = "arn:aws:iam::123456789012:role/model"
ALL = ("label", "train", "gate", "package", "promote", "score")
GOOD = dict.fromkeys(ALL, "success") | {"outcome": "skipped"}
GROUND = """
import boto3
boto3.client("s3").create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
for name in ("5xx", "failed", "latency", "latency-mean"):
    boto3.client("cloudwatch").put_metric_alarm(
        AlarmName=f"newcomers-endpoint-{name}", Namespace="AWS/SageMaker", MetricName="Invocation5XXErrors", Period=60,
        Dimensions=[{"Name": "EndpointName", "Value": "newcomers"}], Statistic="Sum", EvaluationPeriods=2, Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
    )
"""
Day = Callable[[str], dict[str, str]]


def command(environment: dict[str, str], *words: object) -> str:
    run = [FIRSTSPIN, *map(str, words)]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def cloud(folder: Path) -> Iterator[tuple[ControlPlane, dict[str, str]]]:
    """AWS as it is stood in for, and the environment that leads there."""
    with moto_server(folder / "moto.log") as moto, control_plane(moto) as plane:
        yield (
            plane,
            os.environ
            | {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{moto}",
                "AWS_ENDPOINT_URL_SAGEMAKER": f"http://127.0.0.1:{plane.server_port}",
                "AWS_ACCESS_KEY_ID": "none",
                "AWS_SECRET_ACCESS_KEY": "none",
                "AWS_DEFAULT_REGION": "eu-central-1",
                "AWS_EC2_METADATA_DISABLED": "true",
                "OMP_NUM_THREADS": "1",
            },
        )


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[ControlPlane, Day]]:
    """An endpoint that answers by popularity alone, and what runs a day: given the model, the state of each task."""
    with cloud(tmp_path) as (plane, environment):
        environment |= {
            "FIRSTSPIN": FIRSTSPIN,
            "FIRSTSPIN_DATA": str(tmp_path / "tables"),
            "FIRSTSPIN_WORK": str(tmp_path / "work"),
            "FIRSTSPIN_ENDPOINT": "newcomers",
            "FIRSTSPIN_SCORES": f"sqlite:{tmp_path / 'scores.db'}",
            "FIRSTSPIN_SETTINGS": str(tmp_path / "firstspin.toml"),  # the alarms are the DAG's own
            "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "1",
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "0",
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        }
        (tmp_path / "firstspin.toml").write_text("[sagemaker.promote]\npoll = 0.05\n")
        command(environment, "world", tmp_path / "tables", "--users", 4000, "--seed", 7)
        bundle = tmp_path / "first"
        ends = ("--data-ends", "2025-08-01")  # later registrations have labels: the hold-out of the gate
        data = ("--data", tmp_path / "tables")
        command(environment, "train", *data, "--out", bundle, "--model", "popularity", *ends)
        subprocess.run([sys.executable, "-c", GROUND], env=environment, check=True)
        words = ("--bucket", "models", "--image", "123456789012.dkr.ecr.eu-central-1.amazonaws.com/firstspin:1")
        at = (
            "--endpoint",
            "newcomers",
            "--role",
            ROLE,
            "--poll",
            0.05,
            "--instance-type",
            "ml.c5.large",
        )  # moto knows no c6i
        command(environment, "sagemaker", "deploy", "--bundle", bundle, *words, *at)
        plane.fate.asked.clear()
        subprocess.run([AIRFLOW / "airflow", "db", "migrate"], env=environment, capture_output=True, check=True)

        def day(model: str) -> dict[str, str]:
            told = environment | {"FIRSTSPIN_TRAIN": shlex.join(["--model", *model.split(), *ends])}
            run = [AIRFLOW / "python", HERE / "dags" / "daily.py"]
            done = subprocess.run(run, env=told, capture_output=True, text=True, timeout=600, check=False)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            states: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
            return states

        yield plane, day


def test_a_better_bundle_is_promoted_and_a_worse_one_is_not_but_the_answers_stay_fresh(
    service: tuple[ControlPlane, Day], tmp_path: Path
) -> None:
    plane, day = service
    old = tmp_path / "work" / "2026-01-01T000000"
    other = tmp_path / "work" / "notes"
    for folder in (*(old.with_name(f"2026-01-{n:02}T000000") for n in range(1, 16)), other):
        folder.mkdir(parents=True)
    assert day("logistic") == GOOD
    assert (old.exists(), other.exists(), len(list(old.parent.glob("2026-01-*")))) == (False, True, 13)
    assert plane.fate.names() == ["CreateModel", "CreateEndpointConfig", "UpdateEndpoint"]
    [update] = [asked for verb, asked in plane.fate.asked if verb == "UpdateEndpoint"]
    watching = [one["AlarmName"] for one in update["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]]
    assert watching == [f"newcomers-endpoint-{name}-release" for name in ("5xx", "failed", "latency", "latency-mean")]
    (promoted,) = (tmp_path / "work").glob("*/bundle")
    assert json.loads((promoted / "manifest.json").read_text())["predictor"]["model"] == "logistic"
    user = pq.read_table(tmp_path / "tables" / "registrations.parquet", columns=["user_id"])["user_id"][0].as_py()
    kept = open_scores(f"sqlite:{tmp_path / 'scores.db'}").get(user)
    assert kept is not None

    plane.fate.asked.clear()
    assert day("popularity") == GOOD | dict.fromkeys(("gate", "package", "promote"), "skipped")
    assert plane.fate.names() == []
    *_, served = sorted((tmp_path / "work").glob("*/serving"))
    assert (served / "manifest.json").read_bytes() == (promoted / "manifest.json").read_bytes()
    again = open_scores(f"sqlite:{tmp_path / 'scores.db'}").get(user)
    assert again == kept  # by the model that was promoted, not by today's


def test_a_promotion_that_an_alarm_takes_back_leaves_the_answers_of_the_bundle_that_serves(
    service: tuple[ControlPlane, Day], tmp_path: Path
) -> None:
    plane, day = service
    life = plane.fate.lives["newcomers"]
    first = life.configuration
    assert day("logistic")["promote"] == "success"
    user = pq.read_table(tmp_path / "tables" / "registrations.parquet", columns=["user_id"])["user_id"][0].as_py()
    before = open_scores(f"sqlite:{tmp_path / 'scores.db'}").get(user)
    assert before is not None
    life.configuration = first  # rolled back by hand to popularity, which any other bundle beats
    plane.fate.ringing.add("newcomers-endpoint-5xx-release")
    plane.fate.asked.clear()
    assert day("logistic --without country") == GOOD | {"promote": "failed", "outcome": "failed"}
    assert plane.fate.names().count("UpdateEndpoint") == 1  # not tried again
    after = open_scores(f"sqlite:{tmp_path / 'scores.db'}").get(user)
    assert after is not None
    assert after.model != before.model
    assert after.model == load(tmp_path / "first").id  # which serves, and was never promoted here


def test_a_command_that_fails_fails_its_task_and_nothing_is_promoted(
    service: tuple[ControlPlane, Day], tmp_path: Path
) -> None:
    plane, day = service
    (tmp_path / "tables" / "listens.parquet").unlink()
    states = day("logistic")
    assert (states["label"], states["promote"], states["outcome"]) == ("failed", "upstream_failed", "failed")
    assert states["score"] == "success"  # by the bundle that serves
    assert plane.fate.names() == []


def test_a_backfill_ends_its_data_with_its_interval_and_releases_nothing() -> None:
    asked = """
import json, sys
from datetime import UTC, datetime
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
import daily
from airflow.sdk.exceptions import AirflowSkipException
told = []
for kind in ("backfill", "scheduled", "manual"):
    moment = datetime(2026, 3, 2, tzinfo=UTC)
    run = SimpleNamespace(run_type=kind, data_interval_end=moment, run_after=moment.replace(day=3))
    try:
        daily.refuse_backfill({"dag_run": run})
        released = True
    except AirflowSkipException:
        released = False
    told.append([kind, *(of({"dag_run": run}) for of in (daily.until, daily.held_back)), released])
hours = {one.task_id: one.execution_timeout.total_seconds() / 3600 for one in daily.daily.tasks}
print(json.dumps([told, hours]))
"""
    run = [AIRFLOW / "python", "-c", asked, str(HERE / "dags")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, check=True)
    runs, hours = json.loads(done.stdout.splitlines()[-1])
    assert runs == [
        ["backfill", ["--data-ends", "2026-03-02T00:00:00Z"], ["--data-ends", "2025-12-18T00:00:00Z"], False],
        ["scheduled", [], ["--data-ends", "2025-12-19T00:00:00Z"], True],
        ["manual", [], ["--data-ends", "2025-12-19T00:00:00Z"], True],
    ]
    assert hours == dict.fromkeys((*ALL, "outcome"), 2) | {"train": 6, "promote": 10}
    assert hours["promote"] * 3600 > MAX_SECONDS + MARGIN_SECONDS  # SageMaker's longest update, and its way back

"""The image's entrypoint as SageMaker runs it, in a private /opt/ml."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firstspin import bundle
from firstspin.cli.container import serving
from firstspin.world import write_world

BASE = Path("/opt/ml")
ONLINE = "--largest-answer 6291456"


def start(base: Path, hyperparameters: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A training job on whatever lies in its channel."""
    for name in ("input/config", "input/data/training", "model", "output/data", "checkpoints"):
        (base / name).mkdir(parents=True, exist_ok=True)
    (base / "input/config/hyperparameters.json").write_text(json.dumps(hyperparameters or {}))
    environment = os.environ | {"SAGEMAKER_BASE_DIR": str(base), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", "from firstspin.cli.container import main; main()", "train"]
    with (base / "log").open("wb") as log:
        return subprocess.Popen(words, env=environment, stdout=log, stderr=log)


def until_said(job: subprocess.Popen[bytes], base: Path, words: str) -> None:
    while words not in (base / "log").read_text():
        assert job.poll() is None
        time.sleep(0.02)


def failure(base: Path) -> str | None:
    path = base / "output" / "failure"
    return path.read_text() if path.exists() else None


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"modle": "logistic"}, "hyperparameter modle"),
        ({"seed": "seven"}, "hyperparameter seed: 'seven' is not a number"),
        ({"data_ends": "soon"}, "hyperparameter data_ends"),
        ({}, "training has neither"),
    ],
)
def test_a_job_that_cannot_be_done_says_why(told: dict[str, str], said: str, tmp_path: Path) -> None:
    assert start(tmp_path, told).wait(60) == 1
    assert said in (failure(tmp_path) or "")
    assert not list((tmp_path / "model").iterdir())


def test_a_job_leaves_a_bundle_and_figures_for_tuning(tmp_path: Path) -> None:
    write_world(tmp_path / "input" / "data" / "training", 600, 1, lambda _: None)
    told = {"model": "logistic", "seed": "3", "gap_days": "30", "sagemaker_program": "anything", "_tuning_x": "y"}
    assert start(tmp_path, told).wait(120) == 0
    packed = bundle.load(tmp_path / "model")
    assert packed.manifest.predictor.model == "logistic"
    log = (tmp_path / "log").read_text()
    assert "valid_hit3=0." in log
    assert f"bundle={packed.id};" in log
    assert failure(tmp_path) is None
    assert not list((tmp_path / "checkpoints").iterdir())  # without tuning, an interrupted job starts anew


def test_a_job_that_is_stopped_leaves_the_business_rule(tmp_path: Path) -> None:
    write_world(tmp_path / "input" / "data" / "training", 4000, 1, lambda _: None)
    job = start(tmp_path, {"model": "lightgbm"})
    until_said(job, tmp_path, " times")
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 0
    left = bundle.load(tmp_path / "model")
    assert left.manifest.predictor.model == "popularity"
    assert left.manifest.scorecard is None
    assert failure(tmp_path) is None


def tried_until_stopped(base: Path, trials: int) -> list[object]:
    """What is kept of a job that tunes and is stopped after so many trials, or a few more."""
    job = start(base, {"model": "logistic", "trials": "100000"})
    until_said(job, base, f"tuning, {trials} tried")
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 0
    kept: list[object] = json.loads((base / "checkpoints" / "tuning.json").read_bytes())["tried"]["logistic"]
    return kept


def test_a_job_that_is_stopped_while_it_tunes_goes_on_when_it_is_started_again(tmp_path: Path) -> None:
    write_world(tmp_path / "input" / "data" / "training", 600, 1, lambda _: None)
    before = tried_until_stopped(tmp_path, 2)
    after = tried_until_stopped(tmp_path, len(before) + 2)
    assert len(before) >= 2
    assert len(after) >= len(before) + 2
    assert after[: len(before)] == before
    assert f"tuning, {len(before)} tried" not in (tmp_path / "log").read_text()
    assert bundle.load(tmp_path / "model").predictor.name == "popularity"


def test_a_job_that_is_stopped_before_it_has_read_says_so(tmp_path: Path) -> None:
    write_world(tmp_path / "input" / "data" / "training", 4000, 1, lambda _: None)
    job = start(tmp_path)
    until_said(job, tmp_path, "reading the tables")
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 1
    assert failure(tmp_path) == "stopped before the tables were read"
    assert not list((tmp_path / "model").iterdir())


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, f"--host 0.0.0.0 --port 8080 --bundle /opt/ml/model --workers 4 {ONLINE}"),
        (
            {"SAGEMAKER_BIND_TO_PORT": "9000", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
            f"--host 0.0.0.0 --port 9000 --bundle /opt/ml/model --workers 1 {ONLINE}",
        ),
        (
            {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_CONTAINER_LOG_LEVEL": "30"},
            f"--host 0.0.0.0 --port 8080 --models /opt/ml/models --workers 4 {ONLINE} --log-level warning",
        ),
        ({"FIRSTSPIN_WORKERS": "2"}, f"--host 0.0.0.0 --port 8080 --bundle /opt/ml/model {ONLINE}"),
        (
            {"SAGEMAKER_BATCH": "true"},
            "--host 0.0.0.0 --port 8080 --bundle /opt/ml/model --workers 4 --most-newcomers 0 --body-seconds 600",
        ),
        (
            {"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "20", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
            "--host 0.0.0.0 --port 8080 --bundle /opt/ml/model --workers 1 --most-newcomers 0 --body-seconds 600 "
            "--largest-body 20971520",
        ),
    ],
)
def test_sagemakers_variables_become_the_services_options(told: dict[str, str], words: str) -> None:
    assert " ".join(serving(BASE, told, cores=4)) == words


def test_another_argument_is_wrong_usage() -> None:
    words = [sys.executable, "-c", "from firstspin.cli.container import main; main()", "evaluate"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "usage: firstspin-container train|serve\n")

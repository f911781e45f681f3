"""The image's entrypoint as SageMaker runs it, in a private /opt/ml."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import made_tables
import pytest
from made_bundles import pack
from training_job import ENTRYPOINT, failure, prepared, start, trained

from firstspin import learn
from firstspin.cli import container
from firstspin.cli.container import serving, train
from firstspin.records import InputError
from firstspin.serving import bundle
from firstspin.simulation.world import write_world
from firstspin.tools.sagemaker_check import lifecycle
from firstspin.tools.sagemaker_check.client import ReadLimits
from firstspin.tools.sagemaker_check.player import Target

BASE = Path("/opt/ml")
ONLINE = "--largest-answer 6291456"


def until_said(job: subprocess.Popen[bytes], base: Path, words: str) -> None:
    while words not in (base / "log").read_text():
        assert job.poll() is None
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"modle": "logistic"}, "hyperparameter modle"),
        ({"seed": "seven"}, "hyperparameter seed: Input should be a valid integer"),
        ({"data_ends": "soon"}, "hyperparameter data_ends"),
        ({}, "training has neither"),
    ],
)
def test_a_job_that_cannot_be_done_says_why(told: dict[str, str], said: str, tmp_path: Path) -> None:
    assert trained(tmp_path, told) == 1
    assert said in (failure(tmp_path) or "")
    assert not list((tmp_path / "model").iterdir())


def test_a_job_leaves_a_bundle_and_figures_for_tuning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_world(tmp_path / "input" / "data" / "training", 600, 1)
    told = {"model": "logistic", "seed": "3", "gap_days": "30", "sagemaker_program": "anything", "_tuning_x": "y"}
    assert trained(tmp_path, told) == 0
    packed = bundle.load(tmp_path / "model")
    assert packed.manifest.predictor.model == "logistic"
    log = capsys.readouterr().out
    assert "valid_hit3=0." in log
    assert f"bundle={packed.id};" in log
    assert failure(tmp_path) is None
    assert not list((tmp_path / "checkpoints").iterdir())  # without tuning, an interrupted job starts anew


def test_a_job_makes_the_folder_of_its_model_and_takes_a_quoted_name(tmp_path: Path) -> None:
    write_world(tmp_path / "input" / "data" / "training", 300, 1)
    prepared(tmp_path, b'{"model": "\\"popularity\\""}')
    (tmp_path / "model").rmdir()  # SageMaker makes it, other engines may not
    assert train(tmp_path) == 0, failure(tmp_path)
    assert bundle.load(tmp_path / "model").manifest.predictor.model == "popularity"


def test_a_job_that_is_stopped_leaves_the_business_rule(tmp_path: Path) -> None:
    write_world(tmp_path / "input" / "data" / "training", 2000, 1)
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
    write_world(tmp_path / "input" / "data" / "training", 300, 1)
    before = tried_until_stopped(tmp_path, 2)
    after = tried_until_stopped(tmp_path, len(before) + 2)
    assert len(before) >= 2
    assert len(after) >= len(before) + 2
    assert after[: len(before)] == before
    assert f"tuning, {len(before)} tried" not in (tmp_path / "log").read_text()
    assert bundle.load(tmp_path / "model").predictor.name == "popularity"


def test_a_stop_on_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "manifest.json").write_text("{}")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(container, "_leave", full)
    assert container._stopped(tmp_path, tmp_path / "early") == 1
    assert "No space left on device" in (failure(tmp_path) or "")


def test_a_mistake_of_ours_names_its_kind_and_place_and_quotes_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared(tmp_path, b"{}")
    monkeypatch.setattr(learn, "train", lambda *_, **__: float("user-4711,female,17"))
    assert train(tmp_path) == 1
    assert failure(tmp_path) == "this is our mistake (ValueError); the log names the place"
    log = capsys.readouterr().err
    assert "container.py" in log
    assert "4711" not in log


def test_a_bad_row_is_named_without_what_stands_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared(tmp_path, b"{}")
    rows = [("user-4711", "2025-01-01T00:00:00Z", "female", "17", "", "")] * 12
    made_tables.tables(tmp_path / "input/data/training", rows, [])
    assert train(tmp_path) == 1
    said = failure(tmp_path)
    assert said
    assert said.startswith("registrations.csv row 1: age is not a number\nregistrations.csv row 2: age is not")
    assert said.endswith("and 2 more bad rows\nThe hyperparameter skip_bad_rows=true drops bad rows.")
    for kept in (said, capsys.readouterr().err):
        assert not [word for word in ("4711", "female", "'17'") if word in kept]


def test_a_date_that_is_no_iso_time_has_the_hint_of_its_hyperparameter(tmp_path: Path) -> None:
    prepared(tmp_path, b"{}")
    made_tables.tables(tmp_path / "input/data/training", [("1", "31.12.2025", "", "", "", "")], [])
    assert train(tmp_path) == 1
    said = str(failure(tmp_path)).splitlines()
    assert said[1] == "registered_at: --dates day-first reads such dates, without a zone as UTC"
    prepared(tmp_path, b'{"dates": "day-first"}')
    assert train(tmp_path) == 1
    assert "no training data" in str(failure(tmp_path))


def test_the_service_forks_before_numpy_has_threads(tmp_path: Path) -> None:
    pack(tmp_path / "b")
    image = Target(ENTRYPOINT, environment=os.environ, limits=ReadLimits(ready=60))
    with lifecycle.serving(image, tmp_path / "host", tmp_path / "b", {}) as host:
        assert host.client is not None, host.failure
        status = Path(f"/proc/{host.container.process.pid}/status").read_text()
    assert "Threads:\t1\n" in status


def test_a_job_that_is_stopped_before_it_has_read_says_so(tmp_path: Path) -> None:
    write_world(tmp_path / "input" / "data" / "training", 2000, 1)
    job = start(tmp_path)
    until_said(job, tmp_path, "reading the tables")
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 1
    assert failure(tmp_path) == "stopped before the tables were read"
    assert not list((tmp_path / "model").iterdir())


def test_a_job_that_is_stopped_while_it_still_imports_says_so(tmp_path: Path) -> None:
    job = start(tmp_path)
    while not _blocks_sigterm(job.pid):
        time.sleep(0.001)
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 1
    assert failure(tmp_path) == "stopped before the tables were read"


def _blocks_sigterm(pid: int) -> bool:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigBlk"))
    return bool(int(line.split()[1], 16) & 1 << signal.SIGTERM - 1)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"seed": "-1"}, "hyperparameter seed: Input should be greater than or equal to 0"),
        ({"seed": "two"}, "hyperparameter seed: Input should be a valid integer"),
        ({"trials": "-3"}, "hyperparameter trials: Input should be greater than or equal to 0"),
        ({"tune": "nan"}, "hyperparameter tune: Input should be"),
        ({"tune": "inf"}, "none of them below 0"),
        ({"gap_days": "-5"}, "hyperparameter gap_days: Input should be greater than or equal to 0"),
        ({"gap_days": "99999999999"}, "the label's gap is 0 to 3650 days"),
        ({"least_seconds": "inf"}, "0 or more"),
        ({"data_ends": "tomorrow"}, "hyperparameter data_ends: 'tomorrow' is not a date or time"),
        ({"skip_bad_rows": "maybe"}, "hyperparameter skip_bad_rows: 'maybe' is neither true nor false"),
        ({"erased": "sqlite:///e"}, "hyperparameter erased: an event store needs its address and --events-secret"),
        ({"events_secret": "s"}, "hyperparameter events_secret: --erased says of which store"),
        ({"out": "elsewhere"}, "hyperparameter out: `firstspin train` has no such option"),
        ({"depth": "3"}, "hyperparameter depth: `firstspin train` has no such option"),
    ],
)
def test_a_hyperparameter_that_cannot_be_is_named_in_the_failure_file(
    told: dict[str, str], why: str, tmp_path: Path
) -> None:
    assert trained(tmp_path, told) == 1
    assert why in (failure(tmp_path) or "")


@pytest.mark.parametrize("told", [b"\xff\xfe", b'{"seed": "\xff"}', b"{", b'{"model": {"name": "auto"}}', b"[]"])
def test_hyperparameters_that_cannot_be_read_are_a_failure_with_a_reason(told: bytes, tmp_path: Path) -> None:
    prepared(tmp_path, told)
    assert train(tmp_path) == 1
    said = failure(tmp_path) or ""
    assert said.startswith("hyperparameters.json: ")
    assert "codec" not in said


def test_a_question_that_nobody_was_asked_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    write_world(tmp_path / "input" / "data" / "training", 300, 1)
    assert trained(tmp_path, {"model": "popularity", "without": "shoe"}) == 1
    assert "'shoe' can't be left out: the questions are age, gender, country, genres" in (failure(tmp_path) or "")


def test_a_bundle_that_does_not_fit_leaves_no_manifest(tmp_path: Path) -> None:
    for name in ("manifest.json", "a.npy", "z.npy"):
        (tmp_path / "bundle").mkdir(exist_ok=True)
        (tmp_path / "bundle" / name).write_text(name)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "z.npy").mkdir()  # nothing can be written there
    with pytest.raises(IsADirectoryError):
        container._leave(tmp_path / "bundle", tmp_path / "model")
    assert not (tmp_path / "model" / "manifest.json").exists()


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
        (
            {"SAGEMAKER_MODEL_SERVER_WORKERS": ""},
            f"--host 0.0.0.0 --port 8080 --bundle /opt/ml/model --workers 4 {ONLINE}",
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


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "http", "'http' is not a whole number from 0 to 65535"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "many", "'many' is not a whole number from 1 to 64"),
        ("SAGEMAKER_MULTI_MODEL", "ture", "'ture' is neither true nor false"),
        ("SAGEMAKER_BATCH", "2", "'2' is neither true nor false"),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "loud", "'loud' is not one of 0, 10, 20, 30, 40, 50"),
    ],
)
def test_a_variable_of_sagemakers_that_cannot_be_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        serving(BASE, {name: value}, cores=4)
    assert str(refused.value).startswith(f"{name}: {said}")


def test_what_kubernetes_sets_for_a_service_named_firstspin_ends_the_container_in_one_line(tmp_path: Path) -> None:
    told = os.environ | {"SAGEMAKER_BASE_DIR": str(tmp_path), "FIRSTSPIN_PORT": "tcp://10.96.0.7:8080"}
    done = subprocess.run([*ENTRYPOINT, "serve"], env=told, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "FIRSTSPIN_PORT" in done.stderr
    assert "enableServiceLinks: false" in done.stderr


@pytest.mark.parametrize("model", ['"popularity"', "popularity"])
def test_hyperparameters_are_read_as_sagemakers_sdk_writes_them(model: str, tmp_path: Path) -> None:
    write_world(tmp_path / "input" / "data" / "training", 300, 1)
    told = {"model": model, "seed": '"7"', "skip_bad_rows": "True", "without": '["gender", "country"]', "extra": ""}
    assert trained(tmp_path, told) == 0
    packed = bundle.load(tmp_path / "model")
    assert packed.predictor.name == "popularity"
    assert [question["name"] for question in packed.manifest.encoder["questions"]] == ["age", "genres"]  # type: ignore[attr-defined]


def test_the_largest_instances_have_more_cores_than_workers_are_of_use() -> None:
    assert serving(BASE, {}, cores=128)[7] == "64"


def test_another_argument_is_wrong_usage() -> None:
    words = [*ENTRYPOINT, "evaluate"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "usage: firstspin-container train|serve\n")

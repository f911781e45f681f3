"""The Lambda's zip, made as the docs say: it answers with nothing of ours on the path but what is in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BIN = ROOT / ".venv" / "bin"
ZIP = ROOT / "deploy" / "aws" / "lambda.sh"
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PLANNED = ("--baseline", "0.05", "--registrations-a-day", "20000")
ASK = """
import json, firstspin, msgspec, numpy
from firstspin.aws.lambda_handler import handler
event = {"httpMethod": "POST", "path": "/invocations", "headers": {}, "body": '{"age": 31, "genres": ["Rock"]}'}
of_user = event | {"path": "/recommendations", "body": '{"user_id": "a", "age": 31, "genres": ["Rock"]}'}
answers = [handler(event), handler(of_user)]
print(json.dumps([answers, [module.__file__ for module in (msgspec, numpy)], *firstspin.__path__]))
"""
pytestmark = pytest.mark.skipif(
    not (BIN / "firstspin").exists(), reason="run `make setup` first: the zip is made with its Python"
)


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=240, check=True
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zip")
    run(BIN / "firstspin", "world", folder / "tables", "--users", "300")
    run(BIN / "firstspin", "train", "--data", folder / "tables", "--out", folder / "b", "--model", "popularity")
    return folder / "b"


def test_the_zip_answers_by_itself_where_no_endpoint_does(bundle: Path, tmp_path: Path) -> None:
    plan = tmp_path / "experiment.toml"
    run(BIN / "firstspin", "experiment", "plan", "--name", "zip", *PLANNED, "--out", plan)
    run(ZIP, bundle, tmp_path / "lambda.zip", plan, RUNTIME=HERE)
    with zipfile.ZipFile(tmp_path / "lambda.zip") as archive:
        archive.extractall(tmp_path / "task")
    done = run(
        BIN / "python",
        "-c",
        ASK,
        PYTHONPATH=str(tmp_path / "task"),
        FIRSTSPIN_ENDPOINT="newcomers",
        FIRSTSPIN_BUNDLE=str(tmp_path / "task" / "bundle"),
        FIRSTSPIN_EXPERIMENT=str(tmp_path / "task" / "experiment.toml"),
        FIRSTSPIN_EVENTS_KEY=32 * "0f",
        FIRSTSPIN_EXPOSURES_STREAM="exposures",
        AWS_ENDPOINT_URL_FIREHOSE="http://127.0.0.1:9",
        AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME="http://127.0.0.1:9",  # where nobody listens
        AWS_ACCESS_KEY_ID="none",
        AWS_SECRET_ACCESS_KEY="none",
        AWS_DEFAULT_REGION="eu-central-1",
    )
    answers, others, *ours = json.loads(done.stdout.splitlines()[-1])
    assert [answer["statusCode"] for answer in answers] == [200, 200]
    of_nobody, of_user = (json.loads(answer["body"])["source"] for answer in answers)
    assert (of_nobody, of_user in ("rule", "rule-arm")) == ("rule", True)  # the plan's day decides the user's arm
    assert ours == [str(tmp_path / "task" / "firstspin")]
    assert all(path.startswith(str(tmp_path / "task")) for path in others)


def test_the_zip_is_for_the_runtime_that_the_template_names(bundle: Path, tmp_path: Path) -> None:
    run(ZIP, bundle, tmp_path / "lambda.zip")
    names = zipfile.ZipFile(tmp_path / "lambda.zip").namelist()
    made_for = {found[1] for name in names if (found := re.search(r"\.cpython-(\d+)-", name))}
    front = (ROOT / "deploy" / "aws" / "firstspin_aws" / "front.py").read_text()
    assert re.findall(r"Runtime\.PYTHON_(\d)_(\d+)", front) == [(text[0], text[1:]) for text in made_for]
    assert all("-x86_64-linux-gnu" in name for name in names if ".cpython-" in name)
    assert not [name for name in names if name.startswith("bin/")]  # scripts that name this machine's Python

"""The Lambda's zip, made as the docs say: it answers with nothing of ours on the path but what is in it."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BIN = ROOT / ".venv" / "bin"
ASK = """
import json, firstspin, msgspec, numpy
from firstspin.cloud.lambda_handler import handler
event = {"httpMethod": "POST", "path": "/v1/invocations", "headers": {}, "body": '{"age": 31, "genres": ["Rock"]}'}
print(json.dumps([handler(event), [module.__file__ for module in (msgspec, numpy)], *firstspin.__path__]))
"""


@pytest.mark.skipif(not (BIN / "firstspin").exists(), reason="run `make setup` first: the zip is made with its Python")
def test_the_zip_answers_by_itself_where_no_endpoint_does(tmp_path: Path) -> None:
    for words in (
        [BIN / "firstspin", "world", tmp_path / "tables", "--users", "300"],
        [BIN / "firstspin", "train", "--data", tmp_path / "tables", "--out", tmp_path / "b", "--model", "popularity"],
        [ROOT / "deploy" / "aws" / "lambda.sh", tmp_path / "b", tmp_path / "lambda.zip"],
    ):
        subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=240)
    with zipfile.ZipFile(tmp_path / "lambda.zip") as archive:
        archive.extractall(tmp_path / "task")
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path / "task"),
        "FIRSTSPIN_ENDPOINT": "newcomers",
        "FIRSTSPIN_BUNDLE": str(tmp_path / "task" / "bundle"),
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": "http://127.0.0.1:9",  # where nobody listens
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    command = [str(BIN / "python"), "-c", ASK]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    answer, others, *ours = json.loads(done.stdout.splitlines()[-1])
    assert (answer["statusCode"], json.loads(answer["body"])["source"]) == (200, "rule")
    assert ours == [str(tmp_path / "task" / "firstspin")]
    assert all(path.startswith(str(tmp_path / "task")) for path in others)

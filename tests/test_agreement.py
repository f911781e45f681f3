"""Batch and HTTP agree for every real listener, to the last bit."""

from __future__ import annotations

import csv
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
PORTION = 200


def firstspin(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "firstspin", *map(str, words)], check=True, capture_output=True, timeout=300)


@contextmanager
def served(bundle: Path) -> Iterator[http.client.HTTPConnection]:
    """A connection to a real service with this bundle."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "firstspin", "serve", "--bundle", str(bundle), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            wait_until_ready(connection)
            yield connection
        finally:
            connection.close()
            process.terminate()
            process.wait(timeout=60)


def wait_until_ready(connection: http.client.HTTPConnection) -> None:
    for _ in range(600):
        try:
            connection.request("GET", "/ping")
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                return
        except OSError:
            connection.close()
        time.sleep(0.05)
    raise AssertionError("the service did not become ready")


@pytest.mark.parametrize("task", ["lastfm-2k", "lastfm-1k"])
@pytest.mark.parametrize("model", ["logistic"])
def test_score_and_invocations_agree_for_every_listener(task: str, model: str, tmp_path: Path) -> None:
    data = DATA / task
    if not data.is_dir():
        pytest.skip(f"no real listeners here: {data} is absent")
    firstspin("train", "--data", data, "--model", model, "--out", tmp_path / "b")
    asked = data / "registrations.csv"
    firstspin("score", "--bundle", tmp_path / "b", "--registrations", asked, "--out", tmp_path / "o.csv")
    with asked.open(encoding="utf-8") as file:
        bodies = [
            {
                "age": int(row["age"]) if row["age"] else None,
                "gender": row["gender"] or None,
                "country": row["country"] or None,
                "genres": row["genres"].split("|") if row["genres"] else [],
            }
            for row in csv.DictReader(file)
        ]
    with (tmp_path / "o.csv").open(encoding="utf-8") as file:
        scored = [(row["genres"].split("|"), row["probabilities"].split("|")) for row in csv.DictReader(file)]
    answered = []
    with served(tmp_path / "b") as connection:
        for start in range(0, len(bodies), PORTION):
            body = json.dumps({"instances": bodies[start : start + PORTION]})
            connection.request("POST", "/invocations", body, {"content-type": "application/json"})
            answered += json.loads(connection.getresponse().read())["predictions"]
    told = [
        ([genre["genre"] for genre in answer["genres"]], [repr(genre["probability"]) for genre in answer["genres"]])
        for answer in answered
    ]
    assert told == scored

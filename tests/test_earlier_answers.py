"""Answers without listens are, byte for byte, those of the release before listens, at every entry point.

`bundles_of_0.1/answers.json` was written by that release, from its bundles: the row of CSV and the hash of the JSON.
"""

from __future__ import annotations

import csv
import hashlib
import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command_line import firstspin
from gateway_events import rest
from made_app import ask, new_app
from stand_in_runtime import endpoint

from firstspin.api import Recommender
from firstspin.aws.front.gateway import from_environment
from firstspin.service.app import App
from firstspin.service.process.worker import load
from firstspin.serving import bundle
from firstspin.serving.lookups import UserLookups
from firstspin.serving.policy import PolicySettings

EARLIER = Path(__file__).parent / "bundles_of_0.1"
GOLDEN: dict[str, list[dict[str, Any]]] = json.loads((EARLIER / "answers.json").read_text())
JSON, LINES, CSV = "application/json", "application/jsonlines", "text/csv"


class Nothing:
    """A store without listens."""

    def get(self, user_id: str) -> None:
        """None of anybody."""


@cache
def app(name: str, *, from_events: bool = False) -> App:
    lookups = {"listens": UserLookups(Nothing, lambda: 0, budget=20)} if from_events else {}
    made = new_app(policy=PolicySettings(listens_from_events=from_events), **lookups)
    made.serve(load(EARLIER / name))
    return made


def digest(answer: bytes | bytearray) -> str:
    return hashlib.sha256(answer).hexdigest()


def posted(to: App, path: str, body: bytes, kind: str = JSON) -> bytes:
    reply = ask(to, "POST", path, body, content_type=kind)
    assert reply.status == 200, reply.body
    return bytes(reply.body)


@pytest.mark.parametrize("name", GOLDEN)
def test_over_http(name: str) -> None:
    people = [json.dumps(golden["registration"]).encode() for golden in GOLDEN[name]]
    expected = [golden["sha256"] for golden in GOLDEN[name]]
    assert [digest(posted(app(name), "/invocations", one)) for one in people] == expected
    lines = posted(app(name), "/invocations", b"\n".join(people), LINES).splitlines()
    assert list(map(digest, lines)) == expected
    several = posted(app(name), "/invocations", b'{"instances":[' + b",".join(people) + b"]}")
    assert several == b'{"predictions":[' + b",".join(lines) + b"]}"
    nothing = {"user_id": "u", "listens": []}
    of_users = [json.dumps(golden["registration"] | nothing).encode() for golden in GOLDEN[name]]
    for made in (app(name), app(name, from_events=True)):
        assert [digest(posted(made, "/v1/recommendations", one)) for one in of_users] == expected


@pytest.mark.parametrize("name", GOLDEN)
def test_in_rows(name: str, tmp_path: Path) -> None:
    extra = tuple(bundle.load(EARLIER / name).manifest.extra)
    columns = ("age", "gender", "country", "genres", *extra)
    people = [golden["registration"] for golden in GOLDEN[name]]
    cells = [one | {"genres": "|".join(one.get("genres", ()))} for one in people]
    expected = [golden["row"] for golden in GOLDEN[name]]
    with (tmp_path / "new.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ("user_id", *columns), restval="", lineterminator="\n")
        table.writeheader()
        table.writerows([one | {"user_id": str(number)} for number, one in enumerate(cells)])
    body = (tmp_path / "new.csv").read_bytes()
    assert posted(app(name), "/invocations", body, CSV).decode().splitlines() == expected
    if not extra:
        return  # a process takes seconds
    options = ("--registrations", tmp_path / "new.csv", "--out", tmp_path / "scored.csv", "--least-age", "13")
    done = firstspin("score", "--bundle", EARLIER / name, *options)
    assert done.returncode == 0, done.stderr
    scored = (tmp_path / "scored.csv").read_text().splitlines()[1:]
    assert [row.split(",", 1)[1] for row in scored] == expected


@pytest.mark.parametrize("name", GOLDEN)
def test_in_python_and_the_lambda(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = Recommender(EARLIER / name)
    for golden in GOLDEN[name]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that the model does not know
            answer = recommender.recommend(golden["registration"])
        assert digest(msgspec.json.encode(answer)) == golden["sha256"]
    keys = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1"}
    with endpoint(lambda sent, kind: posted(app(name), "/invocations", sent, kind)) as runtime:
        for key, value in (keys | {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": runtime.url}).items():
            monkeypatch.setenv(key, value)
        gateway = from_environment(
            {"FIRSTSPIN_ENDPOINT": "newcomers", "FIRSTSPIN_BUNDLE": str(EARLIER / name), "FIRSTSPIN_BUDGET": "60"}
        )
        for golden in GOLDEN[name]:
            of_user = golden["registration"] | {"user_id": "u"}
            for reply in (
                gateway(rest(json.dumps(golden["registration"]))),
                gateway(rest(json.dumps(of_user), path="/v1/recommendations")),
            ):
                assert digest(reply["body"].encode()) == golden["sha256"]


def test_in_the_terminal() -> None:
    golden = next(one for one in GOLDEN["network"] if one["registration"].get("age") == 67)
    asked = golden["registration"]
    words = ("--age", asked["age"], "--gender", asked["gender"], "--country", asked["country"])
    done = firstspin(
        "recommend", "--bundle", EARLIER / "network", *words, "--genres", "|".join(asked["genres"]), "--json"
    )
    assert digest(msgspec.json.encode(json.loads(done.stdout))) == golden["sha256"]

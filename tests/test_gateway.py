"""The Lambda answers inside its budget, whatever the endpoint does. boto3 is real; only AWS is stood in for."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_bundle import pack

from firstspin.cloud.gateway import Gateway, from_environment
from firstspin.recommender import Recommender
from firstspin.records import Registration

BODY = '{"age": 31, "gender": "female", "genres": ["Rock"]}'


class Endpoint(ThreadingHTTPServer):
    """Stands in for sagemaker-runtime: `POST /endpoints/NAME/invocations`, in one of its moods."""

    mood = "well"
    calls = 0
    answer = b"{}"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        self.server.calls += 1
        assert self.path == "/endpoints/newcomers/invocations"
        self.rfile.read(int(self.headers["content-length"]))
        moods = {"well": (200, ""), "hiccup": (503, "ServiceUnavailable"), "missing": (400, "ValidationError")}
        status, code = moods.get(self.server.mood, (200, ""))
        if self.server.mood == "slow":
            time.sleep(1.5)
        if self.server.mood == "hiccup":
            self.server.mood = "well"
        body = self.server.answer if status == 200 else b'{"Message": "no"}'
        self.send_response(status)
        self.send_header("content-type", self.headers["content-type"])
        self.send_header("content-length", str(len(body)))
        if code:
            self.send_header("x-amzn-errortype", code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gateway") / "b"
    pack(folder)
    return folder


@pytest.fixture
def gateway(endpoint: Endpoint, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    made = from_environment(
        {
            "FIRSTSPIN_ENDPOINT": "newcomers",
            "FIRSTSPIN_BUNDLE": str(bundle_folder),
            "FIRSTSPIN_RUNTIME_URL": f"http://127.0.0.1:{endpoint.server_port}",
            "FIRSTSPIN_BUDGET": "0.8",
        }
    )
    asked = msgspec.json.decode(BODY, type=Registration)
    endpoint.answer = msgspec.json.encode(made.fallback.recommend(asked))
    return made


def rest(body: str = BODY, **changed: Any) -> dict[str, Any]:
    """An event of a REST API (payload 1.0)."""
    headers = {"Content-Type": "application/json"}
    return {"httpMethod": "POST", "path": "/prod/invocations", "headers": headers, "body": body} | changed


def http_api(body: str = BODY) -> dict[str, Any]:
    """An event of an HTTP API (payload 2.0), its body in base64."""
    return {
        "version": "2.0",
        "rawPath": "/invocations",
        "requestContext": {"http": {"method": "POST"}},
        "headers": {"content-type": "application/json"},
        "body": base64.b64encode(body.encode()).decode(),
        "isBase64Encoded": True,
    }


@pytest.mark.parametrize("event", [rest(), http_api()])
def test_the_endpoints_answer_comes_through_as_it_is(
    gateway: Gateway, endpoint: Endpoint, event: dict[str, Any]
) -> None:
    reply = gateway(event)
    assert reply["statusCode"] == 200
    assert reply["body"].encode() == endpoint.answer
    assert json.loads(reply["body"])["source"] == "model"


@pytest.mark.parametrize(("mood", "calls"), [("slow", 2), ("missing", 1)])
def test_an_endpoint_that_does_not_answer_is_covered_by_the_rule(
    gateway: Gateway, endpoint: Endpoint, mood: str, calls: int
) -> None:
    endpoint.mood = mood
    answer = json.loads(gateway(rest())["body"])
    assert answer["source"] == "rule"
    assert answer["genres"][0]["genre"] == "Rock"
    assert answer["model"] == gateway.fallback.bundle.id
    assert endpoint.calls == calls


def test_a_hiccup_is_tried_once_more(gateway: Gateway, endpoint: Endpoint) -> None:
    endpoint.mood = "hiccup"
    assert json.loads(gateway(rest())["body"])["source"] == "model"
    assert endpoint.calls == 2


def test_an_endpoint_that_is_gone_is_covered_too(gateway: Gateway, endpoint: Endpoint) -> None:
    endpoint.shutdown()
    endpoint.server_close()
    assert json.loads(gateway(rest())["body"])["source"] == "rule"


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        (rest("{"), 400, "malformed"),
        (rest('{"age": 300}'), 422, "invalid"),
        (rest('{"age": "31"}'), 422, "invalid"),
        (rest('{"age": NaN}'), 400, "malformed"),
        (rest("\ud800"), 400, "malformed"),
        (rest(headers={"content-type": "image/png"}), 415, "unsupported_content_type"),
        (rest(headers={"accept": "image/png"}), 406, "not_acceptable"),
        (rest(path="/elsewhere"), 404, "not_found"),
        (rest(httpMethod="GET"), 405, "method_not_allowed"),
        (rest("%%%", isBase64Encoded=True), 400, "malformed"),
    ],
)
def test_a_bad_request_is_refused_without_a_call(
    gateway: Gateway, endpoint: Endpoint, event: dict[str, Any], status: int, code: str
) -> None:
    reply = gateway(event)
    assert (reply["statusCode"], json.loads(reply["body"])["error"]["code"]) == (status, code)
    assert endpoint.calls == 0


def test_several_and_csv_are_answered_in_kind(gateway: Gateway, endpoint: Endpoint) -> None:
    endpoint.mood = "missing"
    several = json.loads(gateway(rest('{"instances": [{}, {"genres": ["Jazz"]}]}'))["body"])
    assert [answer["source"] for answer in several["predictions"]] == ["rule", "rule"]
    reply = gateway(rest("31,female,US,Jazz|Rock\n", headers={"content-type": "text/csv"}))
    assert reply["headers"]["content-type"] == "text/csv"
    assert reply["body"].startswith("Jazz|") or reply["body"].startswith("Rock|")


def test_no_answer_of_a_person_is_logged(
    gateway: Gateway, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.mood = "missing"
    with caplog.at_level(logging.DEBUG, logger="firstspin"):
        gateway(rest('{"age": 47, "gender": "some-gender", "genres": ["Rock"]}'))
    assert "ValidationError" in caplog.text
    assert "47" not in caplog.text
    assert "some-gender" not in caplog.text


def test_the_rule_is_the_bundles_own(gateway: Gateway, endpoint: Endpoint) -> None:
    endpoint.mood = "missing"
    asked = Registration(age=31, gender="female", genres=("Rock",))
    fallback: Recommender = gateway.fallback
    expected = fallback.fill(asked, fallback.by_rule(asked, "rule"))
    assert gateway(rest())["body"].encode() == msgspec.json.encode(expected)

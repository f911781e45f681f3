"""Stand-ins on loopback for what surrounds the Lambda: SageMaker's runtime, and Lambda's Runtime API."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from in_threads import served

ERRORS = {
    "throttled": (400, "ThrottlingException", {"Message": "Rate exceeded"}),
    "missing": (400, "ValidationError", {"Message": "Endpoint newcomers of account 123456789012 not found."}),
    "not allowed": (403, "AccessDeniedException", {"Message": "no"}),
    "not ready": (429, "ModelNotReadyException", {"Message": "loading"}),
    "unavailable": (503, "ServiceUnavailable", {"Message": "no"}),
    "internal": (500, "InternalFailure", {"Message": "no"}),
    "model failed": (424, "ModelError", {"Message": "age 31 is odd", "OriginalStatusCode": 500}),
    **{
        f"refused {status}": (424, "ModelError", {"Message": "age 31 is odd", "OriginalStatusCode": status})
        for status in (400, 404, 413, 415, 422, 429, 499)
    },
    "refused under age": (
        424,
        "ModelError",
        {
            "Message": "age 31 is odd",
            "OriginalStatusCode": 403,
            "OriginalMessage": '{"error":{"code":"under_age","message":"31 is too young"}}',
        },
    ),
}
"""Moods in which InvokeEndpoint fails: status, error type and body, as botocore's service model knows them."""


class Endpoint(ThreadingHTTPServer):
    """SageMaker's runtime, `POST /endpoints/newcomers/invocations`, in one of its moods for each call."""

    daemon_threads = True

    def __init__(self, answer: Callable[[bytes, str], bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Invocation)
        self.answer = answer
        self.moods: list[str] = []  # of the next calls; the last stays; none is "well"
        self.asked: list[bytes] = []
        self.warmed, self.connections = 0, 0
        self.inference_ids: list[str] = []
        self.done = threading.Event()  # frees whom a mood keeps waiting

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def get_request(self) -> tuple[Any, Any]:
        self.connections += 1
        return super().get_request()

    def mood(self) -> str:
        """What the next call meets."""
        return (self.moods.pop(0) if len(self.moods) > 1 else self.moods[0]) if self.moods else "well"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers hang up on purpose here."""


class _Invocation(BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/endpoints/warm-up/invocations":  # IAM knows no such right
            self.server.warmed += 1
            self._say(403, b"{}", "AccessDeniedException")
            return
        mood = self.server.mood()
        self.server.asked.append(body)
        self.server.inference_ids.append(self.headers.get("x-amzn-sagemaker-inference-id", ""))
        assert self.path == "/endpoints/newcomers/invocations"
        if not self.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential="):
            mood = "not allowed"
        if mood == "silent":  # takes the question, and never answers
            self.server.done.wait()
        elif mood == "trickling":
            self._trickle()
        elif mood == "hanging up":
            self.close_connection = True
        elif mood in ERRORS:
            status, kind, told = ERRORS[mood]
            self._say(status, json.dumps(told).encode(), kind)
        else:
            self._say(200, {"nonsense": b"<html>"}.get(mood) or self.server.answer(body, self.headers["content-type"]))

    def _say(self, status: int, body: bytes, kind: str = "") -> None:
        self.send_response(status)
        self.send_header("content-type", self.headers["content-type"])
        self.send_header("content-length", str(len(body)))
        if kind:
            self.send_header("x-amzn-errortype", kind)
        self.end_headers()
        self.wfile.write(body)

    def _trickle(self) -> None:
        """A byte now and then, each inside any read time limit, without an end."""
        self.send_response(200)
        self.send_header("content-length", "1000000")
        self.end_headers()
        with suppress(OSError):
            while not self.server.done.wait(0.02):
                self.wfile.write(b" ")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""


class RuntimeApi(ThreadingHTTPServer):
    """Lambda's Runtime API for one container: hands out events one by one and takes what the function makes of them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _RuntimeCall)
        self.events: queue.Queue[tuple[str, bytes] | None] = queue.Queue()
        self.results: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.numbers = iter(range(1_000_000))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def invoke(self, event: dict[str, Any], seconds: float = 60) -> tuple[str, Any]:
        """Hand out one event; ("response" | "error" | "init", what the function sent)."""
        self.events.put((f"request-{next(self.numbers)}", json.dumps(event).encode()))
        return self.results.get(timeout=seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A function that is killed hangs up."""


class _RuntimeCall(BaseHTTPRequestHandler):
    server: RuntimeApi
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        assert self.path == "/2018-06-01/runtime/invocation/next"
        event = self.server.events.get()
        if event is None:
            self.close_connection = True
            return
        name, body = event
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("Lambda-Runtime-Aws-Request-Id", name)
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int(time.time() * 1000) + 3_000))
        arn = "arn:aws:lambda:eu-central-1:123456789012:function:gateway"
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", arn)
        self.send_header("Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        sent = json.loads(self._body())
        kind = "init" if self.path.endswith("/init/error") else self.path.rpartition("/")[2]
        self.send_response(202)
        self.send_header("content-length", "0")
        self.end_headers()
        self.server.results.put((kind, sent))

    def _body(self) -> bytes:
        if "content-length" in self.headers:
            return self.rfile.read(int(self.headers["content-length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):  # the runtime client sends its results in chunks
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""


@contextmanager
def endpoint(answer: Callable[[bytes, str], bytes]) -> Iterator[Endpoint]:
    """SageMaker's runtime, answering with `answer(body, content type)`."""
    with served(Endpoint(answer)) as server:
        try:
            yield server
        finally:
            server.done.set()


@contextmanager
def runtime_api() -> Iterator[RuntimeApi]:
    """Lambda's Runtime API; who waits for an event at the end is sent away."""
    with served(RuntimeApi()) as server:
        try:
            yield server
        finally:
            server.events.put(None)


HANDLER = "firstspin.aws.lambda_handler.handler"


@contextmanager
def function(api: RuntimeApi, endpoint: Endpoint, bundle: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A container of the function, waiting for events; killed at the end."""
    environment = os.environ | {
        "AWS_LAMBDA_RUNTIME_API": api.address,
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": endpoint.url,
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "FIRSTSPIN_ENDPOINT": "newcomers",
        "FIRSTSPIN_BUNDLE": str(bundle),
        "FIRSTSPIN_BUDGET": "3",
        **more,
    }
    command = [sys.executable, "-m", "awslambdaric", HANDLER]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    with process:
        yield process
        process.kill()

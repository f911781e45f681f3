"""The senders of a load test: to a server over HTTP, or to an endpoint through AWS."""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException

import msgspec
import numpy as np

from firstspin.aws.clients import clear, open_without_retries
from firstspin.records import InputError, Registration
from firstspin.simulation.taste import COUNTRIES, GENDERS, GENRES
from firstspin.tools.load_test.run import THREADS, Send
from firstspin.tools.sagemaker_check.client import http_address
from firstspin.tools.sagemaker_check.payloads import Payload


def registrations(rng: np.random.Generator, n: int) -> list[Payload]:
    """Bodies of n random registrations, with various ages and picks."""
    return [Payload("application/json", msgspec.json.encode(_newcomer(rng))) for _ in range(n)]


def _newcomer(rng: np.random.Generator) -> Registration:
    return Registration(
        age=int(rng.integers(13, 90)),
        gender=str(rng.choice(GENDERS)),
        country=str(rng.choice(list(COUNTRIES))),
        genres=tuple(rng.choice(list(GENRES), rng.integers(0, 9), replace=False).tolist()),
    )


@contextmanager
def over_http(url: str, patience: float) -> Iterator[Send]:
    """POST /invocations on keep-alive connections, one per concurrent request; `patience` is the timeout in seconds.

    Raises InputError for other URLs than those like http://127.0.0.1:8080.
    """
    host, port = http_address(url, "the load test")
    idle: deque[HTTPConnection] = deque()  # last in, first out, so that few connections become stale

    def send(payload: Payload) -> str:
        try:
            connection = idle.pop()
        except IndexError:
            connection = HTTPConnection(host, port, timeout=patience)
        try:
            status = _status(connection, payload)
        except (OSError, HTTPException) as problem:
            connection.close()
            return f"{type(problem).__name__}: {problem}"
        idle.append(connection)
        return "" if 200 <= status < 300 else f"status {status}"

    try:
        yield send
    finally:
        for connection in idle:
            connection.close()


def _status(connection: HTTPConnection, payload: Payload) -> int:
    if connection.sock is not None and _hung_up(connection):
        connection.close()  # the next request opens it again
    connection.request("POST", "/invocations", payload.body, {"Content-Type": payload.content_type})
    response = connection.getresponse()
    response.read()
    return response.status


def _hung_up(connection: HTTPConnection) -> bool:
    """Whether the server has closed an idle connection: then its end can be read."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def through_aws(endpoint: str, patience: float) -> Iterator[Send]:
    """InvokeEndpoint by one client for all threads, without retries; `patience` is the timeout in seconds.

    Raises InputError where boto3 is not installed, or no region is configured.
    """
    runtime = open_without_retries("sagemaker-runtime", patience, THREADS)

    def send(payload: Payload) -> str:
        try:
            with clear("InvokeEndpoint"):
                request = {"EndpointName": endpoint, "ContentType": payload.content_type, "Body": payload.body}
                runtime.invoke_endpoint(**request)["Body"].read()
        except InputError as problem:
            return str(problem)
        return ""

    try:
        yield send
    finally:
        runtime.close()

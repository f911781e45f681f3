"""AWS Lambda in front of a SageMaker endpoint: reads the same registrations, and answers inside its budget whatever the
endpoint does.

The body is checked by the service's own reader, so a request is refused here in the same words as there, without a
call. A good one goes to the endpoint as it came. When the endpoint is slow, throttled, down or missing, the business
rule of a bundle that lies in the Lambda's package answers, and `source` says so.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any, Final, Protocol

import msgspec

from firstspin import bundle
from firstspin.recommender import Recommender
from firstspin.service import wire
from firstspin.service.wire import Asked, Encoding, Reader, Refusal

log = logging.getLogger(__name__)

TRIES: Final = 2
"""A call and at most one more."""

SOURCE: Final = "rule"
ROUTE: Final = "/invocations"


class Runtime(Protocol):
    """The one verb we use of boto3's client `sagemaker-runtime`."""

    def invoke_endpoint(self, **words: Any) -> Mapping[str, Any]:
        """Ask the endpoint."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One Lambda: `endpoint` by name, `budget` in seconds for all tries, `clock` counting seconds."""

    runtime: Runtime
    endpoint: str
    fallback: Recommender
    reader: Reader
    budget: float = 0.6
    clock: Callable[[], float] = monotonic

    def __call__(self, event: Mapping[str, Any], _context: object = None) -> dict[str, Any]:
        """Answer a proxy event of API Gateway, of a REST API (1.0) or an HTTP API (2.0)."""
        try:
            encoding, body = _request(event)
            asked = self.reader.read(body, encoding)
        except Refusal as refusal:
            return _reply(refusal.status, "application/json", refusal.body())
        answer = self._asked_of_endpoint(body, encoding)
        return _reply(200, encoding.value, answer if answer is not None else self._by_rule(asked))

    def _asked_of_endpoint(self, body: bytes, encoding: Encoding) -> bytes | None:
        """The endpoint's answer, or None when there is none in time."""
        ends = self.clock() + self.budget
        for attempt in range(TRIES):
            if attempt and self.clock() >= ends - self.budget / TRIES:  # no time left for a whole try
                break
            try:
                answer = self.runtime.invoke_endpoint(
                    EndpointName=self.endpoint, ContentType=encoding.value, Accept=encoding.value, Body=body
                )
                return bytes(answer["Body"].read())
            except Exception as problem:  # whatever it is, the newcomer gets an answer
                log.warning(json.dumps({"event": "endpoint failed", "try": attempt + 1, "kind": _kind(problem)}))
                if not _may_pass(problem):
                    break
        return None

    def _by_rule(self, asked: Asked) -> bytes:
        rankings = [self.fallback.by_rule(registration, SOURCE) for registration in asked.registrations]
        if asked.encoding is Encoding.csv:
            return wire.join(map(wire.csv_row, rankings), asked)
        filled = map(self.fallback.fill, asked.registrations, rankings)
        return wire.join(map(msgspec.json.encode, filled), asked)


def _request(event: Mapping[str, Any]) -> tuple[Encoding, bytes]:
    """What was asked, in either shape of event. Raises Refusal."""
    http = event.get("requestContext", {}).get("http", {})
    method = event.get("httpMethod") or http.get("method", "")
    path = event.get("path") or event.get("rawPath", "")
    if not path.endswith(ROUTE):
        raise Refusal(404, "not_found", f"only {ROUTE} is here")
    if method != "POST":
        raise Refusal(405, "method_not_allowed", "only POST is allowed")
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    encoding = wire.encoding_of(headers.get("content-type", ""))
    wire.check_accept(headers.get("accept", "*/*"), encoding)
    return encoding, _body(event)


def _body(event: Mapping[str, Any]) -> bytes:
    text = event.get("body") or ""
    try:
        body = base64.b64decode(text, validate=True) if event.get("isBase64Encoded") else text.encode()
    except (binascii.Error, ValueError):  # a lone surrogate is a ValueError too
        raise Refusal(400, "malformed", "the body can't be read") from None
    if len(body) > wire.LARGEST_BODY:
        raise Refusal(413, "body_too_large", f"at most {wire.LARGEST_BODY} bytes")
    return body


def _reply(status: int, content_type: str, body: bytes) -> dict[str, Any]:
    return {
        "statusCode": status,
        "headers": {"content-type": content_type},
        "body": body.decode(),
        "isBase64Encoded": False,
    }


def _kind(problem: Exception) -> str:
    """The error's name, never its text: that may repeat what was sent."""
    response = getattr(problem, "response", None) or {}
    return str(response.get("Error", {}).get("Code") or type(problem).__name__)


def _may_pass(problem: Exception) -> bool:
    """Whether another try may go better: not after the endpoint said that it does not exist or that we may not ask."""
    return _kind(problem) not in {"ValidationError", "ValidationException", "AccessDeniedException"}


def from_environment(environment: Mapping[str, str]) -> Gateway:
    """The gateway that the Lambda's environment describes: FIRSTSPIN_ENDPOINT, FIRSTSPIN_BUNDLE, FIRSTSPIN_BUDGET (s),
    and FIRSTSPIN_RUNTIME_URL where the endpoint is not AWS's own."""
    budget = float(environment.get("FIRSTSPIN_BUDGET", "0.6"))
    config = import_module("botocore.config").Config(
        connect_timeout=budget / (2 * TRIES),
        read_timeout=budget / (2 * TRIES),
        retries={"total_max_attempts": 1},  # trying again is ours, inside the budget
    )
    runtime = import_module("boto3").client(
        "sagemaker-runtime", config=config, endpoint_url=environment.get("FIRSTSPIN_RUNTIME_URL")
    )
    loaded = bundle.load(Path(environment["FIRSTSPIN_BUNDLE"]))
    reader = Reader(loaded.manifest.extra)
    return Gateway(runtime, environment["FIRSTSPIN_ENDPOINT"], Recommender(loaded), reader, budget)

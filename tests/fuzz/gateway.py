"""The Lambda handler: events of any shape, endpoints that answer anything, and a Firehose that may fail."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import gateway_events
from at_once import AtOnce
from made_app import NOW
from made_bundles import pack
from made_experiments import HALVES, SECRET

from firstspin.aws.front.experiment import ExposureStream
from firstspin.aws.front.gateway import Gateway
from firstspin.events.firehose import SCOPE, FirehoseReply, FirehoseSink, Record
from firstspin.serving import bundle
from firstspin.serving.bodies.wire import BodyReader
from fuzz import http, values
from fuzz.inputs import Check, Input
from fuzz.invocations import BODIES

FIELDS = ("httpMethod", "path", "rawPath", "requestContext", "headers", "multiValueHeaders", "body", "isBase64Encoded")


class Endpoint:
    """Answers what the input says, or fails."""

    body: bytes | None = None

    def invoke_endpoint(self, **_: Any) -> dict[str, Any]:
        if self.body is None:
            raise ConnectionError("no endpoint")
        return {"Body": BytesIO(self.body)}


class Stream:
    """Takes exposures, or not, as the input says."""

    fails = False

    def put_record_batch(self, *, DeliveryStreamName: str, Records: list[Record]) -> FirehoseReply:  # noqa: ARG002
        if self.fails:
            raise ConnectionError("no Firehose")
        return {"RequestResponses": [{"RecordId": "1"} for _ in Records]}


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    pack(folder / "b")
    endpoint, stream = Endpoint(), Stream()
    exposures = ExposureStream(HALVES, SECRET, FirehoseSink(stream, {"exposures": "e"}, SCOPE), lambda: NOW)
    gateway = Gateway(
        endpoint, "newcomers", bundle.load(folder / "b"), BodyReader(), exposures=exposures, threads=AtOnce()
    )
    with http.logged() as log:

        def check(made: Input) -> str:
            kind = made.pick(("json", "json", "lines", "csv"))
            of_user = made.chance(0.5)
            event = _event(made, BODIES[kind](made, of_user=of_user), http.TYPES[kind].decode(), of_user)
            endpoint.body, stream.fails = _answer(made), made.chance(0.3)
            made.note("event", event)
            made.note("endpoint", endpoint.body)
            reply = gateway(event)
            made.note("reply", reply)
            log.check()
            json.dumps(reply)  # what Lambda does with it
            http.check_reply(reply["statusCode"], reply["body"].encode())
            return str(reply["statusCode"])

        yield check


def _event(made: Input, body: bytes, media: str, of_user: bool) -> object:
    """An event of one of the three shapes, most often whole."""
    if made.chance(0.03):
        return values.json_value(made)
    text = body.decode("utf-8", "surrogateescape" if made.chance(0.1) else "replace")
    kind = made.number(0, 2)
    if kind == 0:
        event = gateway_events.rest(text, headers={"Content-Type": media})
    elif kind == 1:
        event = gateway_events.http_api() | {
            "body": base64.b64encode(body).decode(),
            "headers": {"content-type": media},
        }
    else:
        event = gateway_events.balancer(text, media)
    if of_user:
        event["rawPath" if "rawPath" in event else "path"] = "/recommendations"
    for _ in range(made.number(1, 2) if made.chance(0.3) else 0):
        event[made.pick(FIELDS)] = values.json_value(made)
    if made.chance(0.2) and isinstance(event.get("headers"), dict):
        name = made.pick(("x-firstspin-user", "Accept", "content-type", values.name(made)))
        event["headers"][name] = values.json_value(made, 1)
    return event


def _answer(made: Input) -> bytes | None:
    if made.chance(0.4):
        return None
    good = b'{"model":"m","source":"model","genres":[{"genre":"Rock","probability":0.5}],"stations":[],"carousels":[]}'
    answer = made.pick((good, b'{"predictions":[' + good + b"]}", good + b"\n", b"Rock|Jazz,0.5|0.5\n", b""))
    return values.mutated(made, answer) if made.chance(0.5) else answer

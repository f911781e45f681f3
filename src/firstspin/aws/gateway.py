"""AWS Lambda in front of a SageMaker endpoint: the same requests, answered within a time budget.

The body is checked by the service's own reader, so a request is refused here in the same words as there, without a
call. A good one goes to the endpoint as it came. When the endpoint is slow, throttled, down, missing or answers
nonsense, the answer kept for this very user by the last `firstspin score` is given (`source` "batch"), where a table
of them is configured and the request names its user in the header `x-firstspin-user`; else the business rule of a
bundle that lies in the Lambda's package answers (`source` "rule").
"""

from __future__ import annotations

import base64
import csv
import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec

from firstspin.data.schema import PICK_SEPARATOR
from firstspin.environment import path, read, required, seconds, words
from firstspin.records import MAX_TEXT, GenreProbability, Recommendation, StoredAnswer
from firstspin.serving import bundle, wire
from firstspin.serving.bundle import Bundle
from firstspin.serving.policy import DEFAULTS, PolicySettings, decide, may_use_stored
from firstspin.serving.responses import Responses
from firstspin.serving.score_stores import DynamoScores, Scores
from firstspin.serving.wire import Asked, BodyReader, Encoding, Refusal

log = logging.getLogger(__name__)

TRIES: Final = 2
"""A call and at most one more."""

SHARES: Final = TRIES + 1
"""Each try has an equal share of the budget, and the table of kept answers the last."""

THREADS: Final = 8
"""Calls that hang beyond their time, before the gateway goes straight to the fallback."""

LARGEST_BALANCED: Final = 1_000_000
"""Bytes that a load balancer takes of a Lambda, and gives it."""

LONGEST_ESCAPE: Final = 6
"""Bytes that a character of an answer has at most where Lambda counts it, as in \\u00e9."""

FALLBACK: Final = "rule"
FAILED: Final = "endpoint"
ROUTE: Final = "/invocations"
USER: Final = "x-firstspin-user"
HOPELESS: Final = frozenset(
    {
        "AccessDeniedException",
        "MalformedAnswer",
        "ModelNotReadyException",
        "ThrottlingException",
        "ValidationError",
        "ValidationException",
    }
)
"""Failures that another try at once doesn't mend, or, where the endpoint is short of breath, makes worse."""

Found = TypeVar("Found")


class MalformedAnswer(Exception):
    """The endpoint answered, but not what was asked."""


class Runtime(Protocol):
    """The one verb we use of boto3's client `sagemaker-runtime`."""

    def invoke_endpoint(self, **words: Any) -> Mapping[str, Any]:
        """Ask the endpoint."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One Lambda: `endpoint` by name, `budget` in seconds for everything that goes over the network."""

    runtime: Runtime
    endpoint: str
    bundle: Bundle
    reader: BodyReader
    settings: PolicySettings = DEFAULTS
    scores: Scores | None = None
    budget: float = 0.6
    threads: Executor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, "gateway"))

    def __call__(self, event: object, _context: object = None) -> dict[str, Any]:
        """Answer a proxy event of API Gateway, of a REST API (1.0) or an HTTP API (2.0), or of a load balancer."""
        try:
            told = msgspec.convert(event, _Event)
        except (msgspec.ValidationError, UnicodeEncodeError):  # a name with a lone surrogate is the latter
            return _refused(Refusal(400, "malformed", "malformed event"))
        reply = self._answer(told)
        if told.in_lists:
            reply["multiValueHeaders"] = {name: [value] for name, value in reply.pop("headers").items()}
        return reply

    def _answer(self, event: _Event) -> dict[str, Any]:
        try:
            encoding, body, user = _request(event)
            asked = self.reader.read(body, encoding)
            answer = self._by_endpoint(body, asked)
            answer = self._by_fallback(asked, user) if answer is None else answer
            return _reply(200, encoding.value, answer, event.largest)
        except Refusal as refusal:
            return _refused(refusal)

    def _by_endpoint(self, body: bytes, asked: Asked) -> bytes | None:
        """The endpoint's answer, or None when there is none in time."""
        for attempt in range(TRIES):
            try:
                answer = self._in_time(lambda: self._ask(body, asked.encoding))
                _check(answer, asked)
                return answer
            except Exception as problem:  # whatever it is, the newcomer gets an answer
                _log("endpoint_failed", kind=_kind(problem), attempt=attempt + 1)
                if not _may_pass(problem):
                    break
        return None

    def _ask(self, body: bytes, encoding: Encoding) -> bytes:
        answer = self.runtime.invoke_endpoint(
            EndpointName=self.endpoint, ContentType=encoding.value, Accept=encoding.value, Body=body
        )
        return bytes(answer["Body"].read())

    def _by_fallback(self, asked: Asked, user: str) -> bytes:
        alone, settings = asked.number == 1, self.settings
        stored = self._kept(user) if user and alone and may_use_stored(asked.registrations[0], user, settings) else None
        current = stored.model if stored else ""
        decisions = [
            decide(one, user or None, self.bundle, stored, settings, failure=FAILED, in_service=current)
            for one in asked.registrations
        ]
        _log("fell_back", source=decisions[0].source if alone else FALLBACK)
        answers = Responses(self.bundle)
        pairs = zip(asked.registrations, decisions, strict=True)
        return wire.join((answers.encoded(one, decision, asked.encoding) for one, decision in pairs), asked)

    def _kept(self, user: str) -> StoredAnswer | None:
        if self.scores is None:
            return None
        get = self.scores.get
        try:
            return self._in_time(lambda: get(user))
        except Exception as problem:  # the rule is left
            _log("kept_answers_failed", kind=_kind(problem))
            return None

    def _in_time(self, call: Callable[[], Found]) -> Found:
        """What `call` gives within its share of the budget; TimeoutError after that, whatever it still waits for.

        botocore's own limits count neither the look-up of a name nor an answer that trickles in.
        """
        future = self.threads.submit(call)
        try:
            return future.result(self.budget / SHARES)
        finally:
            future.cancel()


class _Http(msgspec.Struct):
    method: str | None = None


class _Context(msgspec.Struct):
    http: _Http | None = None
    elb: object = None


class _Event(msgspec.Struct, rename="camel"):
    """What is read of a proxy event, whoever sent it."""

    http_method: str | None = None
    path: str | None = None
    raw_path: str | None = None
    request_context: _Context | None = None
    headers: dict[str, str | None] | None = None
    multi_value_headers: dict[str, list[str]] | None = None
    body: str | None = None
    is_base64_encoded: bool | None = None

    @property
    def in_lists(self) -> bool:
        """Whether it comes from a load balancer that lists the values of a header, and takes no answer that doesn't."""
        return self.headers is None and self.multi_value_headers is not None

    @property
    def largest(self) -> int:
        """Bytes that may come, and go back."""
        return LARGEST_BALANCED if self.request_context and self.request_context.elb else wire.LARGEST_BODY

    def by_name(self) -> dict[str, str]:
        """The headers by their names in lower case. Refusal 400 for two of one that decides something."""
        lists = (self.multi_value_headers or {}).items()
        listed = _by_name((name, value) for name, values in lists for value in values)
        return listed if self.headers is None else _by_name(self.headers.items())


def _by_name(headers: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for written, value in headers:
        name = written.lower()
        if value is None:
            continue
        if name in found:
            wire.refuse_twice(name)
            value = f"{found[name]}, {value}" if name == "accept" else value
        found[name] = value
    return found


def _request(event: _Event) -> tuple[Encoding, bytes, str]:
    """The encoding, the body and the user. Raises Refusal."""
    http = event.request_context and event.request_context.http
    method = event.http_method or (http and http.method)
    path = event.path or event.raw_path or ""
    if not path.rstrip("/").endswith(ROUTE):
        raise Refusal(404, "not_found", f"only {ROUTE} is here")
    if method != "POST":
        raise Refusal(405, "method_not_allowed", "only POST is allowed")
    headers = event.by_name()
    encoding = wire.encoding_of(headers.get("content-type", ""))
    wire.check_accept(headers.get("accept", "*/*"), encoding)
    user = headers.get(USER, "")
    if len(user) > MAX_TEXT:
        raise Refusal(422, "invalid", f"header {USER}: at most {MAX_TEXT} characters")
    return encoding, _body(event), user


def _body(event: _Event) -> bytes:
    text = event.body or ""
    try:
        body = base64.b64decode(text, validate=True) if event.is_base64_encoded else text.encode()
    except ValueError:  # no base64, or a lone surrogate
        raise Refusal(400, "malformed", "the body can't be read") from None
    if len(body) > event.largest:
        raise Refusal(413, "body_too_large", f"at most {event.largest} bytes")
    return body


def _check(answer: bytes, asked: Asked) -> None:
    """Raise MalformedAnswer unless this answers everyone asked about; it goes on to the caller as it came."""
    try:
        found = _number_answered(answer, asked)
    except (msgspec.MsgspecError, csv.Error, ValueError, RecursionError):
        raise MalformedAnswer from None
    if found != len(asked.registrations):
        raise MalformedAnswer


def _number_answered(answer: bytes, asked: Asked) -> int:
    text = answer.decode()  # all of it: msgspec doesn't look into fields that it skips
    if asked.alone:
        _ONE(answer)
        return 1
    if asked.encoding is Encoding.json:
        return len(_SEVERAL(answer).predictions)
    if asked.encoding is Encoding.lines:
        return len([_ONE(line) for line in answer.splitlines()])
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    if not all(map(_is_answer, rows)):
        raise MalformedAnswer
    return len(rows)


def _is_answer(row: list[str]) -> bool:
    """Whether this is a row as `wire.csv_row` writes them. False or ValueError where it isn't."""
    genres, probabilities = (cell.split(PICK_SEPARATOR) for cell in row)
    return all(genres) and all(0 <= float(one) <= 1 for _, one in zip(genres, probabilities, strict=True))


class _Chance(GenreProbability, frozen=True):
    genre: Annotated[str, msgspec.Meta(min_length=1)]
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Answer(Recommendation, frozen=True, kw_only=True):
    """A recommendation that recommends something; a service without a model doesn't, and the rule does better."""

    genres: Annotated[tuple[_Chance, ...], msgspec.Meta(min_length=1)]


class _Predictions(msgspec.Struct):
    predictions: tuple[_Answer, ...]


_ONE: Final = msgspec.json.Decoder(_Answer).decode
_SEVERAL: Final = msgspec.json.Decoder(_Predictions).decode


def _reply(status: int, content_type: str, body: bytes, largest: int = wire.LARGEST_BODY) -> dict[str, Any]:
    text = body.decode()
    if len(body) > largest // LONGEST_ESCAPE and len(json.dumps(text)) > largest:
        raise Refusal(413, "answer_too_large", "ask about fewer newcomers at once")
    return {
        "statusCode": status,
        "headers": {"content-type": content_type},
        "body": text,
        "isBase64Encoded": False,
    }


def _refused(refusal: Refusal) -> dict[str, Any]:
    return _reply(refusal.status, "application/json", refusal.body())


def _log(event: str, **told: object) -> None:
    """One line of JSON. The alarms of deploy/aws count these events by name."""
    log.warning(json.dumps({"event": event, **told}))


def _kind(problem: Exception) -> str:
    """The error's name, never its text: that may repeat what was sent."""
    response = getattr(problem, "response", None) or {}
    return str(response.get("Error", {}).get("Code") or type(problem).__name__)


def _may_pass(problem: Exception) -> bool:
    """Whether another try at once may go better: not after the model itself refused the body (a 4xx of its own)."""
    response = getattr(problem, "response", None) or {}
    refused = 400 <= int(response.get("OriginalStatusCode") or 0) < 500
    return not refused and _kind(problem) not in HOPELESS


def from_environment(environment: Mapping[str, str]) -> Gateway:
    """The gateway that the Lambda's environment describes.

    Variables: FIRSTSPIN_ENDPOINT, FIRSTSPIN_BUNDLE, FIRSTSPIN_BUDGET (seconds) and, optionally, FIRSTSPIN_SCORES, the
    DynamoDB table that `firstspin score` writes. Raises InputError, with the variable's name, for one that is missing
    or can't be read.
    """
    endpoint, folder = (
        required(environment, "FIRSTSPIN_ENDPOINT", words),
        required(environment, "FIRSTSPIN_BUNDLE", path),
    )
    budget = read(environment, "FIRSTSPIN_BUDGET", seconds()) or 0.6
    table = read(environment, "FIRSTSPIN_SCORES", words)
    loaded = bundle.load(folder)
    return Gateway(
        runtime=_client("sagemaker-runtime", budget / SHARES),
        endpoint=endpoint,
        bundle=loaded,
        reader=BodyReader(loaded.manifest.extra),
        scores=DynamoScores(table, _client("dynamodb", budget / SHARES)) if table else None,
        budget=budget,
    )


def _client(service: str, seconds: float) -> Any:
    """A client of AWS that gives up by itself: trying again is ours, inside the budget."""
    config = import_module("botocore.config").Config(
        connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1}
    )
    return import_module("boto3").client(service, config=config)

"""AWS Lambda in front of a SageMaker endpoint: answers within a time budget, whatever the endpoint does.

The body is read by the service's own reader, so a bad request is refused here in the same words as there, without a
call. A good one goes to the endpoint as it came. What the endpoint's container refuses (4xx) is refused here too. When
the endpoint is slow, throttled, down, missing or answers nonsense, the policy of the service (`serving.policy`) decides
with the model as failed: the stored answer of this very user (`source` "batch"), where a table of them is configured
and the request names its user in the header `x-firstspin-user`; else the business rule of the bundle in the Lambda's
package.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec

from firstspin.data.schema import PICK_SEPARATOR
from firstspin.environment import path, read, refuse_misspelt, required, seconds, words
from firstspin.records import (
    MAX_TEXT,
    Carousel,
    GenreProbability,
    Message,
    Registration,
    Station,
    StoredAnswer,
)
from firstspin.serving import bundle, wire
from firstspin.serving.bundle import Bundle
from firstspin.serving.policy import (
    DEFAULTS,
    REFUSE,
    PolicySettings,
    decide,
    is_current,
    lacks_model,
    may_use_stored,
    read_min_age,
    read_under_age,
    refuse_under_age,
    under_age_refusal,
)
from firstspin.serving.responses import Responses
from firstspin.serving.score_stores import DynamoScores
from firstspin.serving.stored_answers import OTHER_VERSION, StoredAnswers
from firstspin.serving.wire import Asked, BodyReader, Encoding, Refusal

log = logging.getLogger(__name__)

TRIES: Final = 2
"""A call and at most one more."""

SHARES: Final = TRIES + 1
"""Each try has an equal share of the budget, and the lookup of a stored answer the last."""

THREADS: Final = 8
"""Calls that hang beyond their time, before the gateway goes straight to the fallback."""

LARGEST_BALANCED: Final = 1_000_000
"""Bytes that a load balancer takes of a Lambda, and gives it."""

LONGEST_ESCAPE: Final = 6
"""Bytes that a character of an answer has at most where Lambda counts it, as in \\u00e9."""

ENDPOINT, BUNDLE, BUDGET = "FIRSTSPIN_ENDPOINT", "FIRSTSPIN_BUNDLE", "FIRSTSPIN_BUDGET"
MIN_AGE, UNDER_AGE, SCORES = "FIRSTSPIN_LEAST_AGE", "FIRSTSPIN_UNDER_AGE", "FIRSTSPIN_SCORES"
VARIABLES: Final = (ENDPOINT, BUNDLE, BUDGET, MIN_AGE, UNDER_AGE, SCORES)

ROUTE: Final = "/invocations"
USER: Final = "x-firstspin-user"
NOT_RETRIED: Final = frozenset(
    {
        "AccessDeniedException",
        "MalformedAnswer",
        "ModelNotReadyException",
        "ThrottlingException",
        "ValidationError",
        "ValidationException",
    }
)
"""Errors that an immediate retry does not fix, or makes worse (throttling)."""

Found = TypeVar("Found")


class MalformedAnswer(Exception):
    """The endpoint answered, but not what was asked."""


class Runtime(Protocol):
    """The one verb we use of boto3's client `sagemaker-runtime`."""

    def invoke_endpoint(self, **words: Any) -> Mapping[str, Any]:
        """Ask the endpoint."""


@dataclass(slots=True)
class Gateway:
    """One Lambda: `endpoint` by name, `budget` in seconds for everything that goes over the network.

    `in_service` is the id of the bundle that the endpoint answers from: that of its last answer in JSON, and before the
    first one that of the Lambda's package.
    """

    runtime: Runtime
    endpoint: str
    bundle: Bundle
    reader: BodyReader
    settings: PolicySettings = DEFAULTS
    stored: StoredAnswers | None = None
    budget: float = 0.6
    threads: Executor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, "gateway"))
    responses: Responses = field(init=False)
    in_service: str = field(init=False)

    def __post_init__(self) -> None:
        self.responses, self.in_service = Responses(self.bundle), self.bundle.id

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
            refuse_under_age(asked.registrations, self.settings)
            answer = self._by_endpoint(body, asked)
            if answer is None:
                answer = self._by_fallback(asked, user)
            elif user and asked.alone and lacks_model(_ONE(answer).source):
                answer = self._from_store(asked.registrations[0], user) or answer
            return _reply(200, encoding.value, answer, event.largest)
        except Refusal as refusal:
            return _refused(refusal)

    def _by_endpoint(self, body: bytes, asked: Asked) -> bytes | None:
        """The endpoint's answer, or None when there is none in time. Raises Refusal where its container refuses."""
        for attempt in range(TRIES):
            try:
                answer = self._in_time(lambda: self._ask(body, asked.encoding))
                self.in_service = _check(answer, asked) or self.in_service
                return answer
            except Exception as problem:  # whatever it is, the newcomer gets an answer
                if refusal := _refusal(problem):
                    _log("endpoint_refused", status=refusal.status)
                    raise refusal from None
                _log("endpoint_failed", kind=_kind(problem), attempt=attempt + 1)
                if _kind(problem) in NOT_RETRIED:
                    break
        return None

    def _ask(self, body: bytes, encoding: Encoding) -> bytes:
        answer = self.runtime.invoke_endpoint(
            EndpointName=self.endpoint, ContentType=encoding.value, Accept=encoding.value, Body=body
        )
        return bytes(answer["Body"].read())

    def _by_fallback(self, asked: Asked, user: str) -> bytes:
        """The answer without the endpoint; a stored one for a request about one user only."""
        stored = self._look_up(asked.registrations[0], user) if user and asked.number == 1 else None
        decisions = [
            decide(
                registration,
                user or None,
                self.bundle,
                stored,
                self.settings,
                failure="endpoint",
                in_service=self.in_service,
            )
            for registration in asked.registrations
        ]
        _log("fell_back", sources=sorted({decision.source for decision in decisions}))
        pairs = zip(asked.registrations, decisions, strict=True)
        return wire.join((self.responses.encoded(*pair, asked.encoding) for pair in pairs), asked)

    def _from_store(self, registration: Registration, user: str) -> bytes | None:
        """The stored answer of a user, where the endpoint answered without its model."""
        stored = self._look_up(registration, user)
        if stored is None or not is_current(stored, self.bundle, self.in_service):
            return None
        decision = decide(
            registration, user, self.bundle, stored, self.settings, failure="model", in_service=self.in_service
        )
        return self.responses.json(registration, decision)

    def _look_up(self, registration: Registration, user: str) -> StoredAnswer | None:
        if self.stored is None or not may_use_stored(registration, user, self.settings):
            return None
        found, outcome = self.stored.wait(user)
        is_other = found is not None and not is_current(found, self.bundle, self.in_service)
        _log("stored_answer", outcome=OTHER_VERSION if is_other else outcome)
        return found

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
    """The relevant fields of a proxy event, from API Gateway or a load balancer."""

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


def _check(answer: bytes, asked: Asked) -> str:
    """The id of the bundle that answered, empty for CSV. Raises MalformedAnswer unless everyone asked is answered."""
    try:
        models = _models(answer, asked)
    except (msgspec.MsgspecError, csv.Error, ValueError, RecursionError):
        raise MalformedAnswer from None
    if len(models) != asked.number:
        raise MalformedAnswer
    return models[-1] if models else ""


def _models(answer: bytes, asked: Asked) -> list[str]:
    """The model that each answer names, an empty name for a row of CSV."""
    text = answer.decode()  # all of it: msgspec doesn't look into fields that it skips
    if asked.encoding is Encoding.csv:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        if not all(map(_is_answer, rows)):
            raise MalformedAnswer
        return [""] * len(rows)
    if asked.alone:
        return [_ONE(answer).model]
    if asked.encoding is Encoding.json:
        return [one.model for one in _SEVERAL(answer).predictions]
    return [_ONE(line).model for line in answer.splitlines()]


def _is_answer(row: list[str]) -> bool:
    """Whether this is a row as `wire.csv_row` writes them. False or ValueError where it isn't."""
    genres, probabilities = (cell.split(PICK_SEPARATOR) for cell in row)
    return all(genres) and all(0 <= float(one) <= 1 for _, one in zip(genres, probabilities, strict=True))


class _Chance(GenreProbability, frozen=True):
    genre: Annotated[str, msgspec.Meta(min_length=1)]
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A recommendation that recommends something; a service without a model doesn't, and the fallback does better.

    Its source is one that another version of the endpoint may have added.
    """

    model: str
    source: str
    genres: Annotated[tuple[_Chance, ...], msgspec.Meta(min_length=1)]
    stations: tuple[Station, ...] = ()
    message: Message | None = None
    carousels: tuple[Carousel, ...] = ()


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


def _refusal(problem: Exception) -> Refusal | None:
    """What the endpoint's container refused, where it did: its status, and never its text, which may repeat values."""
    response = getattr(problem, "response", None) or {}
    status = response.get("OriginalStatusCode")
    if _kind(problem) != "ModelError" or not isinstance(status, int) or not 400 <= status < 500:
        return None
    under_age = under_age_refusal()
    if status == under_age.status and f'"{under_age.code}"' in str(response.get("OriginalMessage")):
        return under_age
    return Refusal(status, "refused", "the endpoint refused the request")


def from_environment(environment: Mapping[str, str]) -> Gateway:
    """The gateway that the Lambda's environment describes.

    Variables: FIRSTSPIN_ENDPOINT, FIRSTSPIN_BUNDLE, FIRSTSPIN_BUDGET (seconds), FIRSTSPIN_LEAST_AGE and
    FIRSTSPIN_UNDER_AGE (as `firstspin serve` takes them: give the endpoint's container the same) and, optionally,
    FIRSTSPIN_SCORES, the DynamoDB table that `firstspin score` writes. Raises InputError, with the variable's name, for
    one that is missing, misspelt or can't be read.
    """
    refuse_misspelt(environment, VARIABLES)
    endpoint, folder = required(environment, ENDPOINT, words), required(environment, BUNDLE, path)
    budget = read(environment, BUDGET, seconds()) or 0.6
    table = read(environment, SCORES, words)
    loaded, share = bundle.load(folder), budget / SHARES
    return Gateway(
        runtime=_client("sagemaker-runtime", share),
        endpoint=endpoint,
        bundle=loaded,
        reader=BodyReader(loaded.manifest.extra),
        settings=_settings(environment),
        stored=_stored_answers(table, share) if table else None,
        budget=budget,
    )


def _settings(environment: Mapping[str, str]) -> PolicySettings:
    min_age = read(environment, MIN_AGE, read_min_age)
    under_age = read(environment, UNDER_AGE, read_under_age)
    return PolicySettings(DEFAULTS.min_age if min_age is None else min_age, under_age == REFUSE)


def _stored_answers(table: str, seconds: float) -> StoredAnswers:
    scores = DynamoScores(table, _client("dynamodb", seconds))
    return StoredAnswers(lambda: scores, time.monotonic_ns, budget=seconds)


def _client(service: str, seconds: float) -> Any:
    """A client of AWS that gives up by itself: trying again is ours, inside the budget."""
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1})
    return boto3.client(service, config=config)

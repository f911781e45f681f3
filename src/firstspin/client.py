"""The client of a running service: a typed method for every path, on the types that the service itself uses.

`ServiceClient` calls the service's port, `AdminClient` the admin port. Calls have a deadline for all their attempts
together; those that are safe to repeat are repeated (see `http_call.Caller.call`). A recommendation is: its exposure is
stored once. So are events, whose `event_id` is their idempotency key. docs/client.md has the examples, which run as
tests.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from firstspin.events.schema import EventResult, SentEvent
from firstspin.http_call import (
    Backoff,
    Caller,
    Connections,
    DeadlineExceeded,
    HttpAnswer,
    NoAnswer,
    retry_after,
    server_address,
)
from firstspin.records import InputError, Recommendation, Registration
from firstspin.service.admin.recorder import ServiceState
from firstspin.service.admin.routes import Erased
from firstspin.service.http.answers import BatchLimits, ListedModel, ModelPage
from firstspin.serving.explanations import Explanation
from firstspin.serving.stations import StationList

__all__ = [
    "AdminClient",
    "Backoff",
    "DeadlineExceeded",
    "ErrorAnswer",
    "EventResult",
    "Explanation",
    "NoAnswer",
    "Recommendation",
    "Registration",
    "SentEvent",
    "ServiceClient",
]

Answers = Registration | Mapping[str, object]
"""The answers of a registration form; a mapping may have the further fields of the bundle."""

DEADLINE: Final = 2.0
"""Seconds of a call, with all its attempts."""

NOTHING: Final[Mapping[str, object]] = {}
_KEY: Final = re.compile(r"[!-~]+")

Kind = TypeVar("Kind")


class ErrorAnswer(Exception):
    """An answer with an error: its status, the service's code and message, and the seconds of its Retry-After.

    The code is empty where the answer is not the service's, as that of a proxy in front of it.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: float) -> None:
        super().__init__(f"{status} {code or 'error'}: {message}")
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


class UnreadableAnswer(Exception):
    """A successful answer that is not of the documented form, as that of another version or of another server."""


class _Error(msgspec.Struct):
    code: str
    message: str


class _Errors(msgspec.Struct):
    error: _Error


class _Predictions(msgspec.Struct):
    predictions: tuple[Recommendation, ...]


class _Results(msgspec.Struct):
    results: tuple[EventResult, ...]


class PortClient:
    """Calls to one port: `url` is its base, `key` an API key, `seconds` the deadline of a call with all its attempts.

    The connections are shared by any number of threads. Raises InputError where the URL or the key is invalid. The
    clocks, the random numbers and `sleep` are those of the retries.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        seconds: float = DEADLINE,
        backoff: Backoff = Backoff(),
        now: Callable[[], float] = time.monotonic,
        date: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        if key is not None and not _KEY.fullmatch(key):
            raise InputError("the key is empty, or has a character that no key has")
        address = server_address(url, "the service's URL")
        if "?" in address.target:
            raise InputError("the service's URL has a query; leave it out")
        self._base, self._seconds, self._date = address.target.rstrip("/"), seconds, date
        self._connections = Connections(address, now)
        self._caller = Caller(self._connections, backoff, rng or random.Random(), sleep, date)
        self._headers = {"accept": "*/*"} | ({"authorization": f"Bearer {key}"} if key else {})

    def __enter__(self) -> PortClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections; a later call opens new ones."""
        self._connections.close()

    def page(self, path: str = "/", *, seconds: float | None = None) -> str:
        """The text of a page or of the metrics, as of `/report`, `/experiments` and `/metrics`."""
        return self._call("GET", path, seconds=seconds).body.decode()

    def description(self, *, seconds: float | None = None) -> dict[str, Any]:
        """The port's OpenAPI description."""
        return self._get("/openapi.json", dict[str, Any], seconds)

    def _get(self, path: str, kind: type[Kind], seconds: float | None) -> Kind:
        return _decoded(self._call("GET", path, seconds=seconds), kind)

    def _post(self, path: str, content: object, kind: type[Kind], seconds: float | None, *, again: bool = True) -> Kind:
        return _decoded(self._call("POST", path, content, seconds=seconds, again=again), kind)

    def _call(
        self, method: str, path: str, content: object = None, *, seconds: float | None, again: bool = True
    ) -> HttpAnswer:
        body = None if content is None else msgspec.json.encode(content)
        headers = self._headers if body is None else self._headers | {"content-type": "application/json"}
        answer = self._caller.call(
            method,
            self._base + path,
            headers,
            body,
            seconds=self._seconds if seconds is None else seconds,
            is_idempotent=again,
        )
        if not 200 <= answer.status < 300:
            raise self._error(answer)
        return answer

    def _error(self, answer: HttpAnswer) -> ErrorAnswer:
        try:
            error = msgspec.json.decode(answer.body, type=_Errors).error
        except (msgspec.MsgspecError, UnicodeDecodeError):
            error = _Error("", "an answer of no firstspin service")
        return ErrorAnswer(answer.status, error.code, error.message, retry_after(answer, self._date()))


class ServiceClient(PortClient):
    """The client of the service's port. Each method raises as `recommend`."""

    def __enter__(self) -> ServiceClient:
        return self

    def recommend(self, user_id: str, answers: Answers = NOTHING, *, seconds: float | None = None) -> Recommendation:
        """The recommendation for a user, who may be in an experiment: the exposure is then stored, once.

        Raises ErrorAnswer where the service refuses, NoAnswer where it can't be reached, DeadlineExceeded after
        `seconds` in all, UnreadableAnswer for an answer of another form.
        """
        return self._post("/v1/recommendations", _of_user(user_id, answers), Recommendation, seconds)

    def recommend_many(
        self, users: Sequence[tuple[str, Answers]], *, seconds: float | None = None
    ) -> tuple[Recommendation, ...]:
        """The recommendations for several users, each with the answers of the form, in order."""
        instances = [_of_user(user_id, answers) for user_id, answers in users]
        return self._post("/v1/recommendations", {"instances": instances}, _Predictions, seconds).predictions

    def send_events(
        self, events: Sequence[SentEvent | Mapping[str, object]], *, seconds: float | None = None
    ) -> tuple[EventResult, ...]:
        """Store up to 1,000 clicks and listens; the result of each, in order. Stored events are on the disk.

        An event sent again with the same `event_id` is a "duplicate", so give an event its id once, and keep it.
        """
        sent = [_without_none(event) for event in events]
        return self._post("/v1/events", {"events": sent}, _Results, seconds).results

    def explain(self, answers: Answers = NOTHING, *, seconds: float | None = None) -> Explanation:
        """How much each answer of the form changed each genre's probability."""
        return self._post("/v1/explanations", _without_none(answers), Explanation, seconds)

    def challenge(self, answers: Answers = NOTHING, *, seconds: float | None = None) -> Recommendation:
        """The shadow bundle's recommendation for a registration; ErrorAnswer 404 where the service has none."""
        return self._post("/challenger", _without_none(answers), Recommendation, seconds)

    def invoke(
        self, answers: Answers = NOTHING, *, model_name: str | None = None, seconds: float | None = None
    ) -> Recommendation:
        """The recommendation for a registration without a user, of one of many models where it is named."""
        return self._post(_invocations(model_name), _without_none(answers), Recommendation, seconds)

    def invoke_many(
        self, registrations: Sequence[Answers], *, model_name: str | None = None, seconds: float | None = None
    ) -> tuple[Recommendation, ...]:
        """The recommendations for several registrations without users, in order."""
        instances = {"instances": [_without_none(answers) for answers in registrations]}
        return self._post(_invocations(model_name), instances, _Predictions, seconds).predictions

    def is_ready(self, *, seconds: float | None = None) -> bool:
        """Whether the service can answer. Without retries: a health check is asked again anyway."""
        try:
            self._call("GET", "/ping", seconds=seconds, again=False)
        except ErrorAnswer as problem:
            if problem.status == 503:
                return False
            raise
        return True

    def stations(self, *, seconds: float | None = None) -> StationList:
        """The stations that answers can name."""
        return self._get("/stations.json", StationList, seconds)

    def metrics(self, *, seconds: float | None = None) -> str:
        """The metrics, in Prometheus's text format."""
        return self.page("/metrics", seconds=seconds)

    def experiment(self, name: str, *, seconds: float | None = None) -> dict[str, Any]:
        """The figures of an experiment: users by arm and day, health, and results where the plan allows them."""
        return self._get(f"/experiments/{quote(name, safe='')}.json", dict[str, Any], seconds)

    def batch_limits(self, *, seconds: float | None = None) -> BatchLimits:
        """The limits for SageMaker's batch transform."""
        return self._get("/execution-parameters", BatchLimits, seconds)

    def models(self, *, limit: int | None = None, after: str | None = None, seconds: float | None = None) -> ModelPage:
        """The loaded models of a service of many, by page; `after` is the `nextPageToken` of the page before."""
        query = urlencode([(n, v) for n, v in (("limit", limit), ("next_page_token", after)) if v is not None])
        return self._get(f"/models{'?' * bool(query)}{query}", ModelPage, seconds)

    def model(self, model_name: str, *, seconds: float | None = None) -> ListedModel:
        """A loaded model."""
        return self._get(_model(model_name), ListedModel, seconds)

    def load_model(self, model_name: str, url: str, *, seconds: float | None = None) -> None:
        """Load the model in the folder `url` of the service's machine. Not repeated: a second load is a 409."""
        content = {"model_name": model_name, "url": url}
        self._call("POST", "/models", content, seconds=seconds, again=False)

    def unload_model(self, model_name: str, *, seconds: float | None = None) -> None:
        """Unload a model. Not repeated: a second time is a 404."""
        self._call("DELETE", _model(model_name), seconds=seconds, again=False)


class AdminClient(PortClient):
    """The client of the admin port; its key is an admin key. Each method raises as `ServiceClient.recommend`."""

    def __enter__(self) -> AdminClient:
        return self

    def state(self, *, seconds: float | None = None) -> ServiceState:
        """The models, the workers and their restarts."""
        return self._get("/state", ServiceState, seconds)

    def facts(self, *, seconds: float | None = None) -> dict[str, Any]:
        """The facts of the page /ops."""
        return self._get("/ops.json", dict[str, Any], seconds)

    def reload(self, *, seconds: float | None = None) -> ServiceState:
        """Probe the bundle again; a later `state` has the result."""
        return self._post("/reload", {}, ServiceState, seconds)

    def rollback(self, to: str | None = None, *, seconds: float | None = None) -> ServiceState:
        """Serve the previous bundle, which must be `to` where that is given.

        Not repeated: a second rollback undoes the first, and with `to` it is a 409.
        """
        return self._post("/rollback", {"to": to}, ServiceState, seconds, again=False)

    def erase(self, user_ids: Sequence[str], *, seconds: float | None = None) -> Erased:
        """Erase up to 1,000 users: their stored data is deleted, and later data is refused. Safe to repeat."""
        return self._post("/erase", {"user_ids": list(user_ids)}, Erased, seconds)


def _decoded(answer: HttpAnswer, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise UnreadableAnswer(f"an answer of another form than {getattr(kind, '__name__', 'expected')}") from None


def _without_none(struct: msgspec.Struct | Mapping[str, object]) -> dict[str, object]:
    """The fields that have a value."""
    fields = struct if isinstance(struct, Mapping) else msgspec.structs.asdict(struct)
    return {name: value for name, value in fields.items() if value is not None and value != ()}


def _of_user(user_id: str, answers: Answers) -> dict[str, object]:
    return {"user_id": user_id} | _without_none(answers)


def _model(model_name: str) -> str:
    return f"/models/{quote(model_name, safe='')}"


def _invocations(model_name: str | None) -> str:
    return "/invocations" if model_name is None else f"{_model(model_name)}/invoke"

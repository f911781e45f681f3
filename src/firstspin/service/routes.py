"""Every route of the service, defined once: dispatch, the metrics' labels and OpenAPI read this table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import msgspec

from firstspin.events.schema import MAX_EVENTS
from firstspin.service.http.messages import Reply
from firstspin.serving.bodies.encodings import SPELLINGS, Encoding
from firstspin.serving.refusal import Refusal

Schema = Mapping[str, Any]
"""A JSON schema."""

Handler = TypeVar("Handler")

Content = Mapping[str, Schema]
"""The schema of a body by its content type."""

JSON: Final = "application/json"
TEXT: Final = {"type": "string"}
PATH_PARAMETER: Final = re.compile(r"\{(\w+)\}")
PAGE: Final = "page"
OTHER: Final = "other"
"""The metrics' label of requests outside the service's own paths."""


class Route(msgspec.Struct, frozen=True):
    """One method of one path; GET includes HEAD.

    `label` is its value of the label `route` in the metrics, `done` its status of success, `refusals` what it answers
    beside the refusals of all routes, `example` a body for the page of the admin port. `keyed`: it may need a key.
    """

    method: str
    path: str
    summary: str
    answer: Content = msgspec.field(default_factory=lambda: {JSON: {}})
    body: Content | None = None
    label: str = PAGE
    done: int = 200
    keyed: bool = False
    query: Mapping[str, Schema] = msgspec.field(default_factory=dict)
    refusals: Mapping[int, str] = msgspec.field(default_factory=dict)
    example: str = ""

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of requests that the route takes."""
        return (self.method, "HEAD") if self.method == "GET" else (self.method,)


def dispatch(routes: Iterable[Route], answers: Mapping[str, Handler]) -> dict[tuple[str, str], Handler]:
    """The handler of every request by its method and path, from handlers by path."""
    return {(method, route.path): answers[route.path] for route in routes for method in route.methods}


def not_taken(routes: Iterable[Route], path: str) -> Reply:
    """The reply to a method that this path does not take: 405, with the methods that it takes.

    Raises Refusal 404 where no route has this path.
    """
    methods = [method for route in routes if route.path == path for method in route.methods]
    if not methods:
        raise Refusal(404, "not_found", "there is nothing at this path")
    takes = " or ".join(method for method in methods if method != "HEAD")
    refusal = Refusal(405, "method_not_allowed", f"this path takes {takes}")
    return Reply(405, refusal.body(), headers=f"allow: {', '.join(methods)}\r\n".encode())


def fitting(routes: Iterable[Route], path: str) -> tuple[str, list[str]]:
    """The path in the table that fits a request's, and its parameters, decoded. Raises Refusal 404 where none fits."""
    for route in routes:
        fixed = PATH_PARAMETER.split(route.path)[::2]
        if match := re.fullmatch("([^/]*)".join(map(re.escape, fixed)), path):
            return route.path, [unquote(parameter) for parameter in match.groups()]
    raise Refusal(404, "not_found", "there is nothing at this path")


def component(name: str) -> Schema:
    """A schema that stands once in the description, by name."""
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(**properties: Schema) -> Schema:
    """An object with all of these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def array_of(items: Schema, **bounds: int) -> Schema:
    """A list; `bounds` as in maxItems=10."""
    return {"type": "array", "items": items, **bounds}


def _asked(one: str, encodings: Iterable[Encoding]) -> Content:
    """A registration, or several, in these encodings."""
    texts = {name: TEXT for name, encoding in SPELLINGS.items() if encoding in encodings}
    return texts | {JSON: {"anyOf": [component(one), component(f"{one}s")]}}


MAX_NAME: Final = 1024
NAME: Final = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
_RECOMMENDED: Final[Content] = {
    JSON: {"anyOf": [component("Recommendation"), component("Predictions")]},
    "application/jsonlines": TEXT,
    "text/csv": TEXT,
}
_HTML: Final[Content] = {"text/html": {}}
_PLAIN: Final[Content] = {"text/plain": {}}

ROUTES: Final = (
    Route(
        "POST",
        "/invocations",
        "Recommend to newcomers",
        _RECOMMENDED,
        _asked("Registration", Encoding),
        label="/invocations",
    ),
    Route(
        "POST",
        "/v1/recommendations",
        "Recommend to users, who take part in the experiment",
        _RECOMMENDED,
        _asked("User", [Encoding.lines]),
        label="/v1/recommendations",
        keyed=True,
    ),
    Route(
        "POST",
        "/v1/events",
        "Store clicks and listens; the events answered as stored are on the disk",
        {JSON: object_of(results=array_of(component("EventResult")))},
        {JSON: object_of(events=array_of(component("SentEvent"), maxItems=MAX_EVENTS))},
        label="/v1/events",
        done=202,
        keyed=True,
    ),
    Route(
        "POST",
        "/v1/explanations",
        "How much each field of a registration changed each genre's probability",
        {JSON: component("Explanation")},
        {JSON: component("Registration")},
        label="/v1/explanations",
        keyed=True,
    ),
    Route(
        "POST",
        "/challenger",
        "The answer of the shadow bundle, for the page to try the service; 404 without --shadow or pages",
        {JSON: component("Recommendation")},
        {JSON: component("Registration")},
    ),
    Route("GET", "/ping", "Readiness; the body is empty", _PLAIN, label="/ping"),
    Route("GET", "/metrics", "Metrics for Prometheus", _PLAIN, label="/metrics"),
    Route("GET", "/openapi.json", "This description"),
    Route("GET", "/stations.json", "The stations that answers can name", {JSON: component("StationList")}),
    Route("GET", "/report", "The study of the model in service", _HTML),
    Route("GET", "/experiments", "The running experiment: arms, shares and dates", _HTML),
    Route(
        "GET",
        "/experiments/{name}",
        "An experiment: health, progress, and results where the plan allows them; also NAME.json, NAME.csv, NAME.memo",
        _HTML,
    ),
    Route("GET", "/exploration", "What the exploration slot cost, and what it taught", _HTML),
    Route("GET", "/", "A page to try the service", _HTML),
)
"""Answered by every service."""

BATCH_ROUTE: Final = Route(
    "GET",
    "/execution-parameters",
    "The limits, for SageMaker's batch transform",
    {JSON: component("BatchLimits")},
    label=OTHER,
)
MODELS: Final = "/models"
MODEL: Final = "/models/{model_name}"
INVOKE: Final = "/models/{model_name}/invoke"
MODELS_PAGE: Final = 100
MODEL_ROUTES: Final = (
    Route(
        "GET",
        MODELS,
        "The loaded models, a page at a time",
        {JSON: component("ModelPage")},
        label=OTHER,
        query={"limit": {"type": "integer", "minimum": 1, "maximum": MODELS_PAGE}, "next_page_token": TEXT},
    ),
    Route("POST", MODELS, "Load a model", body={JSON: object_of(model_name=NAME, url=NAME)}, label=OTHER),
    Route("GET", MODEL, "A loaded model", {JSON: component("ListedModel")}, label=OTHER),
    Route("DELETE", MODEL, "Unload a model", label=OTHER),
    Route(
        "POST",
        INVOKE,
        "Recommend to newcomers from one of many models",
        _RECOMMENDED,
        _asked("Registration", Encoding),
        label=OTHER,
    ),
)
"""Answered by a service of many models (`--models`)."""

LABELS: Final = (*dict.fromkeys(route.label for route in ROUTES), OTHER)
"""The values of the metrics' label `route`."""

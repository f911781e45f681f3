"""OpenAPI 3.1 of a port: its paths from the route table, its schemas from the types that are read and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from firstspin.data.further_fields import with_further_fields
from firstspin.data.schema import INSTANCES
from firstspin.events.schema import EventResult, SentEvent
from firstspin.installation.version import package_version
from firstspin.records import MAX_TEXT, Recommendation, Registration
from firstspin.service.http.answers import BatchLimits, ListedModel, ModelPage
from firstspin.service.routes import (
    BATCH_ROUTE,
    MODEL_ROUTES,
    NAME,
    PATH_PARAMETER,
    ROUTES,
    TEXT,
    Content,
    Route,
    Schema,
    array_of,
    component,
    object_of,
)
from firstspin.serving.bodies.limits import MAX_INSTANCES
from firstspin.serving.explanations import Explanation
from firstspin.serving.stations import StationList

ERRORS: Final = {
    400: "The request or its body can't be read.",
    401: "A key is needed.",
    403: "The key has ended, or the policy does not allow an answer.",
    404: "There is nothing at this path.",
    405: "The path takes another method, named in Allow.",
    406: "The answer can only be in the encoding of the request.",
    408: "The request did not arrive in time.",
    409: "A model of this name is loaded already.",
    413: "The body is too large, or asks about too many.",
    415: "The body is in an encoding that this service does not read.",
    422: "The body is not a registration.",
    429: "The key is over its rate.",
    431: "The headers are too large.",
    507: "There is no memory for one more model.",
    503: "Not now: no model yet, overloaded, or events can't be kept. See Retry-After.",
}

_REFERENCE: Final = "#/components/schemas/{name}"
_ANSWERS: Final = (
    Recommendation,
    Explanation,
    StationList,
    SentEvent,
    EventResult,
    ModelPage,
    ListedModel,
    BatchLimits,
)
_, _OF_ANSWERS = msgspec.json.schema_components(_ANSWERS, ref_template=_REFERENCE)
"""The schemas of answers: the same for every model, so they are made once, before the supervisor forks."""

_PLAYED_OR_SKIPPED: Final[list[Schema]] = [
    {"required": ["seconds"], "properties": {"seconds": {"type": "number"}}},
    {"required": ["skipped"], "properties": {"skipped": {"const": True}}},
]
"""What `records.Listen` checks beyond the types of its fields."""


def schema(extra: Mapping[str, str], most: int | None = MAX_INSTANCES) -> bytes:
    """The description, as JSON, of a service with `extra` fields that takes up to `most` registrations a request."""
    kind = with_further_fields(tuple(extra), extra)
    _, components = msgspec.json.schema_components([kind], ref_template=_REFERENCE)
    schemas = {name.removeprefix("firstspin.records."): part for name, part in (components | _OF_ANSWERS).items()}
    schemas["Listen"] |= {"anyOf": _PLAYED_OR_SKIPPED}
    registration = schemas["Registration"]
    user = {"user_id": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}}
    schemas["User"] = registration | {
        "title": "User",
        "properties": user | registration["properties"],
        "required": ["user_id"],
    }
    bounds = {"maxItems": most} if most is not None else {}
    for one in ("Registration", "User"):
        schemas[f"{one}s"] = object_of(**{INSTANCES: array_of(component(one), **bounds)})
    schemas["Predictions"] = object_of(predictions=array_of(component("Recommendation")))
    info = {"title": "firstspin", "version": package_version(), "summary": Registration.__doc__}
    return describe(info, (*ROUTES, BATCH_ROUTE, *MODEL_ROUTES), ERRORS, schemas)


def describe(
    info: Mapping[str, Any], routes: Iterable[Route], errors: Mapping[int, str], schemas: Mapping[str, Schema]
) -> bytes:
    """The description of these routes, as JSON; `errors` are the refusals of every route, by status."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        names = PATH_PARAMETER.findall(route.path)
        path = paths.setdefault(route.path, {"parameters": [_in_path(name) for name in names]} if names else {})
        path[route.method.lower()] = _operation(route, errors)
    error = object_of(error=object_of(code=TEXT, message=TEXT))
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": info,
            "paths": paths,
            "components": {
                "schemas": {**schemas, "Error": error},
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _operation(route: Route, errors: Mapping[int, str]) -> dict[str, Any]:
    done = {str(route.done): {"description": route.summary, "content": _content(route.answer)}}
    refusal = _content({"application/json": component("Error")})
    refused = {
        str(status): {"description": why, "content": refusal} for status, why in {**errors, **route.refusals}.items()
    }
    operation: dict[str, Any] = {"summary": route.summary, "responses": done | refused}
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(route.body)}
    if route.query:
        operation["parameters"] = [{"name": name, "in": "query", "schema": of} for name, of in route.query.items()]
    if route.keyed:
        operation["security"] = [{}, {"key": []}]
    return operation


def _content(content: Content) -> dict[str, Any]:
    return {media: {"schema": of} for media, of in content.items()}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": NAME}
